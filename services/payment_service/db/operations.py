"""Every query about operations and disputes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.payment_service.db.rows import Row
from services.payment_service.db.tables import disputes, operations
from services.payment_service.domain.operations import (
    UNSETTLED,
    CallState,
    Dispute,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from shared.money import Money

_TAKE_DUE = text(
    """
    UPDATE operations SET lease_token = :token, leased_until = now() + make_interval(secs => :seconds)
    WHERE operation_id = (
        SELECT operation_id FROM operations
        WHERE next_look_at <= :now AND (leased_until IS NULL OR leased_until < now())
        ORDER BY next_look_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING *
    """
)
_LEASE = text(
    """
    UPDATE operations SET lease_token = :token, leased_until = now() + make_interval(secs => :seconds)
    WHERE operation_id = :operation_id AND (leased_until IS NULL OR leased_until < now()) RETURNING operation_id
    """
)
_HOLDS = text(
    "SELECT 1 FROM operations WHERE operation_id = :operation_id AND lease_token = :token AND leased_until > now()"
)
_RELEASE = text(
    """
    UPDATE operations SET lease_token = NULL, leased_until = NULL
    WHERE operation_id = :operation_id AND lease_token = :token RETURNING operation_id
    """
)


class Operations:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, operation: Operation) -> None:
        await self._connection.execute(insert(operations).values(_values(operation)))

    async def get(self, operation_id: str) -> Operation | None:
        statement = select(operations).where(operations.c.operation_id == operation_id)
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else operation_of(row)

    async def of_payment(self, payment_id: str) -> list[Operation]:
        statement = select(operations).where(operations.c.payment_id == payment_id).order_by(operations.c.operation_id)
        return [operation_of(row) for row in (await self._connection.execute(statement)).mappings()]

    async def save(self, operation: Operation) -> None:
        values = _values(operation)
        statement = update(operations).where(operations.c.operation_id == operation.operation_id).values(values)
        await self._connection.execute(statement)

    async def lease(self, operation_id: str, *, token: str, seconds: float) -> bool:
        values = {"operation_id": operation_id, "token": token, "seconds": float(seconds)}
        return (await self._connection.execute(_LEASE, values)).scalar() is not None

    async def release(self, operation_id: str, *, token: str) -> bool:
        values = {"operation_id": operation_id, "token": token}
        return (await self._connection.execute(_RELEASE, values)).scalar() is not None

    async def holds(self, operation_id: str, *, token: str) -> bool:
        return (
            await self._connection.execute(_HOLDS, {"operation_id": operation_id, "token": token})
        ).scalar() is not None

    async def take_due(self, now: datetime, *, token: str, seconds: float) -> Operation | None:
        values = {"now": now, "token": token, "seconds": float(seconds)}
        row = (await self._connection.execute(_TAKE_DUE, values)).mappings().one_or_none()
        return None if row is None else operation_of(row)

    async def put_off(self, operation_id: str, until: datetime) -> None:
        statement = update(operations).where(operations.c.operation_id == operation_id)
        await self._connection.execute(statement.values(next_look_at=until, looks=operations.c.looks + 1))

    async def look_now(self, payment_id: str, now: datetime) -> int:
        statement = (
            update(operations)
            .where(operations.c.payment_id == payment_id, operations.c.next_look_at.is_not(None))
            .where(operations.c.call.in_([CallState.UNANSWERED.value, CallState.ANSWERED.value]))
            .values(next_look_at=now)
        )
        return (await self._connection.execute(statement)).rowcount

    async def count_unsettled(self) -> dict[OperationStatus, int]:
        statement = text("SELECT status, count(*) AS n FROM operations WHERE next_look_at IS NOT NULL GROUP BY status")
        counted = dict.fromkeys(UNSETTLED, 0)
        for row in (await self._connection.execute(statement)).mappings():
            counted[OperationStatus(row["status"])] = int(row["n"])
        return counted


class Disputes:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of_payment(self, payment_id: str) -> list[Dispute]:
        statement = select(disputes).where(disputes.c.payment_id == payment_id).order_by(disputes.c.dispute_id)
        return [_dispute(row) for row in (await self._connection.execute(statement)).mappings()]

    async def save(self, dispute: Dispute) -> None:
        values = _money_flat(asdict(dispute)) | {"status": dispute.status.value}
        statement = upsert(disputes).values(values)
        changed = {name: statement.excluded[name] for name in ("amount_minor", "status", "reason", "closed_at")}
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=["payment_id", "gateway_reference"], set_=changed)
        )


def _values(operation: Operation) -> dict[str, Any]:
    """Every column but the lease, which only the database's clock decides."""
    values = _money_flat(asdict(operation))
    for name in ("kind", "status", "call", "origin"):
        values[name] = values[name].value
    return values


def _money_flat(values: dict[str, Any]) -> dict[str, Any]:
    amount = values.pop("amount")
    return values | {"amount_minor": amount["amount_minor"], "currency": amount["currency"]}


def operation_of(row: Row) -> Operation:
    return Operation(
        operation_id=row["operation_id"],
        payment_id=row["payment_id"],
        kind=OperationKind(row["kind"]),
        reference=row["reference"],
        amount=Money(row["amount_minor"], row["currency"]),
        origin=Origin(row["origin"]),
        actor=row["actor"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        target=row["target"],
        is_whole=row["is_whole"],
        is_final=row["is_final"],
        reason=row["reason"],
        merchant_reference=row["merchant_reference"],
        request_key=row["request_key"],
        status=OperationStatus(row["status"]),
        call=CallState(row["call"]),
        key_number=row["key_number"],
        calls=row["calls"],
        looks=row["looks"],
        first_sent_at=row["first_sent_at"],
        last_sent_at=row["last_sent_at"],
        next_look_at=row["next_look_at"],
        gateway_reference=row["gateway_reference"],
        failure_code=row["failure_code"],
        settled_at=row["settled_at"],
        escalated_at=row["escalated_at"],
    )


def _dispute(row: RowMapping) -> Dispute:
    return Dispute(
        dispute_id=row["dispute_id"],
        payment_id=row["payment_id"],
        gateway_reference=row["gateway_reference"],
        amount=Money(row["amount_minor"], row["currency"]),
        status=DisputeStatus(row["status"]),
        reason=row["reason"],
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
    )
