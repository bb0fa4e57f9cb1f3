"""Messages to use cases."""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.models import SeenPayment, Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.metrics import CHANGES_LEARNT
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.watch_payments import watch_payments
from shared.contracts.catalogue import read_event
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PAYMENT_EVENTS, PaymentAuthorizationExpiring, PaymentEventData
from shared.messaging.bus import ClaimedEvent
from shared.money import Money
from shared.unit_of_work import InboxClaim

_PAYMENT_EVENT_TYPES = frozenset(event.TYPE for event in PAYMENT_EVENTS)
SOURCES = frozenset({"webhook", "return", "sweep", "api", "operator", "resolver"})


class PaymentEventsHandler:
    """The consumer of every event that carries a payment, whatever it is about: all that is announced is watched."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        """Raises pydantic.ValidationError for data that is not what its type promises."""
        event = read_event(envelope)
        async with self._context.uow() as tx:
            if not await tx.inbox.claim(claim) or not isinstance(event, PaymentEventData):
                return
            await watch_payments(tx, [_seen(event, envelope)], self._context)
        _count(event)


class PaymentEventsBatch:
    """The same for many events in one commit. Satisfies BatchHandler."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def takes(self, envelope: EventEnvelope) -> bool:
        # What is no such event after all fails its batch, and then alone.
        return envelope.type in _PAYMENT_EVENT_TYPES

    async def __call__(self, events: Sequence[ClaimedEvent]) -> None:
        """Raises pydantic.ValidationError for data that is not what its type promises."""
        (consumer,) = {claim.consumer for _, claim in events}
        read = {claim.message_id: (_read(envelope), envelope) for envelope, claim in events}
        async with self._context.uow() as tx:
            unclaimed = await tx.inbox.claim_all(consumer, list(read))
            mine = [found for message_id, found in read.items() if message_id in unclaimed]
            if mine:
                await watch_payments(tx, [_seen(event, envelope) for event, envelope in mine], self._context)
        for event, _ in mine:
            _count(event)


def _read(envelope: EventEnvelope) -> PaymentEventData:
    event = read_event(envelope)
    assert isinstance(event, PaymentEventData), "its type was looked at before it was taken"
    return event


def _count(event: PaymentEventData) -> None:
    if event.status != event.previous_status:
        CHANGES_LEARNT.labels(event.gateway, _source(event.learnt_from)).inc()


def _source(learnt_from: str | None) -> str:
    return learnt_from if learnt_from in SOURCES else "other"


def _seen(event: PaymentEventData, envelope: EventEnvelope) -> SeenPayment:
    return SeenPayment(
        payment_id=event.payment_id,
        order_id=event.order_id,
        gateway=event.gateway,
        status=PaymentStatus(event.status),
        version=event.version,
        amount=Money(event.amount, event.currency),
        created_at=envelope.time,
        changed_at=envelope.time,
        standing=Standing(
            amount_authorized=event.amount_authorized,
            amount_captured=event.amount_captured,
            amount_refund_pending=event.amount_refund_pending,
            amount_refunded=event.amount_refunded,
            amount_disputed=event.amount_disputed,
            outcome_unknown=event.outcome_unknown,
        ),
        method=event.method,
        capture_before=event.capture_before if isinstance(event, PaymentAuthorizationExpiring) else None,
    )
