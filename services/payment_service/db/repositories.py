"""Every query of payment_service."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, exists, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

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
    AttemptStatus,
    CaptureMode,
    Customer,
    Fact,
    FactKind,
    FactSource,
    Item,
    NextAction,
    Observation,
    ParkedEvent,
    ParkedStatus,
    Payment,
    PaymentState,
    PaymentStatus,
    Terms,
)
from services.payment_service.use_cases.ports import PaymentFilter
from shared.money import Money

_FIND = text(
    """
    SELECT payment_id FROM (
        SELECT payment_id, 1 AS rank FROM payments WHERE payment_id = ANY(:ours)
        UNION ALL
        SELECT payment_id, 2 FROM payment_attempts WHERE reference = ANY(:ours)
        UNION ALL
        SELECT payment_id, 3 FROM payment_references
        WHERE gateway = :gateway AND (reference = ANY(:theirs) OR reference = ANY(:ours))
        UNION ALL
        SELECT payment_id, 4 FROM payments WHERE order_id = ANY(:ours)
    ) AS known JOIN payments p USING (payment_id)
    WHERE p.gateway = :gateway AND p.account IS NOT DISTINCT FROM CAST(:account AS text)
    ORDER BY rank, payment_id DESC LIMIT 1
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
            upsert(payments).values(_payment_values(payment)).on_conflict_do_nothing().returning(payments.c.payment_id)
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
        rows = [known_by | {"reference": each} for each in dict.fromkeys(references)]
        statement = upsert(payment_references).values(rows).on_conflict_do_nothing()
        return (await self._connection.execute(statement)).rowcount > 0

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
        return [_payment(row) for row in (await self._connection.execute(statement)).mappings()]

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
        return None if row is None else _payment(row)


class Attempts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, attempt: Attempt) -> None:
        values = {
            "attempt_id": attempt.attempt_id,
            "payment_id": attempt.payment_id,
            "reference": attempt.reference,
            "idempotency_key": attempt.idempotency_key,
            "status": attempt.status.value,
            "session_expires_at": attempt.session_expires_at,
            "created_at": attempt.created_at,
        }
        await self._connection.execute(insert(payment_attempts).values(values))

    async def latest(self, payment_id: str) -> Attempt | None:
        statement = (
            select(payment_attempts)
            .where(payment_attempts.c.payment_id == payment_id)
            .order_by(payment_attempts.c.number.desc())
            .limit(1)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _attempt(row)

    async def save(self, attempt: Attempt) -> None:
        statement = (
            update(payment_attempts)
            .where(payment_attempts.c.attempt_id == attempt.attempt_id)
            .values(
                status=attempt.status.value,
                session_expires_at=attempt.session_expires_at,
                gateway_reference=attempt.gateway_reference,
                next_action=attempt.next_action.to_json() if attempt.next_action else None,
            )
        )
        await self._connection.execute(statement)

    async def lease(self, attempt_id: str, *, token: str, seconds: float) -> bool:
        statement = text(
            """
            UPDATE payment_attempts SET lease_token = :token, leased_until = now() + make_interval(secs => :seconds)
            WHERE attempt_id = :attempt_id AND (leased_until IS NULL OR leased_until < now()) RETURNING attempt_id
            """
        )
        values = {"attempt_id": attempt_id, "token": token, "seconds": float(seconds)}
        return (await self._connection.execute(statement, values)).scalar() is not None

    async def release(self, attempt_id: str, *, token: str) -> bool:
        statement = text(
            """
            UPDATE payment_attempts SET lease_token = NULL, leased_until = NULL
            WHERE attempt_id = :attempt_id AND lease_token = :token RETURNING attempt_id
            """
        )
        values = {"attempt_id": attempt_id, "token": token}
        return (await self._connection.execute(statement, values)).scalar() is not None


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
        return [_fact(row) for row in (await self._connection.execute(statement)).mappings()]


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
        statement = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 1))")
        for reference in sorted(set(references)):
            await self._connection.execute(statement, {"name": f"{gateway}:{reference}"})

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
        return None if row is None else _parked(row)

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
        return [_parked(row) for row in (await self._connection.execute(statement)).mappings()]

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


