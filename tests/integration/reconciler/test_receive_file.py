"""Taking a file in: stored with all of its content or not at all, and found again piece by piece (RC1, RC2)."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.reconciler.domain.errors import FileChanged, FileRefused, WrongGateway
from services.reconciler.domain.settlement import BadRow, FileStatus, SettlementFile
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.receive_file import Arrival, Received, content_of, receive_file, spooled
from services.reconciler.use_cases.settlement_ports import (
    SETTLEMENT_CHANNEL,
    FileFilter,
    FileTotal,
    Inspection,
    RawFile,
)
from shared.errors import DatabaseUnavailable
from tests.integration.reconciler.conftest import World
from tests.support.settlement_bytes import a_file
from tests.support.settlement_reader import InProcessReader


@pytest.fixture
def context(world: World) -> Context:
    return replace(world.container.context, reader=InProcessReader())


async def receives(context: Context, content: bytes, *, gateway: str = "stripe", name: str = "a.csv") -> Received:
    with spooled(content) as raw:
        return await receive_file(Arrival(raw, name, "report_api", "reconciler", gateway), context)


async def stored(world: World) -> list[dict[str, Any]]:
    return await world.rows("SELECT file_id FROM settlement_files UNION ALL SELECT file_id FROM settlement_file_chunks")


class KnowsEverything(InProcessReader):
    """Any bytes are a file of one format; for contents that would take long to read."""

    async def inspect(self, raw: RawFile, *, gateway: str, account: str, format_name: str | None) -> Inspection:
        size = os.fstat(raw.fileno()).st_size
        return Inspection("any", 1, size, size.to_bytes(32, "big"))


async def test_a_large_file_comes_back_as_it_was(context: Context) -> None:
    content = random.Random(5).randbytes(5_700_000)
    received = await receives(replace(context, reader=KnowsEverything()), content)
    assert received.file.size_bytes == len(content)
    pieces = [piece async for piece in content_of(received.file.file_id, context.uow)]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 1024 * 1024
    assert [piece async for piece in content_of("stf_none", context.uow)] == []


async def test_the_worker_is_woken_for_a_new_file_and_not_for_a_known_one(world: World, context: Context) -> None:
    woken: list[str] = []
    with world.container.database.listener.subscribe(SETTLEMENT_CHANNEL, woken.append):
        first = await receives(context, a_file())
        again = await receives(context, a_file())
    assert (first.is_duplicate, again.is_duplicate) == (False, True)
    assert woken == [first.file.file_id]
    async with context.uow() as tx:
        assert [file.file_id for file in await tx.files.waiting(limit=10)] == [first.file.file_id]


async def test_a_crash_in_the_middle_stores_nothing(world: World, context: Context) -> None:
    """RC2."""

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 1024 * 1024
        raise ConnectionResetError

    file = (await receives(context, a_file())).file
    other = replace(file, file_id="stf_other", content_sha256=bytes(32))
    before = await stored(world)
    with pytest.raises(DatabaseUnavailable):
        async with context.settlement_uow() as tx:
            await tx.files.receive(other, breaks())
    assert await stored(world) == before


async def test_a_file_that_changes_while_it_is_taken_in_is_refused(
    world: World, context: Context, tmp_path: Path
) -> None:
    """What was hashed must be what is stored."""
    path = tmp_path / "a.csv"
    path.write_bytes(a_file())

    class Appends(InProcessReader):
        async def inspect(self, raw: RawFile, **names: Any) -> Inspection:
            seen = await super().inspect(raw, **names)
            os.truncate(path, 100)
            return seen

    with path.open("rb") as raw, pytest.raises(FileChanged):
        await receive_file(Arrival(raw, "a.csv", "folder", "folder", "stripe"), replace(context, reader=Appends()))
    assert await stored(world) == []


async def test_a_twin_waits_for_the_first_and_is_given_it(world: World, context: Context) -> None:
    """RC1: the first has not committed when the second comes."""
    template = (await receives(context, a_file())).file
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"first"
        started.set()
        await go_on.wait()

    async def at_once() -> AsyncIterator[bytes]:
        yield b"second"

    async def stores(name: str, content: AsyncIterator[bytes]) -> tuple[SettlementFile, bool]:
        async with context.settlement_uow() as tx:
            return await tx.files.receive(replace(template, file_id=name, content_sha256=bytes(32)), content)

    first = asyncio.create_task(stores("stf_1", slowly()))
    await started.wait()
    second = asyncio.create_task(stores("stf_2", at_once()))
    await asyncio.wait([second], timeout=0.1)
    assert not second.done(), "it waits"
    go_on.set()
    assert [(file.file_id, is_new) for file, is_new in (await first, await second)] == [
        ("stf_1", True),
        ("stf_1", False),
    ]


async def test_a_twin_of_one_that_gives_up_takes_its_place(context: Context) -> None:
    template = (await receives(context, a_file())).file
    twin = replace(template, file_id="stf_2", content_sha256=bytes(32))
    started = asyncio.Event()

    async def forever() -> AsyncIterator[bytes]:
        yield b"first"
        started.set()
        await asyncio.Event().wait()

    async def at_once() -> AsyncIterator[bytes]:
        yield b"second"

    async def stores(file: SettlementFile, content: AsyncIterator[bytes]) -> tuple[SettlementFile, bool]:
        async with context.settlement_uow() as tx:
            return await tx.files.receive(file, content)

    first = asyncio.create_task(stores(replace(twin, file_id="stf_1"), forever()))
    await started.wait()
    second = asyncio.create_task(stores(twin, at_once()))
    first.cancel()
    assert await second == (twin, True)
    await asyncio.wait([first])
    assert [piece async for piece in content_of("stf_2", context.uow)] == [b"second"]


async def test_what_cannot_be_read_says_why_and_is_not_stored(world: World, context: Context) -> None:
    with pytest.raises(WrongGateway):
        await receives(context, a_file(), gateway="paypal")
    with pytest.raises(FileRefused) as caught:
        await receives(context, b"a,b\n" + b"x," * 600)
    assert caught.value.detail.endswith("(too_many_columns)")
    assert await stored(world) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\January.csv", "January.csv"),
        ("a\r\nb\x1b[31m.csv", "a__b_[31m.csv"),
        ("", "file"),
        ("x" * 500, "x" * 200),
    ],
)
async def test_a_name_is_shown_and_never_a_path(context: Context, name: str, shown: str) -> None:
    """RC16."""
    assert (await receives(context, a_file(), name=name)).file.name == shown


async def test_what_reading_has_shown_is_kept_with_the_file(world: World, context: Context) -> None:
    file = (await receives(context, a_file())).file
    read = replace(file, status=FileStatus.READ, rows=4, lines=2, bad_rows=1, read_at=context.clock.now())
    bad = [BadRow(3, "amount_unreadable", "gross: 'x' is no decimal amount"), BadRow(9, "not_utf8", "it is not")]
    async with context.uow() as tx:
        await tx.files.save(read, bad)
        await tx.files.save(read, bad)
        await tx.files.save(replace(read, result_digest=bytes(32)))
    for number, (currency, repeats) in enumerate([("USD", False), ("USD", False), ("KWD", False), ("USD", True)]):
        await world.execute(
            """
            INSERT INTO settlement_lines (file_id, gateway, position, line_number, part, kind, currency,
                gross_minor, fee_minor, tax_minor, net_minor, source_type, identity, occurrence, repeats)
            VALUES (:file_id, 'stripe', :number, 1, 0, 'sale', :currency, 100, 3, 1, 96, 'charge', 1, 1, :repeats)
            """,
            file_id=file.file_id,
            number=number,
            currency=currency,
            repeats=repeats,
        )
    async with context.uow() as tx:
        assert await tx.files.get(file.file_id) == replace(read, result_digest=bytes(32))
        assert await tx.files.find("stripe", "", file.content_sha256) == replace(read, result_digest=bytes(32))
        assert await tx.files.problems(file.file_id, limit=10) == bad
        assert await tx.files.problems(file.file_id, limit=1) == bad[:1]
        assert await tx.files.waiting(limit=10) == []
        assert await tx.files.search(FileFilter(status=FileStatus.RECEIVED), after=None, limit=10) == []
        assert await tx.files.totals(file.file_id) == [
            FileTotal("KWD", 1, 100, 3, 1, 96),
            FileTotal("USD", 2, 200, 6, 2, 192),
        ]
