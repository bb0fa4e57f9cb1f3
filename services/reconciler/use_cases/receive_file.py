"""Take a settlement file in, wherever it came from: the API, the watched folder, a gateway's report, the CLI."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.reconciler.domain.errors import AccountUnknown, FileChanged, FileRefused, KnownElsewhere, NotInspected
from services.reconciler.domain.settlement import FileStatus, SettlementFile
from services.reconciler.settlement_formats.port import ReaderFailed, Unreadable
from services.reconciler.use_cases.ports import Context, UnitOfWorkFactory
from services.reconciler.use_cases.settlement_ports import SETTLEMENT_CHANNEL, Inspection, RawFile
from shared.gateway_variables import account_name

CHUNK_BYTES = 1024 * 1024
CHUNKS_AT_ONCE = 4
MAX_NAME_LENGTH = 200
INSPECTIONS = 2
"""Where the looking itself fails: memory that was short a moment ago may be there again."""

MAX_ACCOUNTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that somebody or something brought. ``raw`` stays open, and whoever opened it closes it."""

    raw: RawFile
    name: str
    source: str
    """``upload``, ``folder`` or ``report_api``."""
    received_by: str
    gateway: str
    account: str = ""
    format_name: str | None = None


@dataclass(frozen=True, slots=True)
class Received:
    file: SettlementFile
    is_duplicate: bool


async def receive_file(arrival: Arrival, context: Context) -> Received:
    """Recognise, hash and store it; the worker is woken to read it. The same content again is the file that is known.

    Recognition comes before anything is stored, so that what cannot be read leaves nothing behind. File and content
    commit together. Raises FileRefused.
    """
    async with context.intake.turn:
        before = _state(arrival.raw)
        account = await _account(arrival, context)
        seen = await _inspect(arrival, account, context)
        file = SettlementFile(
            file_id=context.ids.new("stf"),
            gateway=arrival.gateway,
            account=account,
            format=seen.format,
            format_version=seen.format_version,
            name=_shown(arrival.name),
            source=arrival.source,
            received_by=arrival.received_by,
            size_bytes=before[0],
            content_bytes=seen.content_bytes,
            content_sha256=seen.content_sha256,
            status=FileStatus.RECEIVED,
            received_at=context.clock.now(),
        )
        return await _store(file, _pieces(arrival.raw, before), context)


async def _account(arrival: Arrival, context: Context) -> str:
    """As payment_service writes it, and the only one where none is named. Raises AccountUnknown.

    Lines under a name that no payment has would match nothing. Before the first payment of a gateway any name is taken.
    """
    account = account_name(arrival.account)
    async with context.settlement_uow() as tx:
        known = await tx.mirror.accounts(arrival.gateway)
    if not known or account in known:
        return account
    if not account and len(known) == 1:
        return known[0]
    names = ", ".join(name or "one without a name" for name in known[:MAX_ACCOUNTS_SHOWN])
    raise AccountUnknown(f"No payment of {arrival.gateway} is known of this account; there are payments of: {names}.")


async def _inspect(arrival: Arrival, account: str, context: Context) -> Inspection:
    failure: ReaderFailed | None = None
    for _ in range(INSPECTIONS):
        try:
            return await context.reader.inspect(
                arrival.raw, gateway=arrival.gateway, account=account, format_name=arrival.format_name
            )
        except Unreadable as error:
            raise FileRefused.because(error.code, error.detail) from error
        except ReaderFailed as error:
            failure = error
    raise NotInspected from failure


async def _store(file: SettlementFile, pieces: AsyncIterator[bytes], context: Context) -> Received:
    async with context.settlement_uow() as tx:
        other = await tx.files.of_another_account(file)
        if other is not None:
            known_as = f"the account {other.account}" if other.account else "the account without a name"
            raise KnownElsewhere(f"The same content is here already, as {other.file_id} of {known_as}.")
        stored, is_to_be_read = await tx.files.receive(file, pieces)
        if is_to_be_read:
            tx.hint(SETTLEMENT_CHANNEL, stored.file_id)
    return Received(stored, is_duplicate=stored.file_id != file.file_id)


async def content_of(file_id: str, uow: UnitOfWorkFactory) -> AsyncIterator[bytes]:
    """The file as it came, in pieces, each few of them in a transaction of their own: readers are slow."""
    number = 0
    while True:
        async with uow() as tx:
            pieces = await tx.files.chunks(file_id, after=number, limit=CHUNKS_AT_ONCE)
        for piece in pieces:
            yield piece
        number += len(pieces)
        if len(pieces) < CHUNKS_AT_ONCE:
            return


@contextmanager
def spooled(content: bytes) -> Iterator[RawFile]:
    """For a content that is in memory; the file it moves to has no name and is gone afterwards."""
    with tempfile.TemporaryFile() as raw:
        raw.write(content)
        raw.flush()
        yield raw


def _state(raw: RawFile) -> tuple[int, int]:
    status = os.fstat(raw.fileno())
    return status.st_size, status.st_mtime_ns


async def _pieces(raw: RawFile, before: tuple[int, int]) -> AsyncIterator[bytes]:
    """Raises FileChanged, in the transaction that stores them, where it is not the file that was hashed any more."""
    position = 0
    while piece := os.pread(raw.fileno(), CHUNK_BYTES, position):
        yield piece
        position += len(piece)
    if _state(raw) != before:
        raise FileChanged


def _shown(name: str) -> str:
    """Only its last part, and nothing in it that a terminal or a header would act on."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(character if character.isprintable() else "_" for character in last)
    return printable[:MAX_NAME_LENGTH] or "file"
