"""Ask for a capture, a void or a refund: reserve it in a committed row, call the gateway, record what it says.

The same request again (same caller, same Idempotency-Key) finds its row and goes on where it stopped, for ever: the
row's ``request_key`` outlives the stored answers (failures PY21, RF1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.budget import capture_target, refund_target, refundable_by_object, void_target
from services.payment_service.domain.errors import CapabilityNotSupported, ReferenceUsed
from services.payment_service.domain.models import Fact, FactSource, Payment
from services.payment_service.domain.operations import CallState, Operation, OperationKind, Origin
from services.payment_service.domain.timeline import request_entry
from services.payment_service.gateways.port import Capability, GatewayAdapter
from services.payment_service.use_cases.drive_operation import advance, send_reserved
from services.payment_service.use_cases.ports import Context, PaymentTransaction
from services.payment_service.use_cases.record_facts import Learnt, new_operation, settle
from shared.correlation import current_correlation
from shared.errors import IdempotencyKeyReused, InfrastructureError, InvalidAmount, NotFound
from shared.money import Money

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and what makes it the same request for ever."""

    actor: str
    request_key: str
    merchant_reference: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """``amount`` None: all that is left. ``is_final`` None: as the gateway can (a part is final where it must be)."""

    kind: OperationKind
    amount: Money | None = None
    is_final: bool | None = None
    override: bool = False


async def request_operation(payment_id: str, wanted: Wanted, asked: Asked, context: Context) -> Operation:
    """The operation as it is when the gateway has answered, or has not.

    Raises NotFound; DomainErrors for what the payment, its budget or the gateway does not allow; GatewayUnavailable
    while the gateway's breaker is open, before any row. A crash after the reservation leaves a row for the runner.
    """
    async with context.uow() as tx:
        payment = await tx.payments.get(payment_id)
    if payment is None:
        raise NotFound
    adapter = context.gateways.get(payment.gateway, payment.account)
    token = context.ids.new("lse")
    existing = await _existing(payment_id, wanted, asked, context)
    if existing is None:
        _check_capability(adapter, wanted.kind)
        context.gateways.require_available(payment.gateway, OperationClass.MONEY, payment.account)
        async with context.turns.of(payment_id), context.uow() as tx:
            operation, is_new = await _reserve(tx, payment_id, adapter, wanted, asked, token, context)
        if is_new:
            return await _send(operation, token, context)
        existing = operation
    return await _go_on(existing, token, context)


async def _send(operation: Operation, token: str, context: Context) -> Operation:
    """Where our own database goes away under it, the row stays reserved, and the runner finds out what became of it."""
    try:
        return await send_reserved(operation.operation_id, token, context)
    except InfrastructureError as error:
        log.warning("operation_left_to_the_runner", operation_id=operation.operation_id, code=error.code)
        return operation


async def _existing(payment_id: str, wanted: Wanted, asked: Asked, context: Context) -> Operation | None:
    async with context.uow() as tx:
        return _same_request(await tx.operations.of_payment(payment_id), wanted, asked)


def _same_request(operations: Sequence[Operation], wanted: Wanted, asked: Asked) -> Operation | None:
    """Raises IdempotencyKeyReused where the key led to something else, ReferenceUsed for a used merchant reference."""
    for operation in operations:
        if operation.kind is not wanted.kind:
            continue
        if operation.request_key == asked.request_key:
            if (
                wanted.amount not in (None, operation.amount)
                or operation.merchant_reference != asked.merchant_reference
            ):
                raise IdempotencyKeyReused
            return operation
    for operation in operations:
        is_used = operation.merchant_reference is not None and operation.merchant_reference == asked.merchant_reference
        if operation.kind is wanted.kind and is_used:
            raise ReferenceUsed(f"{operation.operation_id} has this reference")
    return None


async def _go_on(operation: Operation, token: str, context: Context) -> Operation:
    """The same request came again: drive it, unless somebody does or there is nothing to do yet."""
    if not operation.is_unsettled or operation.next_look_at is None:
        return operation
    async with context.uow() as tx:
        is_due = operation.next_look_at <= context.clock.now()
        seconds = context.operations.lease_seconds
        if not is_due or not await tx.operations.lease(operation.operation_id, token=token, seconds=seconds):
            return operation
    return await advance(operation.operation_id, token, context)


def _check_capability(adapter: GatewayAdapter, kind: OperationKind) -> None:
    needed = {
        OperationKind.CAPTURE: Capability.MANUAL_CAPTURE,
        OperationKind.VOID: Capability.VOID,
        OperationKind.REFUND: Capability.REFUND,
    }[kind]
    if needed not in adapter.facts.capabilities:
        raise CapabilityNotSupported(f"{adapter.facts.display_name} offers no {kind}")


