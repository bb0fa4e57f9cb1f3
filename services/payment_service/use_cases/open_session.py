"""Open a payment's hosted page once, however many callers ask and whatever becomes of the answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.errors import PaymentEnded, SessionBusy
from services.payment_service.domain.models import OPEN, WITH_MONEY, Attempt, AttemptStatus, FactSource, Payment
from services.payment_service.domain.timeline import TimelineEntry
from services.payment_service.gateways.port import CreateSession, Session
from services.payment_service.use_cases.ports import PARKED_CHANNEL, Context, PaymentTransaction
from services.payment_service.use_cases.record_facts import Learnt, record_facts, settle
from services.payment_service.use_cases.stopwatch import Stopwatch
from shared.errors import DatabaseUnavailable, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable, NotFound

LEASE_SECONDS = 25.0
"""Longer than a session call (its budget is 20 s). One that is overtaken does no harm: its key is the same."""

WAIT_FOR_OTHER_SECONDS = 8.0
"""With the call's own 20 s it stays within the 30 s that order_service gives us."""

POLL_SECONDS = 0.05

SHORTEST_AT_GATEWAYS = timedelta(minutes=31)
"""Stripe refuses sessions shorter than 30 minutes."""

SHORTEST_SESSION = timedelta(minutes=35)
"""What is above that is for a first call that has to be repeated."""


@dataclass(frozen=True, slots=True)
class OpenedSession:
    payment: Payment
    attempt: Attempt
    is_new: bool = False


def new_attempt(payment: Payment, context: Context) -> Attempt:
    attempt_id = context.ids.new("att")
    return Attempt(
        attempt_id=attempt_id,
        payment_id=payment.payment_id,
        reference=context.ids.new_reference(),
        idempotency_key=attempt_id,
        status=AttemptStatus.CREATED,
        session_expires_at=max(payment.expires_at, context.clock.now() + SHORTEST_SESSION),
        created_at=context.clock.now(),
    )


async def open_session(payment_id: str, context: Context) -> OpenedSession:
    """The open session of a payment: the existing one, or a new one at the gateway.

    One caller at a time calls the gateway, under a lease; the others wait for its result. A crash after sending leaves
    the
    attempt ``sending``; once its lease has run out the next caller sends the same request with the same key (or looks
    it up by our reference), so there is never a second payable page (failures PY1 to PY3, PY6).

    Raises NotFound; PaymentEnded; SessionBusy when another caller took too long; GatewayUnavailable (nothing moved, the
    payment is as payable as before), GatewayRejected (a new attempt may be made), GatewayOutcomeUnknown (repeat it).
    """
    deadline = context.clock.monotonic() + WAIT_FOR_OTHER_SECONDS
    while True:
        token = context.ids.new("lse")
        async with context.turns.of(payment_id), context.uow() as tx:
            payment, attempt, is_ours = await _claim(tx, payment_id, token, context)
        if attempt.status is AttemptStatus.OPEN or payment.status in WITH_MONEY:
            return OpenedSession(payment, attempt)  # paid though its session was never confirmed: nothing to open
        if is_ours:
            try:
                return await call_gateway(payment, attempt, token, context)
            except GatewayRejected:
                # Repeated for so long that its page has become too short: the next attempt asks for a longer one.
                if not _is_too_short(attempt, context) or context.clock.monotonic() > deadline:
                    raise
                continue
        if context.clock.monotonic() > deadline:
            raise SessionBusy(retry_after_seconds=2)
        await context.clock.sleep(POLL_SECONDS)


async def _claim(
    tx: PaymentTransaction, payment_id: str, token: str, context: Context
) -> tuple[Payment, Attempt, bool]:
    """Read the payment and take the lease on its attempt if it still has to be opened.

    The attempt comes back as it was before the lease: its status tells whether an earlier call may have arrived.
    """
    payment = await tx.payments.get_for_update(payment_id)
    if payment is None:
        raise NotFound
    attempt = await tx.attempts.latest(payment_id)
    assert attempt is not None, "a payment is stored with its first attempt"
    if attempt.status is AttemptStatus.OPEN or payment.status in WITH_MONEY:
        return payment, attempt, False
    if payment.status not in OPEN:
        raise PaymentEnded(f"this payment is {payment.status}; a new one is needed")
    if attempt.status is AttemptStatus.REJECTED or _is_stale(attempt, context):
        attempt = new_attempt(payment, context)
        await tx.attempts.add(attempt)
        # From here on the gateway may know the payment by a name that readers of it do not have.
        await tx.payments.touch(payment_id, attempt.created_at)
    sending = replace(attempt, status=AttemptStatus.SENDING)
    if not await tx.attempts.lease(sending, token=token, seconds=LEASE_SECONDS):
        return payment, attempt, False
    context.gateways.require_available(
        payment.gateway, OperationClass.SESSION, payment.account
    )  # raising takes the lease back, too
    return payment, attempt, True


def _is_stale(attempt: Attempt, context: Context) -> bool:
    """Never sent, and by now its page would be shorter than gateways allow."""
    return attempt.status is AttemptStatus.CREATED and _is_too_short(attempt, context)


