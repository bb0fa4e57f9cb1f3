"""Settlement files as they came: what identifies them, their content in pieces, and what reading them has shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import asyncpg
from sqlalchemy import RowMapping, and_, delete, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db.tables import settlement_file_chunks, settlement_file_problems, settlement_files
from services.reconciler.domain.settlement import BadRow, FileStatus, SettlementFile
from services.reconciler.use_cases.settlement_ports import FileFilter, FileTotal

_COLUMNS = settlement_files.c

_TOTALS = text(
    """
    SELECT currency, count(*) AS lines, sum(gross_minor), sum(fee_minor), sum(tax_minor), sum(net_minor)
    FROM settlement_lines WHERE file_id = :file_id AND NOT repeats
    GROUP BY currency ORDER BY currency
    """
)


class Files:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def receive(self, file: SettlementFile, content: AsyncIterator[bytes]) -> tuple[SettlementFile, bool]:
        # The unique index makes a twin wait here until the first one has committed, or given up.
        statement = upsert(settlement_files).values(_values(file)).on_conflict_do_nothing()
        added = await self._connection.execute(statement.returning(_COLUMNS.file_id))
        if added.scalar() is None:
            known = await self.find(file.gateway, file.account, file.content_sha256)
            assert known is not None, "the row that was in the way is not there"
            return await self._read_again(known, file)
        driver = await _driver(self._connection)
        await driver.copy_records_to_table(
            settlement_file_chunks.name,
            records=_numbered(file.file_id, content),
            columns=("file_id", "number", "content"),
        )
        return file, True

    async def _read_again(self, known: SettlementFile, file: SettlementFile) -> tuple[SettlementFile, bool]:
        """What could not be read is tried again: by another format, a newer one, or on a better day."""
        again = replace(
            known,
            format=file.format,
            format_version=file.format_version,
            received_by=file.received_by,
            received_at=file.received_at,
            status=FileStatus.RECEIVED,
            read_at=None,
            problem=None,
            problem_detail=None,
        )
        statement = update(settlement_files).where(
            _COLUMNS.file_id == known.file_id,
            _COLUMNS.status.in_((FileStatus.REFUSED.value, FileStatus.INCOMPLETE.value)),
        )
        changed = await self._connection.execute(statement.values(_values(again)).returning(_COLUMNS.file_id))
        return (known, False) if changed.scalar() is None else (again, True)

    async def of_another_account(self, file: SettlementFile) -> SettlementFile | None:
        number = int.from_bytes(file.content_sha256[:8], "big", signed=True)
        await self._connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
        is_booked = and_(_COLUMNS.status == FileStatus.READ.value, _COLUMNS.rows > 1)
        statement = select(settlement_files).where(
            _COLUMNS.gateway == file.gateway,
            _COLUMNS.account != file.account,
            _COLUMNS.content_sha256 == file.content_sha256,
            or_(is_booked, _COLUMNS.status == FileStatus.RECEIVED.value),
        )
        row = (await self._connection.execute(statement.limit(1))).mappings().one_or_none()
        return None if row is None else _file(row)

    async def find(self, gateway: str, account: str, content_sha256: bytes) -> SettlementFile | None:
        statement = select(settlement_files).where(
            _COLUMNS.gateway == gateway, _COLUMNS.account == account, _COLUMNS.content_sha256 == content_sha256
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _file(row)

    async def get(self, file_id: str, *, for_update: bool = False) -> SettlementFile | None:
        statement = select(settlement_files).where(_COLUMNS.file_id == file_id)
        if for_update:
            statement = statement.with_for_update()
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _file(row)

    async def waiting(self, *, limit: int) -> list[SettlementFile]:
        statement = select(settlement_files).where(_COLUMNS.status == FileStatus.RECEIVED.value)
        rows = await self._connection.execute(statement.order_by(_COLUMNS.file_id).limit(limit))
        return [_file(row) for row in rows.mappings()]

    async def search(self, filter_: FileFilter, *, after: str | None, limit: int) -> list[SettlementFile]:
        statement = select(settlement_files).order_by(_COLUMNS.file_id.desc()).limit(limit)
        if after is not None:
            statement = statement.where(_COLUMNS.file_id < after)
        if filter_.gateway is not None:
            statement = statement.where(_COLUMNS.gateway == filter_.gateway)
        if filter_.status is not None:
            statement = statement.where(_COLUMNS.status == filter_.status.value)
        return [_file(row) for row in (await self._connection.execute(statement)).mappings()]

    async def save(self, file: SettlementFile, problems: Sequence[BadRow] | None = None) -> None:
        statement = update(settlement_files).where(_COLUMNS.file_id == file.file_id).values(_values(file))
        await self._connection.execute(statement)
        if problems is None:
            return
        kept = settlement_file_problems
        await self._connection.execute(delete(kept).where(kept.c.file_id == file.file_id))
        if problems:
            rows = [
                {"file_id": file.file_id, "number": number, **problem._asdict()}
                for number, problem in enumerate(problems, start=1)
            ]
            await self._connection.execute(insert(kept), rows)

    async def problems(self, file_id: str, *, limit: int) -> list[BadRow]:
        columns = settlement_file_problems.c
        statement = select(columns.line_number, columns.code, columns.detail).where(columns.file_id == file_id)
        rows = await self._connection.execute(statement.order_by(columns.number).limit(limit))
        return [BadRow(row.line_number, row.code, row.detail) for row in rows]

    async def totals(self, file_id: str) -> list[FileTotal]:
        rows = await self._connection.execute(_TOTALS, {"file_id": file_id})
        return [FileTotal(row.currency, row.lines, *map(int, row[2:])) for row in rows]

    async def chunks(self, file_id: str, *, after: int, limit: int) -> list[bytes]:
        columns = settlement_file_chunks.c
        statement = select(columns.content).where(columns.file_id == file_id, columns.number > after)
        rows = await self._connection.execute(statement.order_by(columns.number).limit(limit))
        return [bytes(row.content) for row in rows]


async def _driver(connection: AsyncConnection) -> asyncpg.Connection:
    """asyncpg's own connection, in the transaction that is open: SQLAlchemy knows no COPY."""
    raw = await connection.get_raw_connection()
    return raw.driver_connection


async def _numbered(file_id: str, content: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, int, bytes]]:
    number = 0
    async for piece in content:
        number += 1
        yield file_id, number, piece


def _values(file: SettlementFile) -> dict[str, Any]:
    return asdict(file) | {"status": file.status.value}


_FIELDS = tuple(field.name for field in fields(SettlementFile))


def _file(row: RowMapping) -> SettlementFile:
    values: dict[str, Any] = {name: row[name] for name in _FIELDS}
    return SettlementFile(**(values | {"status": FileStatus(row["status"])}))
