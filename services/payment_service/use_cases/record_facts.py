"""The one way in for everything that is learnt about a payment: append facts, reduce, announce, in the caller's
transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.payment_service.domain.models import WITH_MONEY, Fact, FactSource, Observation, Payment, PaymentState
from services.payment_service.domain.transitions import is_late_success, reduce_facts
from services.payment_service.use_cases.ports import PaymentTransaction
from shared.contracts.payment_events import (
    STATUS_EVENTS,
    PaymentDuplicateDetected,
    PaymentEventData,
    PaymentLateSuccess,
)
from shared.metrics import PAYMENT_TRANSITIONS


@dataclass(frozen=True, slots=True)
class Learnt:
    """Where facts come from: ``by`` is the delivery, request or run that brought them."""

    source: FactSource
    at: datetime
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    payment: Payment
    changed: bool
    """Whether the payment's state is another one than before."""


async def record_facts(
    tx: PaymentTransaction,
    payment: Payment,
    observations: Sequence[Observation],
    learnt: Learnt,
    *,
    references: Sequence[str] = (),
    session_reference: str | None = None,
) -> Recorded:
    """Append what is new and derive the state again. ``payment`` must be locked by this transaction.

    Repeating it with the same observations changes nothing (failures W1, W2, PY14), whichever sources bring them.
    """
    if references:
        await tx.payments.add_references(payment.payment_id, payment.gateway, references)
    fresh = False
    for observation in dict.fromkeys(observations):
        fresh |= await tx.facts.add(
            payment.payment_id, Fact(observation, learnt.source, learnt.at), learnt_by=learnt.by
        )
    # The session's own id is what the payment is called by, even where a webhook has named another one before.
    reference = session_reference or payment.gateway_reference or next(iter(references), None)
    if not fresh and reference == payment.gateway_reference:
        return Recorded(payment, changed=False)
    state = reduce_facts(payment.terms, await tx.facts.all(payment.payment_id))
    if state == payment.state and reference == payment.gateway_reference:
        return Recorded(payment, changed=False)
    after = replace(
        payment, state=state, version=payment.version + 1, gateway_reference=reference, updated_at=learnt.at
    )
    after = await _mark_duplicate(tx, after)
    await tx.payments.save(after)
    await _announce(tx, payment, after, learnt)
    return Recorded(after, changed=state != payment.state)


async def _mark_duplicate(tx: PaymentTransaction, payment: Payment) -> Payment:
    """The first payment of an order to succeed keeps the order; a later one is marked (failure PY7)."""
    if payment.status not in WITH_MONEY or payment.duplicate_of is not None:
        return payment
    others = await tx.payments.siblings_with_money(payment)
    return replace(payment, duplicate_of=others[0]) if others else payment


async def _announce(tx: PaymentTransaction, before: Payment, after: Payment, learnt: Learnt) -> None:
    if after.status is not before.status:
        PAYMENT_TRANSITIONS.labels(after.gateway, after.status).inc()
    late = is_late_success(before.status, after.status)
    if late:
        await _publish(tx, PaymentLateSuccess, before.state, after, learnt, reason=f"after_{before.status}")
    if after.duplicate_of is not None and before.duplicate_of is None:
        await _publish(
            tx, PaymentDuplicateDetected, before.state, after, learnt, reason=f"duplicate_of:{after.duplicate_of}"
        )
    if after.state != before.state:
        reason = after.state.conflict or after.state.failure_code
        await _publish(tx, STATUS_EVENTS[after.status], before.state, after, learnt, reason=reason)


async def _publish(
    tx: PaymentTransaction,
    model: type[PaymentEventData],
    before: PaymentState,
    payment: Payment,
    learnt: Learnt,
    *,
    reason: str | None,
) -> None:
    event = event_of(model, payment, previous=before, learnt_from=learnt.source.value, reason=reason, at=learnt.at)
    await tx.outbox.add(event, subject=payment.payment_id, correlation_id=payment.order_id, causation_id=learnt.by)


def event_of(
    model: type[PaymentEventData],
    payment: Payment,
    *,
    previous: PaymentState | None = None,
    learnt_from: str | None = None,
    reason: str | None = None,
    at: datetime | None = None,
) -> PaymentEventData:
    """The payment's whole state as one event: a consumer never adds up deltas (design.md §5)."""
    state = payment.state
    return model(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        gateway=payment.gateway,
        gateway_reference=payment.gateway_reference,
        status=state.status.value,
        previous_status=previous.status.value if previous is not None else None,
        version=payment.version,
        amount=payment.amount.amount_minor,
        currency=payment.amount.currency,
        amount_authorized=state.amount_authorized,
        amount_captured=state.amount_captured,
        amount_refund_pending=state.amount_refund_pending,
        amount_refunded=state.amount_refunded,
        amount_disputed=state.amount_disputed,
        reason=reason,
        learnt_from=learnt_from,
        occurred_at=at,
    )
