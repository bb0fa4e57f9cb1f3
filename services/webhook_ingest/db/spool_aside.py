"""What was set aside from the spool for a person: looked at, and put through the same insert once more.

A record that no program could bring in may be readable to a newer release, and one that the database refused may fit
after a migration. Whatever is still refused stays where it is.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.webhook_ingest.db.delivery_rows import Row
from services.webhook_ingest.db.delivery_writer import RowWriter
from services.webhook_ingest.db.spool import sync_directory, write_all
from services.webhook_ingest.db.spool_records import encode, parse
from services.webhook_ingest.db.spooling import pieces_of
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.errors import PayrailError

_NAME = re.compile(r"[0-9]{14}-(?P<token>[0-9a-f]{32})\.aside")


class AsideInUse(PayrailError):
    """The file is still being written, or another `payrail webhook spool --retry` has it; try again in a minute."""

    code = "aside_in_use"


@dataclass(frozen=True, slots=True)
class Aside:
    """One file. ``damaged``: pieces that are no record of this version, by their bytes."""

    path: Path
    token: bytes
    rows: Sequence[Row]
    damaged: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Retried:
    """``stored`` are new, ``duplicates`` were there; ``left`` records or pieces are still in the file."""

    stored: int
    duplicates: int
    left: int


def set_aside(directory: Path) -> list[Aside]:
    """Oldest first. Raises OSError."""
    return [_read(path) for path in sorted(directory.glob("*.aside")) if _NAME.fullmatch(path.name)]


async def retry(path: Path, writer: RowWriter) -> Retried:
    """Bring in what can be brought in, and leave the rest. Raises AsideInUse, DatabaseUnavailable, OSError.

    The file changes after the commit, so a crash in between costs a repetition, which changes nothing.
    """
    with _owned(path):
        aside = _read(path)
        stored = duplicates = 0
        refused: list[Row] = []
        for piece in pieces_of(aside.rows):
            for row, outcome in zip(piece, await writer.write(piece), strict=True):
                if not isinstance(outcome, AppendResult):
                    refused.append(row)
                elif outcome.is_duplicate:
                    duplicates += 1
                else:
                    stored += 1
        if stored or duplicates:
            _leave(path, b"".join([*aside.damaged, encode(refused, aside.token)]))
        return Retried(stored, duplicates, len(refused) + len(aside.damaged))


def _read(path: Path) -> Aside:
    found = _NAME.fullmatch(path.name)
    assert found is not None, "only such files are looked for"
    token = bytes.fromhex(found["token"])
    data = path.read_bytes()
    contents = parse(data, token)
    torn = [data[-contents.torn :]] if contents.torn else []  # here it is no end of a file that was being written
    return Aside(path, token, contents.rows, [*contents.damaged, *torn])


@contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Raises AsideInUse. While its segment is there, the drain may write the file again."""
    if path.with_suffix(".spool").exists():
        raise AsideInUse
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AsideInUse from None
        yield


def _leave(path: Path, data: bytes) -> None:
    """Whole at any moment: what is in there is nowhere else."""
    if data:
        rewritten = path.with_suffix(".rewritten")
        descriptor = os.open(rewritten, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        rewritten.replace(path)
    else:
        path.unlink()
    sync_directory(path.parent)
