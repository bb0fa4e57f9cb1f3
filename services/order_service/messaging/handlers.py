"""Messages to use cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import structlog

from services.order_service.domain.models import PaymentSnapshot, PaymentStatus, Refund, RefundStatus
from services.order_service.use_cases.apply_payments import PaymentNews, apply_payments
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.obey_commands import cancel_order_without_payment, confirm_order
from services.order_service.use_cases.settle_order import apply_payment
from services.order_service.use_cases.settling_ports import PaymentBatchFactory
from shared.contracts.catalogue import read_event
from shared.contracts.commands import OrderCancelRequested, OrderConfirmRequested
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PAYMENT_EVENTS, PaymentEventData, RefundEventData
from shared.messaging.bus import ClaimedEvent
from shared.messaging.commands import require_signature
from shared.messaging.consumer import correlated_with
from shared.money import Money
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

_PAYMENT_EVENT_TYPES = frozenset(event.TYPE for event in PAYMENT_EVENTS)


class PaymentEventsHandler:
    """The consumer of ``payment.*``, ``capture.*``, ``refund.*`` and ``dispute.*``, all of which carry the payment's
    whole state: the order learns it and settles, in one commit with the claim."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        """Raises pydantic.ValidationError for data that is not what its type promises."""
        event = read_event(envelope)
        async with self._deps.uow() as tx:
            if not await tx.inbox.claim(claim):
                return
            if not isinstance(event, PaymentEventData):
                log.info("event_type_ignored", event_type=envelope.type)
                return
            await apply_payment(
                tx,
                _snapshot(event),
                now=self._deps.ports.clock.now(),
                deps=self._deps,
                refund=_refund(event) if isinstance(event, RefundEventData) else None,
                causation_id=envelope.id,
            )


class PaymentEventsBatch:
    """The same for many events in one commit. Satisfies BatchHandler."""

    def __init__(self, deps: Dependencies, batches: PaymentBatchFactory) -> None:
        self._deps = deps
        self._batches = batches

    def takes(self, envelope: EventEnvelope) -> bool:
        # What is no such event after all fails its batch, and then alone.
        return envelope.type in _PAYMENT_EVENT_TYPES

    async def __call__(self, events: Sequence[ClaimedEvent]) -> None:
        """Raises pydantic.ValidationError for data that is not what its type promises."""
        (consumer,) = {claim.consumer for _, claim in events}
        news = [_news(envelope, claim) for envelope, claim in events]
        await apply_payments(consumer, news, batches=self._batches, deps=self._deps)


class CommandsHandler:
    """The consumer of commands. Write access to the broker is not power over orders: the signature is checked first."""

    def __init__(self, deps: Dependencies, senders: Mapping[str, Sequence[bytes]]) -> None:
        self._deps = deps
        self._senders = senders

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        """Raises UnsignedCommand: the message is set aside for a person, and nothing has changed. Raises
        pydantic.ValidationError for data that is not what its type promises."""
        command = read_event(envelope)
        if isinstance(command, OrderConfirmRequested):
            require_signature(command, self._senders)
            await confirm_order(command, _snapshot(command.payment), claim, self._deps, causation_id=envelope.id)
        elif isinstance(command, OrderCancelRequested):
            require_signature(command, self._senders)
            payment = _snapshot(command.payment) if command.payment is not None else None
            await cancel_order_without_payment(command, payment, claim, self._deps, causation_id=envelope.id)
        else:  # of a newer release, or of no use here: one look is enough
            async with self._deps.uow() as tx:
                await tx.inbox.claim(claim)
            log.info("event_type_ignored", event_type=envelope.type)


def _news(envelope: EventEnvelope, claim: InboxClaim) -> PaymentNews:
    event = read_event(envelope)
    assert isinstance(event, PaymentEventData), "its type was looked at before it was taken"
    return PaymentNews(
        message_id=claim.message_id,
        payment=_snapshot(event),
        refund=_refund(event) if isinstance(event, RefundEventData) else None,
        within=partial(correlated_with, envelope, claim.consumer),
    )


def _snapshot(event: PaymentEventData) -> PaymentSnapshot:
    return PaymentSnapshot(
        payment_id=event.payment_id,
        order_id=event.order_id,
        gateway=event.gateway,
        status=PaymentStatus(event.status),
        version=event.version,
        amount=Money(event.amount, event.currency),
        gateway_reference=event.gateway_reference,
        amount_authorized=event.amount_authorized,
        amount_captured=event.amount_captured,
        amount_refund_pending=event.amount_refund_pending,
        amount_refunded=event.amount_refunded,
        amount_disputed=event.amount_disputed,
        amount_excess=event.amount_excess,
        outcome_unknown=event.outcome_unknown,
    )


def _refund(event: RefundEventData) -> Refund:
    return Refund(
        refund_id=event.refund_id,
        payment_id=event.payment_id,
        order_id=event.order_id,
        amount=Money(event.refund_amount, event.currency),
        status=RefundStatus(event.refund_status),
        version=event.version,
        reason=event.refund_reason,
        origin=event.refund_origin,
    )
