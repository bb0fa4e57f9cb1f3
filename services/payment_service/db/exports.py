"""Pages of what is exported: each read at one moment, by a handful of statements about all the payments of the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row, TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.payment_service.db.operations import operation_of
from services.payment_service.db.tables import operations
from services.payment_service.domain.models import AttemptStatus, Fact, FactKind, FactSource, Observation
from services.payment_service.domain.operations import Operation
from services.payment_service.domain.snapshots import MOVING_KINDS, PaymentSnapshot, SentAttempt
from services.payment_service.use_cases.ports import ParkedForAPerson, Position
from shared.money import Money

T = TypeVar("T")

TOTALS = (
    "amount_authorized",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_dispute_lost",
    "amount_excess",
)

# One moment for all statements: else a payment's facts could be newer than its totals.
_ONE_MOMENT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

_PAYMENTS = text(
    """
    SELECT payment_id, order_id, gateway, account, status, version, amount_minor, currency, session_unknown,
        has_unknown_operation, conflict, duplicate_of, gateway_reference, created_at, updated_at,
        amount_authorized, amount_captured, amount_refund_pending, amount_refunded, amount_disputed,
        amount_dispute_lost, amount_excess
    FROM payments
    WHERE (updated_at, payment_id) > (:after_at, :after_id)
        AND updated_at < coalesce(CAST(:before AS timestamptz), 'infinity')
    ORDER BY updated_at, payment_id LIMIT :limit
    """
)
_FACTS = text(
    """
    SELECT payment_id, kind, object_reference, amount_minor, currency, occurred_at, reason, about, operation, source,
        received_at
    FROM payment_facts WHERE payment_id = ANY(:payment_ids) AND kind = ANY(:kinds)
    """
)
_ATTEMPTS = text(
    """
    SELECT payment_id, reference, gateway_reference, status, created_at
    FROM payment_attempts WHERE payment_id = ANY(:payment_ids) ORDER BY number
    """
)
_REFERENCES = text(
    "SELECT payment_id, reference FROM payment_references WHERE payment_id = ANY(:payment_ids) ORDER BY position"
)
_PARKED = text(
    """
    SELECT parked_id, gateway, account, delivery_id, event_type, status, refs, received_at
    FROM parked_events
    WHERE status IN ('unclaimed', 'unreadable') AND (received_at, parked_id) > (:after_at, :after_id)
    ORDER BY received_at, parked_id LIMIT :limit
    """
)


class Exports:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def payments(self, *, after: Position, before: datetime | None, limit: int) -> list[PaymentSnapshot]:
        await self._connection.execute(_ONE_MOMENT)
        values = {"after_at": after.at, "after_id": after.id, "before": before, "limit": limit}
        rows = (await self._connection.execute(_PAYMENTS, values)).all()
        payment_ids = [row.payment_id for row in rows]
        facts = await self._grouped(_FACTS, _fact, payment_ids, kinds=sorted(MOVING_KINDS))
        attempts = await self._grouped(_ATTEMPTS, _attempt, payment_ids)
        references = await self._grouped(_REFERENCES, _reference, payment_ids)
        made = await self._operations(payment_ids)
        return [
            _snapshot(row, facts[row.payment_id], made[row.payment_id], attempts[row.payment_id], references)
            for row in rows
        ]

    async def parked(self, *, after: Position, limit: int) -> list[ParkedForAPerson]:
        values = {"after_at": after.at, "after_id": after.id, "limit": limit}
        rows = (await self._connection.execute(_PARKED, values)).all()
        return [
            ParkedForAPerson(
                parked_id=row.parked_id,
                gateway=row.gateway,
                account=row.account,
                delivery_id=row.delivery_id,
                event_type=row.event_type,
                status=row.status,
                references=tuple(row.refs),
                received_at=row.received_at,
            )
            for row in rows
        ]

    async def _grouped(
        self, statement: TextClause, build: Callable[[Sequence[Any]], T], payment_ids: Sequence[str], **values: Any
    ) -> Mapping[str, list[T]]:
        found: dict[str, list[T]] = defaultdict(list)
        for row in await self._connection.execute(statement, {"payment_ids": payment_ids} | values):
            found[row[0]].append(build(row))
        return found

    async def _operations(self, payment_ids: Sequence[str]) -> Mapping[str, list[Operation]]:
        statement = (
            select(operations).where(operations.c.payment_id.in_(payment_ids)).order_by(operations.c.operation_id)
        )
        found: dict[str, list[Operation]] = defaultdict(list)
        for row in (await self._connection.execute(statement)).mappings():
            found[row["payment_id"]].append(operation_of(row))
        return found


def _snapshot(
    row: Row[Any],
    facts: Sequence[Fact],
    made: Sequence[Operation],
    attempts: Sequence[SentAttempt],
    references: Mapping[str, list[str]],
) -> PaymentSnapshot:
    return PaymentSnapshot(
        payment_id=row.payment_id,
        order_id=row.order_id,
        gateway=row.gateway,
        account=row.account,
        status=row.status,
        version=row.version,
        amount_minor=row.amount_minor,
        currency=row.currency,
        totals={name: getattr(row, name) for name in TOTALS},
        session_unknown=row.session_unknown,
        has_unknown_operation=row.has_unknown_operation,
        conflict=row.conflict,
        duplicate_of=row.duplicate_of,
        gateway_reference=row.gateway_reference,
        created_at=row.created_at,
        updated_at=row.updated_at,
        facts=facts,
        operations=made,
        attempts=attempts,
        references=references[row.payment_id],
    )


def _fact(row: Sequence[Any]) -> Fact:
    _, kind, reference, amount_minor, currency, occurred_at, reason, about, operation, source, received_at = row
    amount = Money(amount_minor, currency) if currency is not None else None
    observation = Observation(FactKind(kind), reference, amount, occurred_at, reason, about, operation)
    return Fact(observation, FactSource(source), received_at)


def _attempt(row: Sequence[Any]) -> SentAttempt:
    _, reference, gateway_reference, status, created_at = row
    return SentAttempt(reference, gateway_reference, AttemptStatus(status), created_at)


def _reference(row: Sequence[Any]) -> str:
    return str(row[1])
