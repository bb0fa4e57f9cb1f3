"""Messages to use cases."""

from __future__ import annotations

from services.reconciler.domain.models import SeenPayment
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.watch_payments import watch_payments
from shared.contracts.catalogue import read_event
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentEventData
from shared.money import Money
from shared.unit_of_work import InboxClaim


class PaymentEventsHandler:
    """The consumer of ``payment.*``: every payment that is announced is watched until it is final."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        """Raises pydantic.ValidationError for data that is not what its type promises."""
        event = read_event(envelope)
        async with self._context.uow() as tx:
            if await tx.inbox.claim(claim) and isinstance(event, PaymentEventData):
                await watch_payments(tx, [_seen(event, envelope)], self._context)


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
    )
