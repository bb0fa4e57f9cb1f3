"""The sub-ledger in PostgreSQL: posting, reading, and checking it against the payments' totals.

Entries and lines are append-only and every entry sums to zero (triggers of migration 0002). What is checked here is
the rest: that no entry mixes gateways, and that the lines of a payment are what its totals say.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.payment_service.db.tables import ledger_entries, ledger_postings
from services.payment_service.domain.ledger import Account, Balance, LedgerEntry, LedgerLine, Posting
from services.payment_service.domain.models import Payment
from services.payment_service.use_cases.ports import LedgerFilter, LedgerMarks
from shared.money import Money

_POST = text(
    """
    WITH entry AS (
        INSERT INTO ledger_entries (payment_id, payment_version, cause, at)
        VALUES (:payment_id, :payment_version, :cause, :at) RETURNING entry_id)
    INSERT INTO ledger_postings (entry_id, line, account, gateway, currency, amount_minor)
    SELECT entry.entry_id, posting.line, posting.account, :gateway, :currency, posting.amount_minor
    FROM entry, unnest(CAST(:accounts AS text[]), CAST(:amounts AS bigint[]))
        WITH ORDINALITY AS posting(account, amount_minor, line)
    """
)

_BOOK = text(
    """
    WITH entry AS (
        INSERT INTO ledger_entries (source_key, cause, at) VALUES (:source_key, :cause, :at)
        ON CONFLICT (source_key) DO NOTHING RETURNING entry_id)
    INSERT INTO ledger_postings (entry_id, line, account, gateway, currency, amount_minor)
    SELECT entry.entry_id, posting.line, posting.account, :gateway, :currency, posting.amount_minor
    FROM entry, unnest(CAST(:accounts AS text[]), CAST(:amounts AS bigint[]))
        WITH ORDINALITY AS posting(account, amount_minor, line)
    RETURNING entry_id
    """
)

_MARKS = text(
    """
    SELECT coalesce((SELECT max(entry_id) FROM ledger_entries), 0) AS entry,
           coalesce((SELECT max(position) FROM payment_facts), 0) AS fact,
           coalesce((SELECT max(position) FROM payment_timeline), 0) AS timeline
    """
)

_CHANGED = text(
    """
    SELECT payment_id FROM ledger_entries
    WHERE entry_id > :entry_after AND entry_id <= :entry_until AND payment_id IS NOT NULL
    UNION SELECT payment_id FROM payment_facts WHERE position > :fact_after AND position <= :fact_until
    UNION SELECT payment_id FROM payment_timeline WHERE position > :timeline_after AND position <= :timeline_until
    """
)

_UNBALANCED = text(
    """
    SELECT DISTINCT entry_id FROM (
        SELECT entry_id FROM ledger_postings
        WHERE (entry_id > :after AND entry_id <= :until) OR entry_id = ANY(:known)
        GROUP BY entry_id, gateway, currency HAVING sum(amount_minor) <> 0) AS unbalanced
    ORDER BY entry_id LIMIT :limit
    """
)

# The same as domain.ledger.postings(PaymentState(), state), so that a million payments can be compared where they are.
# A test holds the two together for any state.
_UNTIED = text(
    """
    WITH expected AS (
        SELECT p.payment_id, p.gateway, p.currency, line.account, line.amount_minor
        FROM payments p CROSS JOIN LATERAL (VALUES
            ('authorizations_held', greatest(0, p.amount_authorized - p.amount_captured)),
            ('authorizations_due', -greatest(0, p.amount_authorized - p.amount_captured)),
            ('gateway_receivable', p.amount_captured - p.amount_refunded - p.amount_disputed - p.amount_excess),
            ('customer_payments', p.amount_refunded + p.amount_refund_pending - p.amount_captured),
            ('refunds_pending', -p.amount_refund_pending),
            ('disputes_withheld', p.amount_disputed - p.amount_dispute_lost),
            ('dispute_losses', p.amount_dispute_lost),
            ('returned_in_excess', p.amount_excess)
        ) AS line(account, amount_minor)
        WHERE p.payment_id = ANY(:payment_ids) AND line.amount_minor <> 0),
    booked AS (
        SELECT e.payment_id, l.gateway, l.currency, l.account, sum(l.amount_minor) AS amount_minor
        FROM ledger_entries e JOIN ledger_postings l USING (entry_id)
        WHERE e.payment_id = ANY(:payment_ids)
        GROUP BY e.payment_id, l.gateway, l.currency, l.account HAVING sum(l.amount_minor) <> 0)
    SELECT DISTINCT payment_id
    FROM expected FULL JOIN booked USING (payment_id, gateway, currency, account)
    WHERE expected.amount_minor IS DISTINCT FROM booked.amount_minor
    ORDER BY payment_id LIMIT :limit
    """
)


class Ledger:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def post(self, payment: Payment, lines: Sequence[Posting], *, cause: str, at: datetime) -> None:
        if not lines:
            return
        values = {
            "payment_id": payment.payment_id,
            "payment_version": payment.version,
            "cause": cause,
            "at": at,
            "gateway": payment.gateway,
            "currency": payment.amount.currency,
        }
        await self._connection.execute(_POST, values | _columns(lines))

    async def book(
        self, source_key: str, gateway: str, currency: str, lines: Sequence[Posting], *, cause: str, at: datetime
    ) -> bool:
        if not lines:
            return False
        values = {"source_key": source_key, "gateway": gateway, "currency": currency, "cause": cause, "at": at}
        return (await self._connection.execute(_BOOK, values | _columns(lines))).first() is not None

    async def balances(
        self, *, gateway: str | None = None, currency: str | None = None, at: datetime | None = None
    ) -> list[Balance]:
        lines = ledger_postings.c
        total = func.sum(lines.amount_minor).label("total")
        statement = select(lines.gateway, lines.currency, lines.account, total)
        if at is not None:
            statement = statement.join(ledger_entries, ledger_entries.c.entry_id == lines.entry_id)
            statement = statement.where(ledger_entries.c.at <= at)
        if gateway is not None:
            statement = statement.where(lines.gateway == gateway)
        if currency is not None:
            statement = statement.where(lines.currency == currency)
        grouping = (lines.gateway, lines.currency, lines.account)
        rows = await self._connection.execute(statement.group_by(*grouping).order_by(*grouping))
        return [Balance(row.gateway, Account(row.account), Money(int(row.total), row.currency)) for row in rows]

    async def entries(self, filter_: LedgerFilter, *, before: int | None, limit: int) -> list[LedgerEntry]:
        columns = ledger_entries.c
        statement = select(ledger_entries).order_by(columns.entry_id.desc()).limit(limit)
        if filter_.payment_id is not None:
            statement = statement.where(columns.payment_id == filter_.payment_id)
        if before is not None:
            statement = statement.where(columns.entry_id < before)
        wanted = _line_conditions(filter_)
        if wanted:
            of_entry = ledger_postings.c.entry_id == columns.entry_id
            statement = statement.where(select(ledger_postings.c.line).where(of_entry, and_(*wanted)).exists())
        rows = (await self._connection.execute(statement)).mappings().all()
        lines = await self._lines([row["entry_id"] for row in rows])
        return [LedgerEntry(**row, lines=tuple(lines.get(row["entry_id"], ()))) for row in rows]

    async def _lines(self, entry_ids: Sequence[int]) -> dict[int, list[LedgerLine]]:
        columns = ledger_postings.c
        statement = (
            select(ledger_postings).where(columns.entry_id.in_(entry_ids)).order_by(columns.entry_id, columns.line)
        )
        found: dict[int, list[LedgerLine]] = {}
        for row in await self._connection.execute(statement):
            line = LedgerLine(Account(row.account), row.gateway, Money(row.amount_minor, row.currency))
            found.setdefault(row.entry_id, []).append(line)
        return found

    async def marks(self) -> LedgerMarks:
        return LedgerMarks(**(await self._connection.execute(_MARKS)).mappings().one())

    async def changed_payments(self, after: LedgerMarks, until: LedgerMarks) -> list[str]:
        values = {
            "entry_after": after.entry,
            "entry_until": until.entry,
            "fact_after": after.fact,
            "fact_until": until.fact,
            "timeline_after": after.timeline,
            "timeline_until": until.timeline,
        }
        return list((await self._connection.execute(_CHANGED, values)).scalars())

    async def some_payments(self, *, after: str, limit: int) -> list[str]:
        statement = text("SELECT payment_id FROM payments WHERE payment_id > :after ORDER BY payment_id LIMIT :limit")
        return list((await self._connection.execute(statement, {"after": after, "limit": limit})).scalars())

    async def untied_payments(self, payment_ids: Sequence[str], *, limit: int) -> list[str]:
        values = {"payment_ids": list(payment_ids), "limit": limit}
        return list((await self._connection.execute(_UNTIED, values)).scalars())

    async def unbalanced_entries(self, *, after: int, until: int, known: Sequence[int], limit: int) -> list[int]:
        values = {"after": after, "until": until, "known": list(known), "limit": limit}
        return list((await self._connection.execute(_UNBALANCED, values)).scalars())


def _columns(lines: Sequence[Posting]) -> dict[str, list[str] | list[int]]:
    assert sum(line.amount_minor for line in lines) == 0, "an entry sums to zero"
    return {"accounts": [line.account.value for line in lines], "amounts": [line.amount_minor for line in lines]}


def _line_conditions(filter_: LedgerFilter) -> list[ColumnElement[bool]]:
    columns = ledger_postings.c
    wanted = []
    if filter_.account is not None:
        wanted.append(columns.account == filter_.account.value)
    if filter_.gateway is not None:
        wanted.append(columns.gateway == filter_.gateway)
    return wanted
