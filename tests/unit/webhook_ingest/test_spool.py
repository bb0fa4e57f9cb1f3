"""The spool's files: what was answered is there, what is torn is cut, what is damaged is kept for a person."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import stat
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from services.webhook_ingest.db.delivery_rows import Row
from services.webhook_ingest.db.delivery_writer import Outcome
from services.webhook_ingest.db.spool import Spool
from services.webhook_ingest.db.spool_records import TOKEN_BYTES, encode, parse
from services.webhook_ingest.db.spooling import Drain, Outage
from services.webhook_ingest.domain.errors import StoreFull
from services.webhook_ingest.metrics import SPOOL_UNREADABLE
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.errors import DatabaseUnavailable
from shared.settings import ConfigurationError
from tests.support.clock import FakeClock, fake_ports
from tests.unit.webhook_ingest.builders import a_row

TOKEN = b"t" * TOKEN_BYTES


def a_spool(directory: Path, *, max_bytes: int = 1 << 20, **changes: Any) -> Spool:
    clock = changes.pop("clock", None)
    ports = fake_ports(seed=random.getrandbits(32), clock=clock)
    return Spool(directory, max_bytes=max_bytes, ports=ports, **changes)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = a_spool(tmp_path / "spool")
    yield spool
    await spool.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def rows_in(spool: Spool) -> list[Row]:
    return [row for segment in await spool.claim() for row in (await spool.read(segment)).rows]


def test_a_record_is_read_back_as_it_was_written() -> None:
    rows = [
        a_row("evt_1"),
        a_row("evt_2", signed_at=None, event_id=None, account="eu", opened_type="text/plain", opened_body=b"\xff\x00"),
        a_row("evt_3", body=b"", headers=()),
    ]
    contents = parse(encode(rows, TOKEN), TOKEN)
    assert contents.rows == rows
    assert (contents.damaged, contents.torn) == ([], 0)


def test_a_file_that_ends_anywhere_in_its_last_record_keeps_all_before() -> None:
    rows = [a_row(f"evt_{number}") for number in range(3)]
    data = encode(rows, TOKEN)
    whole = len(encode(rows[:2], TOKEN))
    for end in range(whole + 1, len(data)):
        contents = parse(data[:end], TOKEN)
        assert contents.rows == rows[:2]
        assert (contents.damaged, contents.torn) == ([], end - whole)
    grown = parse(data + bytes(4096), TOKEN)  # what a power failure leaves of a file that had only grown
    assert (grown.rows, grown.damaged, grown.torn) == (rows, [], 4096)


def test_any_damaged_byte_costs_its_own_record_and_is_kept_aside() -> None:
    rows = [a_row(f"evt_{number}") for number in range(3)]
    data = encode(rows, TOKEN)
    first, second = len(encode(rows[:1], TOKEN)), len(encode(rows[:2], TOKEN))
    for place in range(first, second):
        broken = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        contents = parse(broken, TOKEN)
        assert contents.rows == [rows[0], rows[2]]
        assert b"".join(contents.damaged) == broken[first:second]
        assert contents.torn == 0


def test_a_damaged_last_record_is_not_taken_for_a_torn_one() -> None:
    """It may have been acknowledged."""
    data = encode([a_row()], TOKEN)
    contents = parse(data[:-1] + bytes([data[-1] ^ 1]), TOKEN)
    assert (contents.rows, contents.torn, len(contents.damaged)) == ([], 0, 1)


def test_a_record_inside_a_body_is_no_record() -> None:
    forged = encode([a_row("evt_forged")], b"f" * TOKEN_BYTES)
    data = encode([a_row("evt_1", body=forged, body_size=len(forged)), a_row("evt_2")], TOKEN)
    broken = bytes([data[0] ^ 1]) + data[1:]
    assert [row.dedupe_key for row in parse(broken, TOKEN).rows] == ["id:evt_2"]


async def test_what_was_appended_is_there_for_whoever_comes_next(tmp_path: Path) -> None:
    spool = a_spool(tmp_path / "spool")
    rows = [a_row("evt_1"), a_row("evt_2")]
    stored = await spool.append(rows)
    assert [(one.delivery_id, one.is_duplicate) for one in stored] == [(row.id, False) for row in rows]
    await spool.append([a_row("evt_3")])
    heir = a_spool(tmp_path / "spool")
    assert await rows_in(heir) == []  # its owner lives, so nobody else may touch it
    await spool.close()  # as the kernel does for a process that dies
    assert [row.dedupe_key for row in await rows_in(heir)] == ["id:evt_1", "id:evt_2", "id:evt_3"]
    await heir.close()


async def test_nobody_is_told_before_the_disk_has_it(tmp_path: Path) -> None:
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    spool = a_spool(tmp_path / "spool", sync=sync)
    rows = [a_row(f"evt_{number}") for number in range(10)]
    await spool.append(rows)
    assert len(synced) == 1, "one fsync a batch"
    [file] = (tmp_path / "spool").iterdir()
    assert synced == [file.stat().st_size], "after the last byte"
    await spool.close()


async def test_the_directory_and_its_files_are_nobody_elses(spool: Spool, tmp_path: Path) -> None:
    await spool.append([a_row()])
    directory = tmp_path / "spool"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}


async def test_a_full_spool_refuses_and_what_is_in_it_stays(tmp_path: Path) -> None:
    spool = a_spool(tmp_path / "spool", max_bytes=3000)
    await spool.append([a_row("evt_1")])
    with pytest.raises(StoreFull):
        await spool.append([a_row(f"evt_big_{number}") for number in range(10)])
    assert spool.refused == "the spool is full"
    await spool.append([a_row("evt_2")])
    assert [row.dedupe_key for row in await rows_in(spool)] == ["id:evt_1", "id:evt_2"]
    await spool.close()


class Disk:
    """Does what the kernel does, until it fails."""

    def __init__(self) -> None:
        self.fault = ""
        self._write = os.write

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.fault != "write":
            return self._write(descriptor, data)
        if len(data) > 100:
            return self._write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def sync(self, descriptor: int) -> None:
        if self.fault == "sync":
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)


@pytest.mark.parametrize("fault", ["write", "sync"])
async def test_a_failing_disk_acknowledges_nothing_and_costs_nothing_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    clock = FakeClock()
    spool = a_spool(tmp_path / "spool", sync=disk.sync, clock=clock)
    await spool.append([a_row("evt_1")])
    disk.fault = fault
    with pytest.raises(DatabaseUnavailable):
        await spool.append([a_row("evt_lost")])
    disk.fault = ""
    assert spool.refused
    clock.move(1)
    await spool.append([a_row("evt_2")])
    assert [row.dedupe_key for row in await rows_in(spool)] == ["id:evt_1", "id:evt_2"]
    assert "id:evt_lost" not in {key[2] for key in spool.known}
    await spool.close()


@pytest.mark.parametrize("fault", ["write", "sync"])
async def test_a_disk_that_stays_full_leaves_no_files_and_no_descriptors_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Else an hour of it ends in EMFILE, for connections and for the drain as well."""
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    clock = FakeClock()
    spool = a_spool(tmp_path / "spool", sync=disk.sync, clock=clock)
    await spool.append([a_row("evt_1")])
    [kept] = (tmp_path / "spool").iterdir()
    size, descriptors = kept.stat().st_size, open_descriptors()
    disk.fault = fault
    for number in range(20):
        clock.move(1)
        with pytest.raises(DatabaseUnavailable):
            await spool.append([a_row(f"evt_lost_{number}")])
    assert [(file, file.stat().st_size) for file in (tmp_path / "spool").iterdir()] == [(kept, size)]
    assert open_descriptors() < descriptors + 1
    await spool.close()


