"""Messages to use cases."""

from __future__ import annotations

from services.reconciler.domain.models import SeenPayment, Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.metrics import CHANGES_LEARNT
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.watch_payments import watch_payments
from shared.contracts.catalogue import read_event
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentAuthorizationExpiring, PaymentEventData
from shared.money import Money
from shared.unit_of_work import InboxClaim

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
