"""Lines of a settlement file: stored, told apart from what earlier files told, and matched, in few statements a batch.

The file streams through a temporary table in batches, so that PostgreSQL stores and matches one batch while the reader
parses the next; nothing is held but a batch. ``settlement_hits`` keeps of each line only what the statements after the
last batch need. Everything happens in the caller's transaction: killed anywhere, nothing of the file is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db import settlement_sql as sql
from services.reconciler.db.batches import batches_of
from services.reconciler.db.settlement_findings import SettlementFindings
from services.reconciler.db.settlement_payouts import SettlementPayouts
from services.reconciler.domain.settlement import SettlementFile
from services.reconciler.domain.settlement_changes import Amounts, ChangedLine
from services.reconciler.use_cases.settling_ports import StoredLines, Told

BATCH_LINES = 50_000
"""While one is stored and matched the next is read; much smaller ones would cost more in statements."""


class Settlement(SettlementFindings, SettlementPayouts):
    """``store_lines`` first: what else concerns "the file" reads its temporary tables, in the same transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection)

    async def lock_account(self, gateway: str, account: str) -> None:
        """Files of one account are stored one after the other, or both of two that overlap would count their lines."""
        name = f"settlement:{gateway}/{account}"
        await self._execute("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))", name=name)

    async def store_lines(self, file: SettlementFile, lines: AsyncIterator[bytes], *, told: Told) -> StoredLines:
        """``lines`` is COPY text, one row a SettlementLine. Raises what ``lines`` raises."""
        for statement in (*sql.LIMITS, *sql.TEMPORARY):
            await self._execute(statement)
        scope: dict[str, Any] = {"file_id": file.file_id, "gateway": file.gateway, "account": file.account}
        stored = 0
        async for batch in batches_of(lines, rows=BATCH_LINES):
            stored += await self._store_batch(batch, scope, after=stored)
            await told(stored)
        await self._execute("ANALYZE settlement_hits")
        repeated = await self._tell_apart(scope)
        await self._pair(scope)
        await self._execute(sql.DIGEST_OF_CHANGED, **scope)
        return await self._counted(stored, repeated)

    async def has_earlier_files(self, file: SettlementFile) -> bool:
        return await self._has_earlier_files(
            {"file_id": file.file_id, "gateway": file.gateway, "account": file.account}
        )

    async def changed_lines(self, *, limit: int) -> tuple[list[ChangedLine], int]:
        """Lines that the file tells with other amounts than an earlier one did: the first ones, and how many."""
        rows = (await self._execute(sql.CHANGED_LINES, limit=limit)).mappings().all()
        if not rows:
            return [], 0
        count = (await self._execute("SELECT count(*) FROM settlement_differing WHERE money_differs")).scalar_one()
        return [_changed_line(row) for row in rows], count

    async def match_again(self, gateway: str, account: str) -> list[str]:
        """Match lines without a payment with payments that are known by now; the ids of those, to be touched."""
        rows = await self._execute(sql.MATCH_AGAIN, gateway=gateway, account=account)
        return sorted({row.payment_id for row in rows})

    async def match_by_person(self, file_id: str, line_number: int, payment_id: str) -> bool:
        """The lines of that place in the file that are matched with no payment; False: there is none.

        A later line of the same payment is another match by a person: several lines may be of one payment.
        """
        values = {"file_id": file_id, "line_number": line_number, "payment_id": payment_id}
        matched = (await self._execute(sql.MATCH_BY_PERSON, **values)).rowcount
        if matched:
            await self.touch([payment_id])
            await self.pair_touched()
        return bool(matched)

    async def _store_batch(self, batch: AsyncIterator[bytes], scope: Mapping[str, Any], *, after: int) -> int:
        await self._execute("TRUNCATE settlement_incoming")
        driver = await self._driver()
        status = await driver.copy_to_table(
            "settlement_incoming", source=batch, columns=sql.LINE_COLUMNS, schema_name="pg_temp", format="text"
        )
        copied = int(status.rpartition(" ")[2])
        await self._execute("ANALYZE settlement_incoming")
        times = (await self._execute(sql.TIMES_OF_BATCH)).mappings().one()
        matched = await self._execute(sql.MATCH_BATCH, **scope, **times)
        if matched.rowcount > copied:
            await self._execute(sql.FORGET_AMBIGUOUS, **scope, after=after)
        await self._execute(sql.STORE_BATCH, **scope, after=after)
        return copied

    async def _tell_apart(self, scope: Mapping[str, Any]) -> int:
        """Occurrences of equal lines, and which of them earlier files have told (failure RC4)."""
        await self._execute(sql.TWINS, **scope)
        if not await self._has_earlier_files(scope):
            return 0
        for statement in (*sql.BY_INDEX, sql.REPEATS, *sql.BY_COST):
            await self._execute(statement, **scope)
        if await self._any_differs():
            await self._complete(scope)
        return int((await self._execute(sql.MARK_REPEATS, **scope)).rowcount)

    async def _any_differs(self) -> bool:
        return bool((await self._execute("SELECT EXISTS (SELECT FROM settlement_hits WHERE differs)")).scalar())

    async def _complete(self, scope: Mapping[str, Any]) -> None:
        """Lines that an earlier file told, with what only this one says of them; other amounts become findings."""
        for statement in (*sql.BY_INDEX, sql.ROUNDINGS, sql.DIFFERING, sql.FILL_IN, *sql.BY_COST):
            await self._execute(statement, **scope)
        await self.touch(())
        await self._execute(sql.TOUCH_FILLED)

    async def _has_earlier_files(self, scope: Mapping[str, Any]) -> bool:
        return bool((await self._execute(sql.HAS_EARLIER_FILES, **scope)).scalar())

    async def _pair(self, scope: Mapping[str, Any]) -> None:
        """Lines whose payment is known and whose movement is not, with the movements that no line has yet."""
        if (await self._execute(sql.UNPAIRED_OF_FILE, **scope)).rowcount:
            await self._pair_collected()
            await self._execute(sql.KEEP_PAIRS_IN_HITS)
        await self._forget_pairing()

    async def pair_touched(self) -> None:
        """The same anew for all lines of the touched payments that name no movement, from whatever file."""
        if (await self._execute(sql.UNPAIRED_OF_TOUCHED)).rowcount:
            await self._pair_collected()
        await self._forget_pairing()

    async def _pair_collected(self) -> None:
        for statement in ("ANALYZE settlement_unpaired", *sql.PAIRING):
            await self._execute(statement)

    async def _forget_pairing(self) -> None:
        for statement in sql.FORGET_PAIRING:
            await self._execute(statement)

    async def _counted(self, stored: int, repeated: int) -> StoredLines:
        row = (await self._execute(sql.COUNT_AND_DIGEST)).one()
        name = f"{stored}:{int(row.first or 0) % 2**64:016x}{int(row.second or 0) % 2**64:016x}"
        return StoredLines(stored, repeated, row.unmatched, hashlib.sha256(name.encode()).digest())

    async def _driver(self) -> asyncpg.Connection:
        """asyncpg's own connection, in the transaction that is open: SQLAlchemy knows no COPY."""
        return (await self._connection.get_raw_connection()).driver_connection

    async def _execute(self, statement: str, **values: Any) -> Any:
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        return await self._connection.execute(text(statement), used)


def _changed_line(row: Mapping[Any, Any]) -> ChangedLine:
    booked, told = (Amounts(**{name: row[f"{which}_{name}"] for name in sql.AMOUNTS}) for which in ("booked", "told"))
    return ChangedLine(**{name: row[name] for name in sql.CHANGED}, booked=booked, told=told)