async def test_a_disk_that_has_failed_is_left_alone_for_a_second(tmp_path: Path) -> None:
    disk, tries = Disk(), []

    def sync(descriptor: int) -> None:
        tries.append(descriptor)
        disk.sync(descriptor)

    clock = FakeClock()
    spool = a_spool(tmp_path / "spool", sync=sync, clock=clock)
    disk.fault = "sync"
    for _ in range(5):
        with pytest.raises(DatabaseUnavailable):
            await spool.append([a_row()])
    assert len(tries) == 1
    disk.fault = ""
    clock.move(1)
    await spool.append([a_row()])
    assert spool.refused is None
    await spool.close()


async def test_a_segment_whose_name_cannot_be_made_safe_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = a_spool(tmp_path / "spool")

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DatabaseUnavailable):
        await spool.append([a_row()])
    assert list((tmp_path / "spool").iterdir()) == []
    await spool.close()


async def test_what_others_have_drained_is_known_no_more(tmp_path: Path) -> None:
    disk = Disk()
    first, other = a_spool(tmp_path / "spool", sync=disk.sync), a_spool(tmp_path / "spool")
    await first.append([a_row("evt_1")])
    disk.fault = "sync"
    with pytest.raises(DatabaseUnavailable):
        await first.append([a_row("evt_2")])
    await first.measure()
    assert len(first.known) == 1
    [segment] = await other.claim()
    await other.delete(segment, [])
    await first.measure()
    assert first.known == {}
    await first.close()
    await other.close()


