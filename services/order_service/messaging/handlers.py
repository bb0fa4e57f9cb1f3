"""Messages to use cases."""

from __future__ import annotations

import structlog

from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.settle_order import apply_payment
from shared.contracts.catalogue import read_event
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentEventData, PaymentOutcomeResolved, PaymentOutcomeUnknown
from shared.money import Money
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

_OUTCOME_UNKNOWN: dict[str, bool] = {PaymentOutcomeUnknown.TYPE: True, PaymentOutcomeResolved.TYPE: False}


class PaymentEventsHandler:
    """The consumer of ``payment.*``: the order learns the payment's state and settles, in one commit with the claim."""

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
                shop=self._deps.shop,
                outcome_unknown=_OUTCOME_UNKNOWN.get(envelope.type),
                causation_id=envelope.id,
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
    )
