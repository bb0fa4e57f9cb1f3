"""Create a payment for an order and open its hosted page at the gateway."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.errors import PaymentIdReused
from services.payment_service.domain.models import (
    OPEN,
    Attempt,
    CaptureMode,
    Customer,
    Item,
    Payment,
    PaymentState,
    Terms,
)
from services.payment_service.domain.timeline import TimelineEntry, request_entry
from services.payment_service.use_cases.announce import event_of
from services.payment_service.use_cases.close_payment import close_payment
from services.payment_service.use_cases.open_session import (
    OpenedSession,
    add_leased_attempt,
    call_gateway,
    open_session,
    release_unsent,
)
from services.payment_service.use_cases.ports import PARKED_CHANNEL, Context, PaymentTransaction
from shared.contracts.payment_events import PaymentCreated
from shared.correlation import current_correlation
from shared.errors import DatabaseUnavailable, GatewayError
from shared.money import Money

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CreatePayment:
    payment_id: str
    order_id: str
    gateway: str
    amount: Money
    capture: CaptureMode
    description: str
    customer: Customer
    items: tuple[Item, ...]
    success_url: str
    failure_url: str
    cancel_url: str
    expires_at: datetime
    method: str | None = None
    """How the shopper means to pay; the sweep's pace depends on it, and the gateway's page may still offer others."""

    def digest(self) -> bytes:
        """What makes two requests the same: all that the shopper pays, and where. Return URLs may differ between
        tabs."""
        meaning = [
            self.order_id,
            self.gateway,
            self.amount.amount_minor,
            self.amount.currency,
            self.capture.value,
        ]
        return hashlib.sha256(json.dumps(meaning).encode()).digest()


async def create_payment(command: CreatePayment, context: Context) -> OpenedSession:
    """Record the payment, then open its session; repeating it with the same ``payment_id`` goes on where it stopped.

    The row and the lease on its first attempt are committed before the gateway is called, so a crash in between leaves
    a payment whose session is opened (or found) by the next call once that lease has run out. Raises GatewayNotEnabled,
    CurrencyNotSupported, CapabilityNotSupported, or GatewayUnavailable while the gateway's breaker is open, and leaves
    no row then (failure PY16); PaymentIdReused for another request under the same id; then what ``open_session``
    raises.
    """
    account = context.gateways.account_for(command.gateway, command.amount.currency)
    adapter = context.gateways.get(command.gateway, account)
    adapter.check(command.amount, command.capture)
    payment = _payment_of(command, account, adapter.facts.authorization_valid_for, context)
    first: tuple[Attempt, str] | None = None
    try:
        async with context.uow() as tx:
            if await tx.payments.add(payment):
                # Here, so that a repeat whose session is open already is answered, and so that a refusal leaves no row.
                context.gateways.require_available(payment.gateway, OperationClass.SESSION, account)
                first = await _first_steps(tx, payment, context)
            else:
                existing = await tx.payments.get(payment.payment_id)
                if existing is None or existing.request_digest != payment.request_digest:
                    raise PaymentIdReused
    except DatabaseUnavailable:
        if first is not None:
            await release_unsent(*first, context)
        raise
    if first is None:
        opened = await open_session(payment.payment_id, context)
    else:
        opened = await call_gateway(payment, *first, context)
    if _is_over(opened, context):
        return await _ended(opened, context)
    return OpenedSession(opened.payment, opened.attempt, is_new=first is not None)


def _is_over(opened: OpenedSession, context: Context) -> bool:
    """Its page cannot be paid any more, by what the gateway said when it was opened; some live minutes only."""
    return opened.payment.status in OPEN and opened.attempt.session_expires_at <= context.clock.now()


async def _ended(opened: OpenedSession, context: Context) -> OpenedSession:
    """Ended, so that whoever asks makes a new payment instead of showing a dead page; or found to be paid after all.

    Where the gateway cannot say so now, it stays as it is, and the next one who asks tries again.
    """
    try:
        payment = await close_payment(opened.payment.payment_id, "session_expired", context)
    except GatewayError as error:
        log.warning("session_over_and_not_closed", payment_id=opened.payment.payment_id, code=error.code)
        return opened
    return replace(opened, payment=payment)


async def _first_steps(tx: PaymentTransaction, payment: Payment, context: Context) -> tuple[Attempt, str]:
    attempt, token = await add_leased_attempt(tx, payment, context)
    known_as = (payment.payment_id, attempt.reference, payment.order_id)
    await tx.parked.lock_references(payment.gateway, known_as)
    if await tx.parked.wake(payment.gateway, payment.account, known_as):
        tx.hint(PARKED_CHANNEL)
    await tx.timeline.add(payment.payment_id, _created_entry(payment))
    await tx.outbox.add(event_of(PaymentCreated, payment), subject=payment.payment_id, correlation_id=payment.order_id)
    return attempt, token


def _payment_of(
    command: CreatePayment, account: str | None, authorization_valid_for: timedelta | None, context: Context
) -> Payment:
    now = context.clock.now()
    return Payment(
        payment_id=command.payment_id,
        order_id=command.order_id,
        gateway=command.gateway,
        account=account,
        terms=Terms(command.amount, command.capture, context.tolerance_minor),
        state=PaymentState(),
        version=1,
        description=command.description,
        customer=command.customer,
        items=command.items,
        success_url=command.success_url,
        failure_url=command.failure_url,
        cancel_url=command.cancel_url,
        request_digest=command.digest(),
        created_at=now,
        updated_at=now,
        expires_at=command.expires_at,
        authorization_valid_for=authorization_valid_for,
        method=command.method,
    )


def _created_entry(payment: Payment) -> TimelineEntry:
    correlation = current_correlation()
    request_id = correlation.request_id if correlation else None
    return request_entry(
        "create the payment",
        "order_service",
        request_id,
        at=payment.created_at,
        amount=payment.amount,
        order_id=payment.order_id,
    )
