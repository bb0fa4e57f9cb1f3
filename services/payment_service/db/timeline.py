"""The timeline in PostgreSQL: append-only, written in the transaction in which the thing happened."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.payment_service.db.tables import payment_facts, payment_timeline
from services.payment_service.domain.models import Fact, FactKind, FactSource, Observation
from services.payment_service.domain.timeline import EntryKind, TimelineEntry
from shared.money import Money


class Timeline:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, payment_id: str, *entries: TimelineEntry) -> None:
        if entries:
            # As parameters and not as values: a statement with its rows in it is compiled anew each time.
            rows = [_values(payment_id, entry) for entry in entries]
            await self._connection.execute(insert(payment_timeline), rows)

    async def of_payment(self, payment_id: str, *, limit: int | None = None) -> list[TimelineEntry]:
        columns = payment_timeline.c
        statement = (
            select(payment_timeline)
            .where(columns.payment_id == payment_id)
            .order_by(columns.position.desc())
            .limit(limit)
        )
        rows = (await self._connection.execute(statement)).mappings().all()
        return [_entry(row) for row in reversed(rows)]

    async def facts_of(self, payment_id: str, *, limit: int) -> list[tuple[Fact, str | None]]:
        columns = payment_facts.c
        statement = (
            select(payment_facts).where(columns.payment_id == payment_id).order_by(columns.position.desc()).limit(limit)
        )
        rows = (await self._connection.execute(statement)).mappings().all()
        return [(_fact(row), row["learnt_by"]) for row in reversed(rows)]


def _values(payment_id: str, entry: TimelineEntry) -> dict[str, Any]:
    return {
        "payment_id": payment_id,
        "at": entry.at,
        "kind": entry.kind.value,
        "summary": entry.summary,
        "source": entry.source,
        "actor": entry.actor,
        "reference": entry.reference,
        "amount_minor": entry.amount.amount_minor if entry.amount else None,
        "currency": entry.amount.currency if entry.amount else None,
        "request_id": entry.request_id,
        "details": entry.details,
    }


def _entry(row: RowMapping) -> TimelineEntry:
    return TimelineEntry(
        kind=EntryKind(row["kind"]),
        at=row["at"],
        summary=row["summary"],
        source=row["source"],
        actor=row["actor"],
        reference=row["reference"],
        amount=_amount(row),
        request_id=row["request_id"],
        details=row["details"],
    )


def _fact(row: RowMapping) -> Fact:
    observation = Observation(
        kind=FactKind(row["kind"]),
        object_reference=row["object_reference"],
        amount=_amount(row),
        occurred_at=row["occurred_at"],
        reason=row["reason"],
        about=row["about"],
        operation=row["operation"],
        capture_before=row["capture_before"],
    )
    return Fact(observation, FactSource(row["source"]), row["received_at"])


def _amount(row: RowMapping) -> Money | None:
    return Money(row["amount_minor"], row["currency"]) if row["currency"] is not None else None