async def _reserve(
    tx: PaymentTransaction,
    payment_id: str,
    adapter: GatewayAdapter,
    wanted: Wanted,
    asked: Asked,
    token: str,
    context: Context,
) -> tuple[Operation, bool]:
    """Commit the row that holds the amount, marked as sent and leased, before a byte leaves."""
    now = context.clock.now()
    payment = await tx.payments.get_for_update(payment_id)
    assert payment is not None
    facts, operations = await tx.facts.all(payment_id), await tx.operations.of_payment(payment_id)
    same = _same_request(operations, wanted, asked)  # again, now under the lock
    if same is not None:
        return same, False
    learnt = Learnt(FactSource.API, now, by=_request_id())
    planned = _PLANS[wanted.kind](Ground(payment, facts, operations, adapter), wanted)
    operation = replace(
        new_operation(tx, payment, wanted.kind, planned.amount, origin=Origin.API, actor=asked.actor, learnt=learnt),
        target=planned.target,
        is_whole=planned.is_whole,
        is_final=planned.is_final,
        reason=asked.reason,
        merchant_reference=asked.merchant_reference,
        request_key=asked.request_key,
        call=CallState.SENT,
        calls=1,
        first_sent_at=now,
        last_sent_at=now,
        next_look_at=now + timedelta(seconds=context.operations.lease_seconds),
    )
    details = {"override": "true"} if wanted.override else {}
    entry = request_entry(wanted.kind.value, asked.actor, _request_id(), at=now, amount=planned.amount, **details)
    await settle(tx, payment, learnt, added=(operation,), entries=(entry,))
    await tx.operations.lease(operation.operation_id, token=token, seconds=context.operations.lease_seconds)
    return operation, True


@dataclass(frozen=True, slots=True)
class Ground:
    """What a plan is made on: the payment under its lock, with all that is known of it."""

    payment: Payment
    facts: Sequence[Fact]
    operations: Sequence[Operation]
    adapter: GatewayAdapter


@dataclass(frozen=True, slots=True)
class Plan:
    amount: Money
    target: str
    is_whole: bool
    is_final: bool = False


def plan_capture(ground: Ground, wanted: Wanted) -> Plan:
    payment, facts = ground.payment, ground.adapter.facts
    amount = _amount(wanted.amount, payment, payment.state.amount_capturable)
    # What another capture has reserved may come back: only beside none of them is the rest the rest.
    is_rest = amount.amount_minor == payment.state.amount_capturable and payment.state.amount_capture_pending == 0
    several = Capability.SEVERAL_CAPTURES in facts.capabilities
    if not is_rest and Capability.PARTIAL_CAPTURE not in facts.capabilities:
        raise CapabilityNotSupported(f"{facts.display_name} captures the whole amount only")
    is_final = is_rest or (not several if wanted.is_final is None else wanted.is_final)
    if not is_final and not several:
        raise CapabilityNotSupported(f"{facts.display_name} captures once: a part has to be `final`")
    target = capture_target(payment, ground.facts, ground.operations, amount.amount_minor, is_final=is_final)
    ground.adapter.check_operation(OperationKind.CAPTURE, amount)
    return Plan(amount, target, is_rest and payment.state.amount_captured == 0, is_final)


def plan_void(ground: Ground, _wanted: Wanted) -> Plan:
    payment = ground.payment
    target = void_target(payment, ground.facts, ground.operations)
    held = payment.state.amount_authorized - payment.state.amount_captured
    return Plan(Money(held, payment.amount.currency), target, is_whole=True)


def plan_refund(ground: Ground, wanted: Wanted) -> Plan:
    payment, facts = ground.payment, ground.adapter.facts
    amount = _amount(wanted.amount, payment, payment.state.amount_refundable)
    target = refund_target(payment, ground.facts, ground.operations, amount.amount_minor, override=wanted.override)
    is_whole = amount.amount_minor == refundable_by_object(payment, ground.facts, ground.operations)[target]
    is_all = amount.amount_minor == payment.state.amount_captured
    if not is_all and Capability.PARTIAL_REFUND not in facts.capabilities:
        raise CapabilityNotSupported(f"{facts.display_name} refunds the whole amount only")
    ground.adapter.check_operation(OperationKind.REFUND, amount)
    return Plan(amount, target, is_whole)


_PLANS: dict[OperationKind, Callable[[Ground, Wanted], Plan]] = {
    OperationKind.CAPTURE: plan_capture,
    OperationKind.VOID: plan_void,
    OperationKind.REFUND: plan_refund,
}


def _amount(asked_for: Money | None, payment: Payment, left: int) -> Money:
    """All that is left where nothing was named. A budget of nothing is refused by the rules that come next."""
    if asked_for is None:
        return Money(max(left, 1), payment.amount.currency)
    if asked_for.currency != payment.amount.currency:
        raise InvalidAmount(f"this payment is in {payment.amount.currency}")
    return asked_for


def _request_id() -> str | None:
    correlation = current_correlation()
    return correlation.request_id if correlation else None
