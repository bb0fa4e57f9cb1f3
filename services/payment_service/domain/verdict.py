"""Where a payment stands and why, in one sentence for an operator. Pure: it decides nothing and is never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from services.payment_service.domain.case_timeline import scenario_of
from services.payment_service.domain.models import (
    ENDED_WITHOUT_MONEY,
    Attempt,
    AttemptStatus,
    Payment,
    PaymentStatus,
)
from services.payment_service.domain.operations import (
    CallState,
    Dispute,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from services.payment_service.domain.timeline import TimelineEntry, code
from shared.money import Money

T = TypeVar("T")

MAX_NAMED = 3
"""So many operations and disputes of one sort are named; of the others only the number is told."""

_VERBS: Mapping[OperationKind, str] = {
    OperationKind.CAPTURE: "capture",
    OperationKind.VOID: "void",
    OperationKind.REFUND: "refund",
    OperationKind.COMPLETION: "completion",
}


def verdict(
    payment: Payment,
    attempt: Attempt | None,
    operations: Sequence[Operation] = (),
    disputes: Sequence[Dispute] = (),
    *,
    late_after: PaymentStatus | None = None,
    open_cases: Sequence[TimelineEntry] = (),
) -> str:
    """One sentence: where the money is first, then everything that is open or that a person should know.

    ``late_after``: the status in which the payment had been given up when its money came. ``open_cases``: what the
    reconciler found and nobody has settled.
    """
    clauses = [_CLAUSES[payment.status](payment, attempt)]
    clauses.extend(_returned(payment))
    clauses.extend(_about_operations(payment, operations))
    clauses.extend(_about_disputes(disputes))
    clauses.extend(_for_a_person(payment, late_after))
    clauses.extend(_named(open_cases, _case, "cases of the reconciler are open"))
    return "; ".join(clauses) + "."


# --- the status ----------------------------------------------------------------------------------------------------


def _created(payment: Payment, attempt: Attempt | None) -> str:
    asked = f"for {payment.amount}"
    if attempt is None:
        return f"{payment.gateway} has not been asked for a payment page {asked} yet"
    if attempt.status is AttemptStatus.REJECTED:
        return f"{payment.gateway} refused to open a payment page {asked}; nothing can have been paid"
    if payment.session_unknown or attempt.status is AttemptStatus.UNKNOWN:
        since = _time(attempt.created_at)
        return f"Unknown since {since} whether {payment.gateway} opened a payment page {asked}: it did not answer"
    if attempt.status is AttemptStatus.SENDING:
        return f"{payment.gateway} is being asked for a payment page {asked}"
    return f"A payment page {asked} is about to be opened at {payment.gateway}"


def _requires_action(payment: Payment, attempt: Attempt | None) -> str:
    until = f", open until {_time(attempt.session_expires_at)}" if attempt is not None else ""
    declined = code(payment.state.failure_code)
    last = f"; a try was declined ({declined})" if declined else ""
    return f"Waiting for the shopper to pay {payment.amount} on {payment.gateway}'s page{until}{last}"


def _processing(payment: Payment, _: Attempt | None) -> str:
    return f"{payment.gateway} is processing the payment of {payment.amount}, and its result is not known yet"


def _authorized(payment: Payment, _: Attempt | None) -> str:
    held = _money(payment, payment.state.amount_authorized)
    return f"{held} held by {payment.gateway}{_hold_ends(payment)}, nothing captured yet"


def _partially_captured(payment: Payment, _: Attempt | None) -> str:
    state = payment.state
    captured, rest = _money(payment, state.amount_captured), state.amount_authorized - state.amount_captured
    held = f"{_money(payment, rest)} still held{_hold_ends(payment)}" if rest > 0 else "nothing more is held"
    return f"{captured} of {payment.amount} captured by {payment.gateway}, {held}"


def _captured(payment: Payment, _: Attempt | None) -> str:
    captured = _money(payment, payment.state.amount_captured)
    asked = f" (the order asked for {payment.amount})" if captured != str(payment.amount) else ""
    return f"Paid: {captured} captured by {payment.gateway}{asked}"


def _failed(payment: Payment, _: Attempt | None) -> str:
    failure = code(payment.state.failure_code)
    if failure == "capture_reversed":
        return f"Failed: {payment.gateway} captured the money and took all of it back"
    return f"Failed at {payment.gateway}{f' ({failure})' if failure else ''}: no money was taken"


def _canceled(payment: Payment, _: Attempt | None) -> str:
    if payment.capture_before is not None:
        return f"Canceled: what {payment.gateway} held was released, and nothing was captured"
    return f"Canceled before it was paid: {payment.gateway} took no money"


def _expired(payment: Payment, _: Attempt | None) -> str:
    if payment.capture_before is not None:
        return f"Expired: {payment.gateway}'s hold ended without a capture, and no money was taken"
    return f"Expired: the shopper did not pay in time, and {payment.gateway} took no money"


def _conflicted(payment: Payment, _: Attempt | None) -> str:
    state, why = payment.state, payment.state.conflict
    told = []
    if state.amount_captured:
        told.append(f"{_money(payment, state.amount_captured)} captured")
    if state.amount_authorized > state.amount_captured:
        told.append(f"{_money(payment, state.amount_authorized - state.amount_captured)} held")
    if why == "currency_mismatch":
        told.append(f"money in another currency than {payment.amount.currency}")
    if why == "capture_reversed":
        told.append("part of a capture taken back")
    reported = " and ".join(told) or "no amount"
    return (
        f"Conflicted, a person has to look ({code(why) or 'conflict'}): {payment.gateway} reports {reported} "
        f"where the order asked for {payment.amount}"
    )


_CLAUSES: Mapping[PaymentStatus, Callable[[Payment, Attempt | None], str]] = {
    PaymentStatus.CREATED: _created,
    PaymentStatus.REQUIRES_ACTION: _requires_action,
    PaymentStatus.PROCESSING: _processing,
    PaymentStatus.AUTHORIZED: _authorized,
    PaymentStatus.PARTIALLY_CAPTURED: _partially_captured,
    PaymentStatus.CAPTURED: _captured,
    PaymentStatus.FAILED: _failed,
    PaymentStatus.CANCELED: _canceled,
    PaymentStatus.EXPIRED: _expired,
    PaymentStatus.CONFLICTED: _conflicted,
}


def _hold_ends(payment: Payment) -> str:
    if payment.capture_before is None:
        return ""
    warned = ", which was warned of" if payment.capture_warned_at is not None else ""
    return f" until {_time(payment.capture_before)}{warned}"


# --- what went back ------------------------------------------------------------------------------------------------


def _returned(payment: Payment) -> Iterator[str]:
    state = payment.state
    if state.amount_refunded and state.amount_refunded == state.amount_captured:
        yield "all of it was refunded"
    elif state.amount_refunded:
        yield f"{_money(payment, state.amount_refunded)} refunded"
    if state.amount_refund_pending:
        yield f"{_money(payment, state.amount_refund_pending)} reserved for refunds that are not confirmed yet"


# --- operations and disputes ---------------------------------------------------------------------------------------


def _about_operations(payment: Payment, operations: Sequence[Operation]) -> Iterator[str]:
    unknown = [operation for operation in operations if operation.status is OperationStatus.UNKNOWN]
    waiting = [o for o in operations if o.is_unsettled and o.status is not OperationStatus.UNKNOWN]
    yield from _named(unknown, lambda operation: _unknown(payment, operation), "outcomes are unknown")
    yield from _named(waiting, _waiting, "operations are under way")
    # What failed long ago and was then done by a later operation is history: the timeline has it.
    yield from _named(_unrepaired(operations, OperationStatus.FAILED), _failed_operation, "operations failed")
    reversed_ = [operation for operation in operations if operation.status is OperationStatus.REVERSED]
    yield from _named(reversed_, _reversed, "operations were reversed")
    yield from _automatic(operations)


def _unknown(payment: Payment, operation: Operation) -> str:
    sent = operation.first_sent_at or operation.created_at
    look = f", next look {_time(operation.next_look_at)}" if operation.next_look_at else ""
    called = ", a person was called" if operation.escalated_at is not None else ""
    return (
        f"the outcome of a {_what(operation)} is unknown since {_time(sent)}: {payment.gateway} did not answer and "
        f"money may have moved{look}{called}"
    )


def _waiting(operation: Operation) -> str:
    if operation.status is OperationStatus.SUBMITTED:
        return f"a {_what(operation)} is accepted and waits for the gateway's confirmation"
    if operation.call is CallState.UNSENT:
        again = f", next try {_time(operation.next_look_at)}" if operation.next_look_at and operation.calls else ""
        return f"a {_what(operation)} is reserved and not sent yet{again}"
    return f"a {_what(operation)} is being sent"


def _failed_operation(operation: Operation) -> str:
    failure = code(operation.failure_code)
    return f"a {_what(operation)} failed{f' ({failure})' if failure else ''}"


def _reversed(operation: Operation) -> str:
    failure = code(operation.failure_code)
    return f"a {_what(operation)} had succeeded and was reversed{f' ({failure})' if failure else ''}"


def _unrepaired(operations: Sequence[Operation], status: OperationStatus) -> list[Operation]:
    """Operations of that status after which none of the same kind succeeded."""
    done: dict[OperationKind, datetime] = {}
    for operation in operations:
        if operation.status is OperationStatus.SUCCEEDED:
            done[operation.kind] = max(operation.created_at, done.get(operation.kind, operation.created_at))
    found = [operation for operation in operations if operation.status is status]
    return [o for o in found if o.kind not in done or done[o.kind] < o.created_at]


def _automatic(operations: Sequence[Operation]) -> Iterator[str]:
    """Money that went back because a policy of ours said so."""
    reasons = {
        code(operation.reason): operation
        for operation in operations
        if operation.origin is Origin.POLICY
        and operation.kind in (OperationKind.REFUND, OperationKind.VOID)
        and operation.status in (OperationStatus.SUCCEEDED, OperationStatus.SUBMITTED)
    }
    for reason, operation in reasons.items():
        why = f" ({reason})" if reason else ""
        yield f"the {_VERBS[operation.kind]} was made by policy{why}"


def _about_disputes(disputes: Sequence[Dispute]) -> Iterator[str]:
    for status, words in _DISPUTE_WORDS.items():
        of_status = [dispute for dispute in disputes if dispute.status is status]
        yield from _named(of_status, _dispute, f"disputes of which each {words}")


_DISPUTE_WORDS: Mapping[DisputeStatus, str] = {
    DisputeStatus.OPEN: "is open, and the amount is withheld",
    DisputeStatus.LOST: "was lost",
    DisputeStatus.WON: "was won",
}


def _dispute(dispute: Dispute) -> str:
    reason = code(dispute.reason)
    return f"a dispute over {dispute.amount}{f' ({reason})' if reason else ''} {_DISPUTE_WORDS[dispute.status]}"


# --- attention -----------------------------------------------------------------------------------------------------


def _for_a_person(payment: Payment, late_after: PaymentStatus | None) -> Iterator[str]:
    state = payment.state
    if late_after is not None and payment.status not in ENDED_WITHOUT_MONEY:
        yield f"the money came after the payment had been {late_after}"
    if payment.duplicate_of is not None:
        yield f"it is the second payment of its order, after {payment.duplicate_of}"
    if state.amount_excess:
        excess = _money(payment, state.amount_excess)
        yield f"{excess} more was returned than was captured, a person has to look"
    if state.conflict is not None and payment.status is not PaymentStatus.CONFLICTED:
        yield f"what was returned does not fit ({code(state.conflict) or 'conflict'}), a person has to look"
    if payment.session_unknown and payment.status is not PaymentStatus.CREATED:
        yield "a call that opens its payment page was not answered"


def _case(opened: TimelineEntry) -> str:
    amount = opened.amount
    signed = f" ({'+' if amount.amount_minor > 0 else ''}{amount})" if amount is not None else ""
    return f"reconciliation found {scenario_of(opened)}{signed}, which is not settled"


def _named(found: Sequence[T], sentence: Callable[[T], str], many: str) -> Iterator[str]:
    yield from (sentence(each) for each in found[:MAX_NAMED])
    if len(found) > MAX_NAMED:
        yield f"{len(found) - MAX_NAMED} more {many}"


def _what(operation: Operation) -> str:
    return f"{_VERBS[operation.kind]} of {operation.amount}"


def _money(payment: Payment, amount_minor: int) -> str:
    return str(Money(amount_minor, payment.amount.currency))


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
