"""Every query of the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, Table, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway_sandbox.db.tables import (
    captures,
    deliveries,
    disputes,
    entry_aliases,
    faults,
    operations,
    payments,
    refunds,
    stored_answers,
)
from services.gateway_sandbox.domain.deliveries import Delivery, DeliveryState
from services.gateway_sandbox.domain.faults import Fault, FaultKind
from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
    Operation,
)
from services.gateway_sandbox.gateways.port import EntryFilter, WireAnswer
from services.gateway_sandbox.use_cases.ports import (
    Deliveries,
    Entries,
    Faults,
    Operations,
    Records,
    SandboxTransaction,
    StoredAnswer,
    StoredAnswers,
    UnitOfWork,
)
from shared.db.session import Database

_ENTRY_COLUMNS = [payments.c[field.name] for field in fields(BookEntry)]
_DELIVERY_COLUMNS = [deliveries.c[field.name] for field in fields(Delivery)]


class EntryRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, gateway: str, reference: str, *, for_update: bool = False) -> BookEntry | None:
        entry = await self._find(gateway, reference, for_update=for_update)
        if entry is not None:
            return entry
        names_it = (entry_aliases.c.gateway == gateway, entry_aliases.c.alias == reference)
        original = await self._connection.scalar(select(entry_aliases.c.gateway_reference).where(*names_it))
        return await self._find(gateway, original, for_update=for_update) if original is not None else None

    async def add_alias(self, entry: BookEntry, alias: str) -> None:
        values = {"gateway": entry.gateway, "alias": alias, "gateway_reference": entry.gateway_reference}
        await self._connection.execute(upsert(entry_aliases).values(**values).on_conflict_do_nothing())

    async def _find(self, gateway: str, reference: str, *, for_update: bool) -> BookEntry | None:
        names_it = or_(payments.c.gateway_reference == reference, payments.c.payment_reference == reference)
        query = select(*_ENTRY_COLUMNS).where(payments.c.gateway == gateway, names_it)
        if for_update:
            query = query.with_for_update()
        row = (await self._connection.execute(query)).mappings().one_or_none()
        return _entry(row) if row else None

    async def find_newest_by_reference(self, gateway: str, reference: str) -> BookEntry | None:
        found = await self.search(gateway, EntryFilter(reference=reference, limit=1))
        return found[0] if found else None

    async def search(self, gateway: str, wanted: EntryFilter) -> list[BookEntry]:
        query = _filtered(select(*_ENTRY_COLUMNS).where(payments.c.gateway == gateway), gateway, wanted)
        rows = (await self._connection.execute(query)).mappings()
        return [_entry(row) for row in rows]

    async def add(self, entry: BookEntry) -> None:
        await self._connection.execute(insert(payments).values(**asdict(entry)))

    async def save(self, entry: BookEntry) -> None:
        key = (payments.c.gateway == entry.gateway, payments.c.gateway_reference == entry.gateway_reference)
        await self._connection.execute(update(payments).where(*key).values(**asdict(entry)))

    async def gateways_with_expired(self, now: datetime) -> set[str]:
        return set(
            (await self._connection.execute(select(payments.c.gateway).where(_is_over(now)).distinct())).scalars()
        )

    async def lock_expired(self, now: datetime, *, gateway: str | None, limit: int) -> list[BookEntry]:
        query = select(*_ENTRY_COLUMNS).where(_is_over(now))
        if gateway is not None:
            query = query.where(payments.c.gateway == gateway)
        query = query.order_by(payments.c.number).limit(limit).with_for_update(skip_locked=True)
        return [_entry(row) for row in (await self._connection.execute(query)).mappings()]


def _is_over(now: datetime) -> ColumnElement[bool]:
    unpaid = and_(payments.c.status == EntryStatus.OPEN, payments.c.expires_at <= now)
    held = and_(payments.c.status == EntryStatus.AUTHORIZED, payments.c.hold_expires_at <= now)
    return or_(unpaid, held)


def _filtered(query: Select[Any], gateway: str, wanted: EntryFilter) -> Select[Any]:
    moment = payments.c.payment_created_at if wanted.paid_only else payments.c.created_at
    position = tuple_(moment, payments.c.number)
    if wanted.reference is not None:
        query = query.where(payments.c.reference == wanted.reference)
    if wanted.order_id is not None:
        query = query.where(payments.c.order_id == wanted.order_id)
    if wanted.paid_only:
        query = query.where(payments.c.payment_reference.is_not(None))
    if wanted.created_from is not None:
        query = query.where(moment >= wanted.created_from)
    if wanted.created_before is not None:
        query = query.where(moment < wanted.created_before)
    if wanted.after is not None:
        names_it = or_(payments.c.gateway_reference == wanted.after, payments.c.payment_reference == wanted.after)
        start = select(moment, payments.c.number).where(payments.c.gateway == gateway, names_it).scalar_subquery()
        query = query.where(position < start)
    return query.order_by(moment.desc(), payments.c.number.desc()).limit(wanted.limit)


class OperationRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, entry: BookEntry, operation: Operation) -> None:
        values = {"gateway": entry.gateway, "gateway_reference": entry.gateway_reference, **asdict(operation)}
        await self._connection.execute(insert(operations).values(**values))

    async def of(self, gateway: str, references: Sequence[str]) -> dict[str, list[Operation]]:
        columns = [operations.c[field.name] for field in fields(Operation)]
        query = select(operations.c.gateway_reference, *columns).where(
            operations.c.gateway == gateway, operations.c.gateway_reference.in_(references)
        )
        found: dict[str, list[Operation]] = {reference: [] for reference in references}
        for row in (await self._connection.execute(query.order_by(operations.c.number))).mappings():
            values = dict(row)
            found[values.pop("gateway_reference")].append(Operation(**values))
        return found


Record = TypeVar("Record", BookRefund, BookCapture, BookDispute)


class RecordRepository(Generic[Record]):
    """Refunds, captures or disputes: what a gateway gives an id of its own, beneath an entry."""

    def __init__(self, connection: AsyncConnection, table: Table, kind: type[Record], key: str) -> None:
        self._connection = connection
        self._table = table
        self._kind: type[Record] = kind
        self._key = key
        self._columns = [table.c[field.name] for field in fields(kind)]

    async def add(self, record: Record) -> None:
        await self._connection.execute(insert(self._table).values(**asdict(record)))

    async def save(self, record: Record) -> None:
        is_it = self._named(record.gateway, getattr(record, self._key))
        await self._connection.execute(update(self._table).where(is_it).values(**asdict(record)))

    async def find(self, gateway: str, identifier: str) -> Record | None:
        query = select(*self._columns).where(self._named(gateway, identifier))
        row = (await self._connection.execute(query)).mappings().one_or_none()
        return self._kind(**row) if row else None

    async def of(self, gateway: str, references: Sequence[str]) -> dict[str, list[Record]]:
        columns = self._table.c
        query = select(*self._columns).where(columns.gateway == gateway, columns.gateway_reference.in_(references))
        found: dict[str, list[Record]] = {reference: [] for reference in references}
        for row in (await self._connection.execute(query.order_by(columns.number.desc()))).mappings():
            record = self._kind(**row)
            found[record.gateway_reference].append(record)
        return found

    def _named(self, gateway: str, identifier: str) -> ColumnElement[bool]:
        return and_(self._table.c.gateway == gateway, self._table.c[self._key] == identifier)


class StoredAnswerRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock(self, gateway: str, key: str) -> bool:
        number = func.hashtextextended(f"gateway_sandbox {gateway} {key}", 0)
        return bool(await self._connection.scalar(select(func.pg_try_advisory_xact_lock(number))))

    async def find(self, gateway: str, key: str) -> StoredAnswer | None:
        query = select(stored_answers).where(
            stored_answers.c.gateway == gateway, stored_answers.c.idempotency_key == key
        )
        row = (await self._connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        return StoredAnswer(bytes(row["fingerprint"]), WireAnswer(row["status"], row["body"], row["headers"]))

    async def add(self, gateway: str, key: str, stored: StoredAnswer, now: datetime) -> None:
        answer = stored.answer
        await self._connection.execute(
            insert(stored_answers).values(
                gateway=gateway,
                idempotency_key=key,
                fingerprint=stored.fingerprint,
                status=answer.status,
                headers=dict(answer.headers),
                body=answer.body,
                created_at=now,
            )
        )

    async def forget_before(self, moment: datetime) -> int:
        result = await self._connection.execute(delete(stored_answers).where(stored_answers.c.created_at < moment))
        return result.rowcount


class FaultRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def take(self, gateway: str, operations: Sequence[str]) -> Fault | None:
        has_hits = or_(faults.c.remaining.is_(None), faults.c.remaining > 0)
        query = select(faults).where(faults.c.gateway == gateway, faults.c.operation.in_(operations), has_hits)
        query = query.order_by(faults.c.number).with_for_update()
        for row in (await self._connection.execute(query)).mappings().all():
            fault = _fault(row)
            is_hit = (row["passed"] + 1) % fault.every == 0
            await self._count(row, is_hit=is_hit)
            if is_hit:
                return fault
        return None

    async def _count(self, row: Mapping[Any, Any], *, is_hit: bool) -> None:
        values = {"passed": row["passed"] + 1}
        if is_hit and row["remaining"] is not None:
            values["remaining"] = row["remaining"] - 1
        await self._connection.execute(update(faults).where(faults.c.number == row["number"]).values(**values))

    async def replace(self, gateway: str, new: Sequence[Fault]) -> None:
        await self._connection.execute(delete(faults).where(faults.c.gateway == gateway))
        if new:
            rows = [{"gateway": gateway, **asdict(fault)} for fault in new]
            await self._connection.execute(insert(faults), rows)

    async def of(self, gateway: str) -> list[Fault]:
        query = select(faults).where(faults.c.gateway == gateway).order_by(faults.c.number)
        return [_fault(row) for row in (await self._connection.execute(query)).mappings()]


class DeliveryRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, new: Sequence[Delivery]) -> None:
        rows = [asdict(delivery) for delivery in new]
        for row in rows:
            del row["number"]
        await self._connection.execute(insert(deliveries), rows)

    async def claim(self, now: datetime, lease_until: datetime, limit: int) -> list[Delivery]:
        due = (
            select(deliveries.c.number)
            .where(deliveries.c.state == DeliveryState.PENDING, deliveries.c.next_try_at <= now)
            .order_by(deliveries.c.next_try_at, deliveries.c.number)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claimed = (
            update(deliveries)
            .where(deliveries.c.number.in_(due.scalar_subquery()))
            .values(next_try_at=lease_until, tries=deliveries.c.tries + 1)
            .returning(*_DELIVERY_COLUMNS)
        )
        found = [_delivery(row) for row in (await self._connection.execute(claimed)).mappings()]
        return sorted(found, key=lambda delivery: delivery.number)

    async def save_result(self, delivery: Delivery) -> None:
        values = {
            "state": delivery.state,
            "next_try_at": delivery.next_try_at,
            "delivered_at": delivery.delivered_at,
            "last_status": delivery.last_status,
            "last_error": delivery.last_error,
        }
        # A delivery whose lease ran out may have been claimed again; the newer try then writes the result.
        own = (deliveries.c.number == delivery.number, deliveries.c.tries == delivery.tries)
        await self._connection.execute(update(deliveries).where(*own).values(**values))

    async def release_held_before(self, delivery: Delivery, now: datetime) -> int:
        waiting = (
            deliveries.c.gateway == delivery.gateway,
            deliveries.c.held,
            deliveries.c.state == DeliveryState.PENDING,
            deliveries.c.number < delivery.number,
        )
        result = await self._connection.execute(update(deliveries).where(*waiting).values(held=False, next_try_at=now))
        return result.rowcount

    async def of(self, gateway: str, gateway_references: Sequence[str] | None = None) -> list[Delivery]:
        query = select(*_DELIVERY_COLUMNS).where(deliveries.c.gateway == gateway)
        if gateway_references is not None:
            query = query.where(deliveries.c.gateway_reference.in_(gateway_references))
        rows = (await self._connection.execute(query.order_by(deliveries.c.number))).mappings()
        return [_delivery(row) for row in rows]


class DatabaseTransaction:
    """The repositories of one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.entries: Entries = EntryRepository(connection)
        self.operations: Operations = OperationRepository(connection)
        self.refunds: Records[BookRefund] = RecordRepository(connection, refunds, BookRefund, "refund_id")
        self.captures: Records[BookCapture] = RecordRepository(connection, captures, BookCapture, "capture_id")
        self.disputes: Records[BookDispute] = RecordRepository(connection, disputes, BookDispute, "dispute_id")
        self.answers: StoredAnswers = StoredAnswerRepository(connection)
        self.faults: Faults = FaultRepository(connection)
        self.deliveries: Deliveries = DeliveryRepository(connection)

    def savepoint(self) -> AbstractAsyncContextManager[object]:
        return self._connection.begin_nested()

    async def forget_everything(self, gateway: str) -> None:
        for table in (deliveries, stored_answers, disputes, refunds, captures, entry_aliases, operations, payments):
            await self._connection.execute(delete(table).where(table.c.gateway == gateway))


def unit_of_work(database: Database, *, concurrency: int) -> UnitOfWork:
    """``async with uow() as tx``: commits on leaving, rolls back on an exception.

    More than ``concurrency`` transactions wait their turn here, where waiting has no limit: a gateway that is called
    a hundred times at once answers slowly, and does not fail as a service with an exhausted pool would.
    """
    turns = asyncio.Semaphore(concurrency)

    @asynccontextmanager
    async def begin() -> AsyncIterator[SandboxTransaction]:
        async with turns, database.begin() as connection:
            yield DatabaseTransaction(connection)

    return begin


def _entry(row: Mapping[Any, Any]) -> BookEntry:
    values = dict(row)
    return BookEntry(**{**values, "capture": CaptureMode(values["capture"]), "status": EntryStatus(values["status"])})


def _fault(row: Mapping[Any, Any]) -> Fault:
    return Fault(row["operation"], FaultKind(row["kind"]), row["remaining"], row["params"])


def _delivery(row: Mapping[Any, Any]) -> Delivery:
    values = dict(row)
    return Delivery(**{**values, "state": DeliveryState(values["state"])})
