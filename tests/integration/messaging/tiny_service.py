"""The smallest service there can be: it publishes captures, and its handler writes down what it applied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Column, Identity, Table, Text, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.order_events import OrderPaid
from shared.contracts.payment_events import PaymentCaptured, PaymentFailed
from shared.contracts.topology import Queue
from shared.db.base import metadata_for
from shared.db.session import Database, async_url
from shared.db.unit_of_work import Transaction, UnitOfWork
from shared.messaging.bus import ClaimedEvent, EventBus, Subscription
from shared.messaging.relay import OutboxRelay
from shared.ports import Ports, system_ports
from shared.unit_of_work import InboxClaim

SERVICE = "testing"
QUEUE = Queue("testing.payments", (PaymentCaptured.TYPE, PaymentFailed.TYPE), retry_delays_seconds=(0.05, 0.1))
"""Waits in milliseconds, so that a poison message uses up its attempts within a test."""

metadata = metadata_for(SERVICE)
Table(
    "applied",
    metadata,
    # No unique key on the event: an effect that happens twice must be seen, not refused.
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("payment_id", Text, nullable=False),
)


async def create_schema(url: str) -> None:
    engine = create_async_engine(
        async_url(url), poolclass=NullPool, connect_args={"server_settings": {"search_path": SERVICE}}
    )
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE SCHEMA {SERVICE}"))
        await connection.run_sync(metadata.create_all)
    await engine.dispose()


def a_capture(payment_id: str = "pay_1", **changes: Any) -> PaymentCaptured:
    values = {"payment_id": payment_id, "order_id": "ord_1", "gateway": "stripe", "status": "captured", "version": 1}
    return PaymentCaptured.model_validate(values | {"amount": 1050, "currency": "USD"} | changes)


def an_order_paid() -> OrderPaid:
    return OrderPaid.model_validate(
        {"order_id": "ord_1", "status": "confirmed", "payment_status": "paid", "version": 1}
        | {"total": 1050, "currency": "USD"}
    )


Hook = Callable[[EventEnvelope], Awaitable[None]]


async def nothing(_event: EventEnvelope) -> None:
    """What a hook does unless a test says otherwise."""


class TinyService:
    """``before_commit`` and ``after_commit`` are where tests make a handler fail, hang or die."""

    def __init__(self, url: str, *, pool_size: int = 5, ports: Ports | None = None) -> None:
        self.ports = ports or system_ports()
        self.database = Database(url, schema=SERVICE, application_name=SERVICE, pool_size=pool_size)
        self.uow = UnitOfWork(
            self.database, lambda connection: Transaction(connection, service=SERVICE, ports=self.ports)
        )
        self.before_commit: Hook = nothing
        self.after_commit: Hook = nothing
        self.deliveries: list[str] = []
        self.batches: list[list[str]] = []
        """The events of each batch that was tried; ``deliveries`` has those that were tried alone."""

    async def announce(self, *events: EventData, subject: str | None = None) -> list[str]:
        """Put events into the outbox, in one transaction; returns their ids."""
        async with self.uow() as tx:
            added = [await tx.outbox.add(event, subject=subject or _subject_of(event)) for event in events]
        return [envelope.id for envelope in added]

    async def announce_captures(self, count: int) -> list[str]:
        return await self.announce(*(a_capture(f"pay_{number}") for number in range(count)))

    async def handle(self, event: EventEnvelope, claim: InboxClaim) -> None:
        self.deliveries.append(event.id)
        async with self.uow() as tx:
            if not await tx.inbox.claim(claim):
                return
            await tx.connection.execute(
                text("INSERT INTO applied (event_id, payment_id) VALUES (:event, :payment)"),
                {"event": event.id, "payment": str(event.data.get("payment_id"))},
            )
            await self.before_commit(event)
        await self.after_commit(event)

    async def handle_batch(self, events: Sequence[ClaimedEvent]) -> None:
        self.batches.append([event.id for event, _ in events])
        async with self.uow() as tx:
            claimed = await tx.inbox.claim_all(QUEUE.name, [claim.message_id for _, claim in events])
            fresh = [event for event, claim in events if claim.message_id in claimed]
            await tx.connection.execute(
                text(
                    "INSERT INTO applied (event_id, payment_id) SELECT event, payment FROM unnest("
                    "CAST(:events AS text[]), CAST(:payments AS text[])) WITH ORDINALITY AS given (event, payment, n)"
                    " ORDER BY n"
                ),
                {
                    "events": [event.id for event in fresh],
                    "payments": [str(event.data.get("payment_id")) for event in fresh],
                },
            )
            for event in fresh:
                await self.before_commit(event)
        for event in fresh:
            await self.after_commit(event)

    def subscription(self, **changes: Any) -> Subscription:
        standard: dict[str, Any] = {"queue": QUEUE, "handler": self.handle, "database": self.database}
        return Subscription(**(standard | changes))

    def subscription_in_batches(
        self, *, takes: Callable[[EventEnvelope], bool] = lambda _: True, **changes: Any
    ) -> Subscription:
        return self.subscription(batch=TinyBatch(self, takes), **changes)

    def relay(self, bus: EventBus, **changes: Any) -> OutboxRelay:
        standard: dict[str, Any] = {"service": SERVICE, "ports": self.ports, "retry_wait_seconds": _soon}
        return OutboxRelay(self.database, bus, **(standard | changes))

    async def applied(self) -> list[str]:
        return [row.event_id for row in await self.rows("SELECT event_id FROM applied ORDER BY position")]

    async def waiting(self) -> list[Any]:
        return await self.rows("SELECT * FROM outbox_messages WHERE published_at IS NULL ORDER BY position")

    async def inbox(self, message_id: str) -> Any:
        rows = await self.rows("SELECT * FROM inbox_messages WHERE message_id = :id", id=message_id)
        return rows[0] if rows else None

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.database.begin() as connection:
            result = await connection.execute(text(sql), values)
            return list(result) if result.returns_rows else []


def _soon(attempt: int) -> float:
    return 0.05 * attempt


class TinyBatch:
    """The service's batch handler; ``takes`` is the test's to decide."""

    def __init__(self, service: TinyService, takes: Callable[[EventEnvelope], bool]) -> None:
        self._service = service
        self.takes = takes

    async def __call__(self, events: Sequence[ClaimedEvent]) -> None:
        await self._service.handle_batch(events)


def _subject_of(event: EventData) -> str:
    return str(getattr(event, "payment_id", None) or "ord_1")


@asynccontextmanager
async def running(*jobs: Callable[[], Awaitable[None]]) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Run background jobs during the block; one that fails by itself fails the test."""
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        _, deaf = await asyncio.wait(tasks, timeout=15)
        assert not deaf, f"these jobs do not end when they are told to: {deaf}"
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
