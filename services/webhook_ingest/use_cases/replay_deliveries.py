"""Publish stored deliveries again. Facts are deduplicated downstream, so doing it twice changes nothing (W29, XS32)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.webhook_ingest.domain.errors import DeliveryForgotten
from services.webhook_ingest.domain.models import Delivery, Replay, ReplayMode
from services.webhook_ingest.signatures.port import Trust
from services.webhook_ingest.use_cases.announce import event_of
from services.webhook_ingest.use_cases.ports import IngestTransactionPort, UnitOfWorkPort
from shared.contracts.webhook_events import WebhookReceived
from shared.errors import NotFound
from shared.ports import Ports

log = structlog.get_logger()

MAX_BULK = 500
"""Deliveries of one bulk call: one transaction, and an answer that a person can read."""


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    mode: ReplayMode
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """``event_id`` is None for a dry run: nothing was published."""

    delivery_id: str
    event: WebhookReceived
    event_id: str | None


async def replay_delivery(delivery_id: str, order: ReplayOrder, *, uow: UnitOfWorkPort, ports: Ports) -> Replayed:
    """Raises NotFound, DeliveryForgotten."""
    async with uow() as tx:
        delivery = await tx.deliveries.find(delivery_id)
        if delivery is None:
            raise NotFound("there is no such delivery")
        if delivery.forgotten_at is not None:
            raise DeliveryForgotten
        return await _replay(delivery, order, tx, ports)


@dataclass(frozen=True, slots=True)
class BulkReplay:
    gateway: str
    since: datetime
    until: datetime
    after_id: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class BulkReplayed:
    """``forgotten``: deliveries of the window whose contents are gone. ``next_after``: where to go on."""

    replayed: Sequence[Replayed]
    forgotten: int
    next_after: str | None


async def replay_deliveries(
    selection: BulkReplay, order: ReplayOrder, *, uow: UnitOfWorkPort, ports: Ports
) -> BulkReplayed:
    """Replay up to ``limit`` deliveries, oldest first, in one commit."""
    limit = min(selection.limit, MAX_BULK)
    async with uow() as tx:
        found = await tx.deliveries.select_for_replay(
            gateway=selection.gateway,
            since=selection.since,
            until=selection.until,
            after_id=selection.after_id,
            limit=limit + 1,
        )
        page = found[:limit]
        kept = [delivery for delivery in page if delivery.forgotten_at is None]
        replayed = [await _replay(delivery, order, tx, ports) for delivery in kept]
    return BulkReplayed(replayed, len(page) - len(kept), page[-1].id if len(found) > limit else None)


async def _replay(delivery: Delivery, order: ReplayOrder, tx: IngestTransactionPort, ports: Ports) -> Replayed:
    event = event_of(delivery, trust=Trust.HINT if order.mode is ReplayMode.REFETCH else None)
    if order.mode is ReplayMode.DRY_RUN:
        return Replayed(delivery.id, event, None)
    replay_id = ports.ids.new("rpl")
    # The first event was written as number one by the statement that stored the delivery.
    envelope = await tx.outbox.add(event, subject=delivery.id, causation_id=replay_id, first_sequence=2)
    await tx.replays.add(
        Replay(
            id=replay_id,
            delivery_id=delivery.id,
            mode=order.mode,
            reason=order.reason,
            actor=order.actor,
            requested_at=ports.clock.now(),
            event_id=envelope.id,
        )
    )
    log.info(
        "webhook_replayed", delivery_id=delivery.id, mode=order.mode.value, actor=order.actor, event_id=envelope.id
    )
    return Replayed(delivery.id, event, envelope.id)
