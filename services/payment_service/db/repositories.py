"""Every query of payment_service."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, func, insert, null, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.payment_service.db.rows import attempt_of, fact_of, parked_of, payment_of, payment_values
from services.payment_service.db.tables import (
    operations,
    parked_events,
    payment_attempts,
    payment_facts,
    payment_references,
    payments,
)
from services.payment_service.domain.models import (
    HOLDING,
    OPEN,
    Attempt,
    CaptureMode,
    Fact,
    FactKind,
    ParkedEvent,
    ParkedStatus,
    Payment,
    PaymentStatus,
)
from services.payment_service.use_cases.ports import PaymentFilter

# Each by the one condition that has an index of its own: a join, or "=" on a gateway, would leave it to the planner
# where to begin, and a plan made for empty tables reads all payments of the gateway (as in migration 0007).
_FIND = text(
    """
    SELECT payment_id FROM (
        SELECT payment_id, 1 AS rank FROM payments
        WHERE payment_id = ANY(:ours) AND gateway IS NOT DISTINCT FROM CAST(:gateway AS text)
            AND account IS NOT DISTINCT FROM CAST(:account AS text)
        UNION ALL
        SELECT payment_id, 2 FROM payment_attempts AS a
        WHERE reference = ANY(:ours) AND (
            SELECT gateway = :gateway AND account IS NOT DISTINCT FROM CAST(:account AS text)
            FROM payments WHERE payment_id = a.payment_id)
        UNION ALL
        SELECT payment_id, 3 FROM payment_references
        WHERE gateway = :gateway AND account = coalesce(CAST(:account AS text), '')
            AND reference = ANY(CAST(:theirs AS text[]) || CAST(:ours AS text[]))
        UNION ALL
        SELECT payment_id, 4 FROM payments
        WHERE order_id = ANY(:ours) AND gateway IS NOT DISTINCT FROM CAST(:gateway AS text)
            AND account IS NOT DISTINCT FROM CAST(:account AS text)
    ) AS known
    ORDER BY rank, payment_id DESC LIMIT 1
    """
)


_ADD_REFERENCES = text(
    """
    INSERT INTO payment_references (gateway, account, reference, payment_id)
    SELECT :gateway, :account, name, :payment_id
    FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS given (name, place) ORDER BY place
    ON CONFLICT DO NOTHING
    """
)

_LOCK_NAMES = text(
    """
    SELECT pg_advisory_xact_lock(hashtextextended(name, 1)) FROM (
        SELECT name FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS given (name, place) ORDER BY place
    ) AS ordered
    """
)

_NOT_FINAL = payments.c.status.in_(sorted(OPEN)) | (
    payments.c.status.in_(sorted(HOLDING)) & (payments.c.amount_authorized != payments.c.amount_captured)
)
"""PaymentState.is_final, as PostgreSQL sees it."""


class Payments:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, payment: Payment) -> bool:
        statement = (
            upsert(payments).values(payment_values(payment)).on_conflict_do_nothing().returning(payments.c.payment_id)
        )
        return (await self._connection.execute(statement)).scalar() is not None

    async def get(self, payment_id: str) -> Payment | None:
        return await self._one(select(payments).where(payments.c.payment_id == payment_id))

    async def get_for_update(self, payment_id: str) -> Payment | None:
        return await self._one(select(payments).where(payments.c.payment_id == payment_id).with_for_update())

    async def save(self, payment: Payment) -> None:
        state = payment.state
        statement = (
            update(payments)
            .where(payments.c.payment_id == payment.payment_id)
            .values(
                status=state.status.value,
                version=payment.version,
                amount_authorized=state.amount_authorized,
                amount_capture_pending=state.amount_capture_pending,
                amount_captured=state.amount_captured,
                amount_refund_pending=state.amount_refund_pending,
                amount_refunded=state.amount_refunded,
                amount_disputed=state.amount_disputed,
                amount_dispute_lost=state.amount_dispute_lost,
                amount_excess=state.amount_excess,
                has_unknown_operation=state.has_unknown_operation,
                session_unknown=payment.session_unknown,
                capture_before=payment.capture_before,
                capture_warned_at=payment.capture_warned_at,
                given_up_at=payment.given_up_at,
                failure_code=state.failure_code,
                conflict=state.conflict,
                gateway_reference=payment.gateway_reference,
                duplicate_of=payment.duplicate_of,
                updated_at=payment.updated_at,
            )
        )
        await self._connection.execute(statement)

    async def find(
        self, gateway: str, references: Sequence[str], our_references: Sequence[str], *, account: str | None = None
    ) -> str | None:
        values = {
            "gateway": gateway,
            "account": account,
            "theirs": list(references),
            "ours": list(our_references),
        }
        return (await self._connection.execute(_FIND, values)).scalar()

    async def add_references(self, payment: Payment, references: Sequence[str]) -> bool:
        known_by = {"gateway": payment.gateway, "account": payment.account or "", "payment_id": payment.payment_id}
        values = known_by | {"names": list(dict.fromkeys(references))}
        return (await self._connection.execute(_ADD_REFERENCES, values)).rowcount > 0

    async def references(self, payment_id: str) -> tuple[str, ...]:
        statement = (
            select(payment_references.c.reference)
            .where(payment_references.c.payment_id == payment_id)
            .order_by(payment_references.c.position)
        )
        return tuple((await self._connection.execute(statement)).scalars())

    async def search(self, filter_: PaymentFilter, *, after: str | None, limit: int) -> list[Payment]:
        """Newest first; ``after`` is the last id of the page before."""
        statement = select(payments).order_by(payments.c.payment_id.desc()).limit(limit)
        if after is not None:
            statement = statement.where(payments.c.payment_id < after)
        if filter_.order_id is not None:
            statement = statement.where(payments.c.order_id == filter_.order_id)
        if filter_.status is not None:
            statement = statement.where(payments.c.status == filter_.status.value)
        if filter_.gateway is not None:
            statement = statement.where(payments.c.gateway == filter_.gateway)
        if filter_.gateway_reference is not None:
            known = select(payment_references.c.payment_id).where(
                payment_references.c.reference == filter_.gateway_reference
            )
            statement = statement.where(payments.c.payment_id.in_(known))
        if filter_.final is not None:
            statement = statement.where(~_NOT_FINAL if filter_.final else _NOT_FINAL)
        return [payment_of(row) for row in (await self._connection.execute(statement)).mappings()]

    async def siblings_with_money(self, payment: Payment) -> list[str]:
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:order_id, 0))")
        await self._connection.execute(lock, {"order_id": payment.order_id})
        statement = (
            select(payments.c.payment_id)
            .where(payments.c.order_id == payment.order_id, payments.c.payment_id != payment.payment_id)
            .where((payments.c.amount_captured > 0) | (payments.c.amount_authorized > 0))
            .order_by(payments.c.duplicate_of.is_not(None), payments.c.payment_id)  # the one that keeps the order first
        )
        return list((await self._connection.execute(statement)).scalars())

    async def holds_to_warn(self, until: datetime, *, limit: int) -> list[str]:
        return await self._holds(payments.c.capture_warned_at.is_(None), until, limit)

    async def holds_to_decide(
        self, until: datetime, request_key: str, *, gateways: Collection[str], only_wanted: bool, limit: int
    ) -> list[str]:
        decided = exists().where(
            operations.c.payment_id == payments.c.payment_id, operations.c.request_key == request_key
        )
        condition = ~decided & payments.c.gateway.in_(sorted(gateways))
        if only_wanted:
            condition &= payments.c.given_up_at.is_(None) & payments.c.duplicate_of.is_(None)
        return await self._holds(condition, until, limit)

    async def holds_to_take(self, since: datetime, request_key: str, *, even_of_ended: bool, limit: int) -> list[str]:
        of_payment = operations.c.payment_id == payments.c.payment_id
        taken = exists().where(of_payment, operations.c.request_key == request_key)
        has_ended = exists().where(
            payment_facts.c.payment_id == payments.c.payment_id, payment_facts.c.kind == FactKind.CANCELED.value
        )
        statement = (
            select(payments.c.payment_id)
            .where(payments.c.status == PaymentStatus.AUTHORIZED.value)
            .where(payments.c.capture == CaptureMode.AUTOMATIC.value, payments.c.updated_at <= since)
            .where(payments.c.duplicate_of.is_(None))
            .where(payments.c.given_up_at.is_(None), ~taken, *(() if even_of_ended else (~has_ended,)))
            .order_by(payments.c.updated_at)
            .limit(limit)
        )
        return list((await self._connection.execute(statement)).scalars())

    async def holds_over(self, now: datetime, *, asked_before: datetime, limit: int) -> list[str]:
        not_asked = payments.c.asked_at.is_(None) | (payments.c.asked_at < asked_before)
        return await self._holds(not_asked, now, limit)

    async def _holds(self, condition: ColumnElement[bool], until: datetime, limit: int) -> list[str]:
        statement = (
            select(payments.c.payment_id)
            .where(payments.c.status.in_(sorted(HOLDING)), payments.c.capture_before <= until, condition)
            .where(payments.c.amount_authorized > payments.c.amount_captured)
            .order_by(payments.c.capture_before)
            .limit(limit)
        )
        return list((await self._connection.execute(statement)).scalars())

    async def mark_asked(self, payment_id: str, at: datetime) -> None:
        await self._connection.execute(update(payments).where(payments.c.payment_id == payment_id).values(asked_at=at))

    async def touch(self, payment_id: str, at: datetime) -> None:
        statement = update(payments).where(payments.c.payment_id == payment_id)
        await self._connection.execute(statement.values(updated_at=func.greatest(payments.c.updated_at, at)))

    async def _one(self, statement: Select[Any]) -> Payment | None:
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else payment_of(row)


class Attempts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, attempt: Attempt, *, leased_seconds: float | None = None) -> None:
        values: dict[str, Any] = {
            "attempt_id": attempt.attempt_id,
            "payment_id": attempt.payment_id,
            "reference": attempt.reference,
            "idempotency_key": attempt.idempotency_key,
            "status": attempt.status.value,
            "session_expires_at": attempt.session_expires_at,
            "created_at": attempt.created_at,
        }
        if leased_seconds is not None:
            values |= {"lease_token": attempt.lease_token, "leased_until": _in_seconds(leased_seconds)}
        await self._connection.execute(insert(payment_attempts).values(values))

    async def latest(self, payment_id: str) -> Attempt | None:
        statement = (
            select(payment_attempts)
            .where(payment_attempts.c.payment_id == payment_id)
            .order_by(payment_attempts.c.number.desc())
            .limit(1)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else attempt_of(row)

    async def lease(self, attempt: Attempt, *, token: str, seconds: float) -> bool:
        columns = payment_attempts.c
        statement = (
            update(payment_attempts)
            .where(columns.attempt_id == attempt.attempt_id)
            .where(columns.leased_until.is_(None) | (columns.leased_until < func.now()))
            .values(status=attempt.status.value, lease_token=token, leased_until=_in_seconds(seconds))
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def end_call(self, attempt: Attempt, *, token: str, even_if_overtaken: bool = False) -> bool:
        columns = payment_attempts.c
        is_ours = columns.lease_token == token
        statement = (
            update(payment_attempts)
            .where(columns.attempt_id == attempt.attempt_id)
            .values(
                status=attempt.status.value,
                session_expires_at=attempt.session_expires_at,
                gateway_reference=attempt.gateway_reference,
                next_action=attempt.next_action.to_json() if attempt.next_action else None,
                lease_token=case((is_ours, null()), else_=columns.lease_token),
                leased_until=case((is_ours, null()), else_=columns.leased_until),
            )
        )
        if not even_if_overtaken:
            statement = statement.where(is_ours)
        return (await self._connection.execute(statement)).rowcount == 1


class Facts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, payment_id: str, fact: Fact, *, learnt_by: str | None) -> bool:
        observation = fact.observation
        values = {
            "payment_id": payment_id,
            "natural_key": observation.natural_key,
            "kind": observation.kind.value,
            "source": fact.source.value,
            "object_reference": observation.object_reference,
            "amount_minor": observation.amount.amount_minor if observation.amount else None,
            "currency": observation.amount.currency if observation.amount else None,
            "reason": observation.reason,
            "about": observation.about,
            "operation": observation.operation,
            "capture_before": observation.capture_before,
            "learnt_by": learnt_by,
            "occurred_at": observation.occurred_at,
            "received_at": fact.received_at,
        }
        statement = upsert(payment_facts).values(values).on_conflict_do_nothing().returning(payment_facts.c.position)
        return (await self._connection.execute(statement)).scalar() is not None

    async def all(self, payment_id: str) -> list[Fact]:
        statement = (
            select(payment_facts).where(payment_facts.c.payment_id == payment_id).order_by(payment_facts.c.position)
        )
        return [fact_of(row) for row in (await self._connection.execute(statement)).mappings()]


class Parked:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, parked: ParkedEvent) -> bool:
        values = asdict(parked) | {"refs": list(parked.references), "status": parked.status.value}
        del values["references"]
        statement = upsert(parked_events).values(values).on_conflict_do_nothing().returning(parked_events.c.parked_id)
        return (await self._connection.execute(statement)).scalar() is not None

    async def lock_references(self, gateway: str, references: Sequence[str]) -> None:
        # In one order everywhere, so that two transactions with several references cannot wait for each other.
        names = sorted({f"{gateway}:{reference}" for reference in references})
        await self._connection.execute(_LOCK_NAMES, {"names": names})

    async def wake(self, gateway: str, account: str | None, references: Sequence[str]) -> int:
        statement = text(
            """
            UPDATE parked_events SET status = 'ready'
            WHERE gateway = :gateway AND account IS NOT DISTINCT FROM CAST(:account AS text)
                AND status IN ('waiting', 'unclaimed') AND refs && CAST(:refs AS text[])
            """
        )
        values = {"gateway": gateway, "account": account, "refs": list(references)}
        return (await self._connection.execute(statement, values)).rowcount

    async def take(self, status: ParkedStatus) -> ParkedEvent | None:
        statement = (
            select(parked_events)
            .where(parked_events.c.status == status.value)
            .order_by(parked_events.c.parked_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else parked_of(row)

    async def set_status(self, parked_id: str, status: ParkedStatus) -> None:
        statement = update(parked_events).where(parked_events.c.parked_id == parked_id).values(status=status.value)
        await self._connection.execute(statement)

    async def expire_waiting(self, older_than: datetime) -> list[ParkedEvent]:
        statement = (
            update(parked_events)
            .where(parked_events.c.status == ParkedStatus.WAITING.value, parked_events.c.parked_at < older_than)
            .values(status=ParkedStatus.UNCLAIMED.value)
            .returning(*parked_events.c)
        )
        return [parked_of(row) for row in (await self._connection.execute(statement)).mappings()]

    async def waiting_with_known_payment(self) -> int:
        statement = text(
            """
            UPDATE parked_events e SET status = 'ready' WHERE e.status = 'waiting' AND (
                EXISTS (SELECT 1 FROM payment_references r WHERE r.gateway = e.gateway
                        AND r.account = coalesce(e.account, '') AND r.reference = ANY(e.refs))
                OR EXISTS (SELECT 1 FROM payments p WHERE p.gateway = e.gateway
                           AND p.account IS NOT DISTINCT FROM e.account
                           AND (p.payment_id = ANY(e.refs) OR p.order_id = ANY(e.refs)))
                OR EXISTS (SELECT 1 FROM payment_attempts a JOIN payments p USING (payment_id)
                           WHERE p.gateway = e.gateway AND p.account IS NOT DISTINCT FROM e.account
                           AND a.reference = ANY(e.refs)))
            """
        )
        return (await self._connection.execute(statement)).rowcount

    async def count_waiting(self) -> int:
        statement = text("SELECT count(*) FROM parked_events WHERE status IN ('waiting', 'ready')")
        return int((await self._connection.execute(statement)).scalar_one())


def _in_seconds(seconds: float) -> ColumnElement[Any]:
    """By the database's clock, which is the only one that all processes share."""
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, float(seconds))
