"""Payment events handed over in batches, and all of a database that they leave behind, without what is random in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from services.order_service.db.payment_batch import BatchUnitOfWork, PaymentBatch
from services.order_service.db.unit_of_work import OrderTransaction
from services.order_service.messaging.handlers import PaymentEventsBatch
from services.order_service.use_cases.settling_ports import PaymentBatchFactory
from shared.contracts.envelope import EventEnvelope
from tests.integration.order_service.conftest import World
from tests.integration.order_service.fakes import a_claim

TABLES = (
    "orders",
    "order_items",
    "stock_reservations",
    "order_payments",
    "refunds",
    "products",
    "invoices",
    "invoice_counters",
    "notifications",
    "outbox_sequences",
    "inbox_messages",
)
_CHANCE = {"secret_digest", "first_seen_at", "handled_at"}


async def deliver_together(
    world: World, envelopes: Sequence[EventEnvelope], *, batches: PaymentBatchFactory | None = None
) -> None:
    handler = PaymentEventsBatch(world.container.deps, batches or BatchUnitOfWork(world.container.uow))
    assert all(handler.takes(envelope) for envelope in envelopes)
    await handler([(envelope, a_claim(envelope)) for envelope in envelopes])


def watched_batches(
    world: World,
    *,
    before: Callable[[OrderTransaction], Awaitable[None]] | None = None,
    after: Callable[[OrderTransaction], Awaitable[None]] | None = None,
) -> PaymentBatchFactory:
    """Batches with something that happens when they have begun, or between their last statement and their commit."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[PaymentBatch]:
        async with world.container.uow() as tx:
            if before is not None:
                await before(tx)
            batch = PaymentBatch(tx)
            yield batch
            await batch.flush()
            if after is not None:
                await after(tx)

    return opened


async def everything(world: World, names: Mapping[str, str]) -> dict[str, list[str]]:
    """Every row of every table, with ``names`` in place of ids."""
    found = {}
    for table in TABLES:
        rows = await world.rows(f"SELECT row_to_json({table})::text AS row FROM {table}")
        found[table] = sorted(_named(_without_chance(json.loads(row["row"])), names) for row in rows)
    rows = await world.rows("SELECT convert_from(body, 'UTF8') AS body FROM outbox_messages ORDER BY position")
    events = [json.loads(row["body"]) for row in rows]
    events = [event for event in events if "causationid" in event]  # the others came of requests, with traces of theirs
    for event in events:
        event["data"].pop("signature", None)  # over the ids
    found["outbox"] = [_named({key: event[key] for key in event if key != "id"}, names) for event in events]
    return found


def _without_chance(row: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if key not in _CHANCE}


def _named(row: dict[str, object], names: Mapping[str, str]) -> str:
    text = json.dumps(row, sort_keys=True)
    for id_, name in names.items():
        text = text.replace(id_, name)
    return text