def _payment_values(payment: Payment) -> dict[str, Any]:
    return {
        "payment_id": payment.payment_id,
        "order_id": payment.order_id,
        "gateway": payment.gateway,
        "amount_minor": payment.amount.amount_minor,
        "currency": payment.amount.currency,
        "capture": payment.terms.capture.value,
        "tolerance_minor": payment.terms.tolerance_minor,
        "status": payment.status.value,
        "version": payment.version,
        "description": payment.description,
        "customer": asdict(payment.customer),
        "items": [asdict(item) for item in payment.items],
        "success_url": payment.success_url,
        "failure_url": payment.failure_url,
        "cancel_url": payment.cancel_url,
        "request_digest": payment.request_digest,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
        "expires_at": payment.expires_at,
        "authorization_valid_for": payment.authorization_valid_for,
        "account": payment.account,
        "method": payment.method,
    }


def _payment(row: RowMapping) -> Payment:
    return Payment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        gateway=row["gateway"],
        terms=Terms(Money(row["amount_minor"], row["currency"]), CaptureMode(row["capture"]), row["tolerance_minor"]),
        state=PaymentState(
            status=PaymentStatus(row["status"]),
            amount_authorized=row["amount_authorized"],
            amount_capture_pending=row["amount_capture_pending"],
            amount_captured=row["amount_captured"],
            amount_refund_pending=row["amount_refund_pending"],
            amount_refunded=row["amount_refunded"],
            amount_disputed=row["amount_disputed"],
            amount_dispute_lost=row["amount_dispute_lost"],
            amount_excess=row["amount_excess"],
            has_unknown_operation=row["has_unknown_operation"],
            failure_code=row["failure_code"],
            conflict=row["conflict"],
        ),
        version=row["version"],
        description=row["description"],
        customer=Customer(**row["customer"]),
        items=tuple(Item(**item) for item in row["items"]),
        success_url=row["success_url"],
        failure_url=row["failure_url"],
        cancel_url=row["cancel_url"],
        request_digest=bytes(row["request_digest"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        expires_at=row["expires_at"],
        account=row["account"],
        method=row["method"],
        gateway_reference=row["gateway_reference"],
        duplicate_of=row["duplicate_of"],
        asked_at=row["asked_at"],
        session_unknown=row["session_unknown"],
        authorization_valid_for=row["authorization_valid_for"],
        capture_before=row["capture_before"],
        capture_warned_at=row["capture_warned_at"],
        given_up_at=row["given_up_at"],
    )


def _attempt(row: RowMapping) -> Attempt:
    action = row["next_action"]
    return Attempt(
        attempt_id=row["attempt_id"],
        payment_id=row["payment_id"],
        reference=row["reference"],
        idempotency_key=row["idempotency_key"],
        status=AttemptStatus(row["status"]),
        session_expires_at=row["session_expires_at"],
        created_at=row["created_at"],
        gateway_reference=row["gateway_reference"],
        next_action=NextAction(action["type"], action["url"], action.get("fields", {})) if action else None,
        lease_token=row["lease_token"],
    )


def _fact(row: RowMapping) -> Fact:
    amount = Money(row["amount_minor"], row["currency"]) if row["currency"] is not None else None
    observation = Observation(
        FactKind(row["kind"]),
        row["object_reference"],
        amount,
        row["occurred_at"],
        row["reason"],
        row["about"],
        row["operation"],
        row["capture_before"],
    )
    return Fact(observation, FactSource(row["source"]), row["received_at"])


def _parked(row: RowMapping) -> ParkedEvent:
    return ParkedEvent(
        parked_id=row["parked_id"],
        gateway=row["gateway"],
        account=row["account"],
        delivery_id=row["delivery_id"],
        event_type=row["event_type"],
        trust=row["trust"],
        content_type=row["content_type"],
        payload=row["payload"],
        received_at=row["received_at"],
        references=tuple(row["refs"]),
        status=ParkedStatus(row["status"]),
    )