async def test_a_segment_that_cannot_be_opened_is_left_where_it_is_and_the_others_are_claimed(spool: Spool) -> None:
    await spool.append([a_row("evt_1")])
    directory = spool._directory
    (directory / f"00000000000001-{'a' * 32}.spool").mkdir()
    assert [row.dedupe_key for row in await rows_in(spool)] == ["id:evt_1"]
    assert SPOOL_UNREADABLE._value.get() == 1
    (directory / f"00000000000001-{'a' * 32}.spool").rmdir()
    await spool.claim()
    assert SPOOL_UNREADABLE._value.get() == 0


class Accepting:
    """A RowWriter for which everything is new."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        self.keys += [row.dedupe_key for row in rows]
        return [AppendResult(row.id, is_duplicate=False, body_digest=row.body_digest) for row in rows]

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_segment_that_the_disk_does_not_give_back_stays_and_the_others_are_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, writer = a_spool(tmp_path / "spool", segment_bytes=1), Accepting()

    async def answers() -> None:
        """The database is there."""

    drain = Drain(spool, writer, Outage(answers, ports=fake_ports()), ports=fake_ports())
    for number in range(3):
        await spool.append([a_row(f"evt_{number}")])
    bad, *_ = sorted((tmp_path / "spool").iterdir())
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    await drain.round()
    assert writer.keys == ["id:evt_1", "id:evt_2"]
    assert list((tmp_path / "spool").iterdir()) == [bad]
    monkeypatch.undo()
    await drain.round()
    assert writer.keys == ["id:evt_1", "id:evt_2", "id:evt_0"]
    await spool.close()


def a_record(described: object, rest: bytes = b"") -> bytes:
    """Whole, whatever it says."""
    text = json.dumps(described).encode()
    payload = struct.pack(">I", len(text)) + text + rest
    header = struct.pack(">16sII", TOKEN, len(payload), crc32(payload))
    return header + struct.pack(">I", crc32(header)) + payload


@pytest.mark.parametrize(
    "described",
    [
        {**a_row()._asdict(), "signed_at": None, "received_at": 1700000000, "body": 0, "body_digest": 0},
        {"received_at": "2026-01-02T03:04:05+00:00"},
        {"body": "many"},
        {"received_at": "yesterday"},
        ["another", "layout"],
        None,
    ],
)
def test_a_record_of_another_version_is_set_aside_and_not_the_end_of_the_worker(described: Any) -> None:
    row = a_row()
    strange = a_record(described)
    contents = parse(strange + encode([row], TOKEN), TOKEN)
    assert (contents.rows, contents.damaged, contents.torn) == ([row], [strange], 0)


async def test_a_segment_that_was_deleted_meanwhile_is_not_adopted(tmp_path: Path) -> None:
    first, second = a_spool(tmp_path / "spool"), a_spool(tmp_path / "spool")
    await first.append([a_row()])
    await first.close()
    [segment] = await second.claim()
    heir = a_spool(tmp_path / "spool")
    assert await heir.claim() == []
    await second.delete(segment, [])
    assert await heir.claim() == []
    await second.close()
    await heir.close()


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_a_directory_that_others_can_look_into_is_refused_and_not_changed(tmp_path: Path, mode: int) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(mode)
    with pytest.raises(ConfigurationError, match="WEBHOOK_SPOOL_DIRECTORY"):
        a_spool(tmp_path / "home")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == mode


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(ConfigurationError, match="another user"):
        a_spool(tmp_path / "theirs")


def test_a_new_directorys_name_is_on_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power failure takes the directory, with everything that was fsynced in it."""
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    a_spool(tmp_path / "a" / "b")
    assert sorted(synced) == [str(tmp_path), str(tmp_path / "a")]


async def test_what_a_process_that_died_never_named_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    dead, living = directory / "1.new", directory / "2.new"
    dead.touch()
    with living.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        a_spool(directory)
        assert list(directory.iterdir()) == [living]


async def test_a_segment_whose_nameless_file_was_taken_for_a_dead_ones_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = a_spool(tmp_path / "spool")
    flock, times = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        times.append(operation)
        if len(times) == 1:
            a_spool(tmp_path / "spool")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    await spool.append([a_row("evt_1")])
    assert [row.dedupe_key for row in await rows_in(spool)] == ["id:evt_1"]
    await spool.close()


def test_a_directory_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="WEBHOOK_SPOOL_DIRECTORY"):
        a_spool(tmp_path / "file" / "spool")
