"""Holds end: warn before it, capture or release by policy, and ask the gateway once the moment has passed.

And holds that should not be there: a payment that was to be captured by the gateway itself, and is only authorized
(Razorpay's late authorization), is captured by us once the gateway has had its time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import structlog

from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.domain.models import HOLDING, FactSource
from services.payment_service.domain.operations import OperationKind, Origin
from services.payment_service.domain.timeline import decision_entry
from services.payment_service.gateways.port import Capability
from services.payment_service.use_cases.announce import event_of
from services.payment_service.use_cases.ports import OPERATIONS_CHANNEL, Context
from services.payment_service.use_cases.record_facts import Learnt, new_operation, settle
from services.payment_service.use_cases.request_operation import Ground, Wanted, plan_capture, plan_void
from services.payment_service.use_cases.sync_payment import sync_payment
from shared.contracts.payment_events import PaymentAuthorizationExpiring
from shared.errors import DomainError, GatewayError

log = structlog.get_logger()

AT_ONCE = 50
ASK_AGAIN_AFTER = timedelta(hours=1)
POLICY_KEY = "authorization_policy"
"""The request key of the policy's operation: it acts once on a payment."""

LATE_KEY = "late_authorization"
CAPTURES_BY_ITSELF_WITHIN = timedelta(minutes=10)
"""A gateway that captures by itself passes through "authorized" for seconds."""


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """``action`` is taken ``act_before`` the end of the hold; an event warns ``warn_before`` it."""

    action: Literal["none", "capture", "void"]
    warn_before: timedelta
    act_before: timedelta
    orders_refuse: bool = False
    """Orders can send commands: what they do not want they have said within the wait, and a page that was closed before
    the money came says nothing. Without commands a person has to decide about such money."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy does with a hold. ``key`` is the request key of its operation: it acts once on a payment."""

    kind: OperationKind
    key: str
    reason: str
    summary: str


LATE = Decision(
    OperationKind.CAPTURE, LATE_KEY, LATE_KEY, "The gateway was to capture this by itself and has not: we do"
)


def _due(policy: AuthorizationPolicy) -> Decision:
    kind = OperationKind.CAPTURE if policy.action == "capture" else OperationKind.VOID
    summary = f"The hold is about to end, and the policy is to {policy.action} it"
    return Decision(kind, POLICY_KEY, "authorization_expiring", summary)


async def watch_authorizations(policy: AuthorizationPolicy, context: Context) -> bool:
    """One round over the holds that end soon, or should have ended. True where there may be more to do at once."""
    now = context.clock.now()
    async with context.uow() as tx:
        to_warn = await tx.payments.holds_to_warn(now + policy.warn_before, limit=AT_ONCE)
        to_decide: list[str] = []
        if policy.action != "none":
            to_decide = await tx.payments.holds_to_decide(
                now + policy.act_before,
                POLICY_KEY,
                gateways=_able_to(policy, context),
                only_wanted=policy.action == "capture",
                limit=AT_ONCE,
            )
        to_take = await tx.payments.holds_to_take(
            now - CAPTURES_BY_ITSELF_WITHIN, LATE_KEY, even_of_ended=policy.orders_refuse, limit=AT_ONCE
        )
        over = await tx.payments.holds_over(now, asked_before=now - ASK_AGAIN_AFTER, limit=AT_ONCE)
    for payment_id in to_warn:
        await _warn(payment_id, context)
    due = [*((each, _due(policy)) for each in to_decide), *((each, LATE) for each in to_take)]
    decided = [await _decide(payment_id, decision, context) for payment_id, decision in due]
    for payment_id in over:
        await _ask(payment_id, context)
    # Those that cannot be decided are picked again: a full page of them is no reason to hurry.
    return AT_ONCE in (len(to_warn), len(over)) or (len(decided) >= AT_ONCE and any(decided))


def _able_to(policy: AuthorizationPolicy, context: Context) -> set[str]:
    """Where the policy can act at all: elsewhere a hold ends by itself, and must not stand in the way of others."""
    if policy.action == "capture":
        return set(context.gateways.adapters)
    adapters = context.gateways.adapters.items()
    return {name for name, adapter in adapters if Capability.VOID in adapter.facts.capabilities}


async def _warn(payment_id: str, context: Context) -> None:
    now = context.clock.now()
    async with context.uow() as tx:
        payment = await tx.payments.get_for_update(payment_id)
        if payment is None or payment.capture_before is None or payment.capture_warned_at is not None:
            return
        if payment.status not in HOLDING:  # it has ended since it was picked
            return
        warned = replace(payment, capture_warned_at=now, updated_at=now)
        await tx.payments.save(warned)
        summary = f"The hold ends at {payment.capture_before:%Y-%m-%d %H:%M} UTC: capture it or release it"
        await tx.timeline.add(payment_id, decision_entry("authorization_expiring", summary, at=now, actor="policy"))
        event = event_of(PaymentAuthorizationExpiring, warned, at=now, capture_before=payment.capture_before)
        await tx.outbox.add(event, subject=payment_id, correlation_id=payment.order_id)
    log.warning("authorization_expiring", payment_id=payment_id, capture_before=payment.capture_before.isoformat())


async def _decide(payment_id: str, decision: Decision, context: Context) -> bool:
    """Capture all that is held, or release it. False where the rules forbid it now: the next round tries again."""
    kind, key = decision.kind, decision.key
    now = context.clock.now()
    async with context.uow() as tx:
        payment = await tx.payments.get_for_update(payment_id)
        assert payment is not None
        facts, operations = await tx.facts.all(payment_id), await tx.operations.of_payment(payment_id)
        is_unwanted = payment.given_up_at is not None or payment.duplicate_of is not None
        if any(o.request_key == key for o in operations) or (is_unwanted and kind is OperationKind.CAPTURE):
            return False
        plan = plan_capture if kind is OperationKind.CAPTURE else plan_void
        try:
            adapter = context.gateways.get(payment.gateway, payment.account)
            planned = plan(Ground(payment, facts, operations, adapter), Wanted(kind, is_final=True))
        except DomainError as error:
            log.info("authorization_policy_waits", payment_id=payment_id, code=error.code)
            return False
        learnt = Learnt(FactSource.API, now, by=key)
        operation = new_operation(tx, payment, kind, planned.amount, origin=Origin.POLICY, actor=key, learnt=learnt)
        operation = replace(
            operation,
            target=planned.target,
            is_whole=planned.is_whole,
            is_final=planned.is_final,
            reason=decision.reason,
            request_key=key,
        )
        entry = decision_entry(key, decision.summary, at=now, actor="policy", amount=planned.amount)
        await settle(tx, payment, learnt, added=(operation,), entries=(entry,))
        tx.hint(OPERATIONS_CHANNEL)
    return True


async def _ask(payment_id: str, context: Context) -> None:
    try:
        await sync_payment(payment_id, FactSource.SWEEP, context)
    except (GatewayError, GatewayNotEnabled) as error:
        log.warning("ended_hold_not_asked_about", payment_id=payment_id, code=error.code)
        await _mark_asked(payment_id, context)


async def _mark_asked(payment_id: str, context: Context) -> None:
    async with context.uow() as tx:
        await tx.payments.mark_asked(payment_id, context.clock.now())