def _is_too_short(attempt: Attempt, context: Context) -> bool:
    return attempt.session_expires_at < context.clock.now() + SHORTEST_AT_GATEWAYS


async def add_leased_attempt(tx: PaymentTransaction, payment: Payment, context: Context) -> tuple[Attempt, str]:
    """A new payment's first attempt, and the lease under which its creator calls the gateway at once.

    The row says ``sending`` from the start; the attempt comes back as it was before, as from a claim.
    """
    attempt, token = new_attempt(payment, context), context.ids.new("lse")
    sending = replace(attempt, status=AttemptStatus.SENDING, lease_token=token)
    await tx.attempts.add(sending, leased_seconds=LEASE_SECONDS)
    return attempt, token


async def release_unsent(attempt: Attempt, token: str, context: Context) -> None:
    """After a commit that failed or was not answered: nothing was sent, so if the attempt is there, the next caller
    need not wait for its lease. Raises nothing; that wait is all that fails with it."""
    with suppress(DatabaseUnavailable):
        async with context.uow() as tx:
            if await tx.payments.get_for_update(attempt.payment_id) is not None:
                await tx.attempts.end_call(attempt, token=token)


async def call_gateway(payment: Payment, attempt: Attempt, token: str, context: Context) -> OpenedSession:
    """Open the page and write down what became of it. The caller holds the lease by ``token``, committed."""
    adapter = context.gateways.get(payment.gateway, payment.account)
    repeated = attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN)
    stopwatch = Stopwatch("create_session", payment.gateway, context.clock)
    try:
        session = await adapter.create_session(_request(payment, attempt, context), repeated=repeated)
    except GatewayUnavailable as error:
        # Nothing moved now; but an earlier call of this attempt may have, and then it stays unknown.
        status = AttemptStatus.UNKNOWN if repeated else AttemptStatus.CREATED
        await _end_call(attempt, token, status, stopwatch.entry(error, attempt.reference), context)
        raise
    except GatewayRejected as error:
        await _end_call(attempt, token, AttemptStatus.REJECTED, stopwatch.entry(error, attempt.reference), context)
        raise
    except GatewayOutcomeUnknown as error:
        await _end_call(attempt, token, AttemptStatus.UNKNOWN, stopwatch.entry(error, attempt.reference), context)
        raise
    return await _record_session(payment, attempt, session, token, stopwatch.entry(None, attempt.reference), context)


def _request(payment: Payment, attempt: Attempt, context: Context) -> CreateSession:
    return_url = f"{context.public_base_url.rstrip('/')}/api/v1/payments/{payment.payment_id}/return"
    return CreateSession(
        reference=attempt.reference,
        idempotency_key=attempt.idempotency_key,
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        amount=payment.amount,
        capture=payment.terms.capture,
        description=payment.description,
        customer=payment.customer,
        items=payment.items,
        return_url=f"{return_url}?from=page",
        cancel_url=f"{return_url}?from=cancel",
        expires_at=attempt.session_expires_at,
        attempted_at=attempt.created_at,
    )


async def _end_call(
    attempt: Attempt, token: str, status: AttemptStatus, entry: TimelineEntry, context: Context
) -> None:
    async with context.uow() as tx:
        payment = await tx.payments.get_for_update(attempt.payment_id)  # payment before attempt, as everywhere
        assert payment is not None
        if not await tx.attempts.end_call(replace(attempt, status=status), token=token):
            return  # somebody else holds it by now, and what they learn is newer (failure PY18)
        learnt = Learnt(FactSource.API, context.clock.now(), by=attempt.attempt_id)
        after = replace(payment, session_unknown=status is AttemptStatus.UNKNOWN)
        await settle(tx, payment, learnt, after=after, entries=(entry,))


async def _record_session(
    asked_for: Payment, attempt: Attempt, session: Session, token: str, entry: TimelineEntry, context: Context
) -> OpenedSession:
    now, payment_id, gateway = context.clock.now(), asked_for.payment_id, asked_for.gateway
    async with context.uow() as tx:
        # References before rows, as in apply_webhook, or the two could wait for each other.
        await tx.parked.lock_references(gateway, session.references)
        payment = await tx.payments.get_for_update(payment_id)
        assert payment is not None
        opened = replace(
            attempt,
            status=AttemptStatus.OPEN,
            gateway_reference=session.gateway_reference,
            next_action=session.next_action,
            session_expires_at=session.expires_at or attempt.session_expires_at,
            lease_token=None,
        )
        # Even if the lease has passed on: the same key leads to the same session, so writing it again is the same.
        await tx.attempts.end_call(opened, token=token, even_if_overtaken=True)
        learnt = Learnt(FactSource.API, now, by=attempt.attempt_id)
        recorded = await record_facts(
            tx,
            payment,
            session.observations,
            learnt,
            references=session.references,
            session_reference=session.gateway_reference,
            session_known=True,
            entries=(entry,),
        )
        if await tx.parked.wake(payment.gateway, payment.account, session.references):
            tx.hint(PARKED_CHANNEL)
    return OpenedSession(recorded.payment, opened)
