"""Orders against payments (design.md §7.3): what disagrees, and what is done about it. Pure; no I/O, no clock.

The order's service decides by itself what becomes of money (``order_service/domain/late_money.py``). The reconciler
acts only where that did not happen: it makes the order know the payment's true state, and has money given back only
where the order knows it, asked several times and gave up.

Each pair of an order and a payment is judged alone, by the table ``RULES``: what the payment is to the order, what
money it has, and what the order knows of it. Only where the order would be canceled for it, its other payments count
too. What one side has forgotten cancels nothing: that is a person's matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.mirror import KnownOrder, KnownOrderPayment, KnownPayment
from services.reconciler.domain.schedule import PaymentStatus

S, A = Scenario, Action


class OrphanPolicy(StrEnum):
    """What becomes of a payment whose order nobody knows (failure RC7)."""

    CASE = "case"
    REFUND = "refund"


class Role(StrEnum):
    """What the payment is to its order."""

    AWAITED = "awaited"
    """The order is open."""
    KEEPER = "keeper"
    """It confirmed the order."""
    BESIDE = "beside"
    """Another payment confirmed the order."""
    LATE = "late"
    """The order was canceled or has expired."""


class MoneyState(StrEnum):
    """What the payment has of the shopper's money."""

    TAKEN = "taken"
    """Captured, or captured in part for good, and some of it still here."""
    LEAVING = "leaving"
    """It was taken, and all that is left of it is on its way back: that may still come to nothing."""
    BACK = "back"
    """It was taken, and all of it has gone back, by refunds or disputes."""
    HELD = "held"
    """Funds are held; a capture or the release is still to come."""
    COMING = "coming"
    """The shopper or the gateway may still pay."""
    NONE = "none"
    """Failed, canceled or expired, or what was captured was taken back by the gateway."""
    UNCLEAR = "unclear"
    """It has ended without money, but a call to the gateway is unanswered."""


class Knowledge(StrEnum):
    """What the order knows of the payment."""

    NOTHING = "nothing"
    OLDER = "older"
    UNDECIDED = "undecided"
    """All of it, and it decided nothing about the money."""
    ACTING = "acting"
    """All of it, and it asked for the money to go back (or was fulfilled by it)."""
    GAVE_UP = "gave_up"
    """All of it: it asked several times, and the money is still here."""


@dataclass(frozen=True, slots=True)
class Verdict:
    scenario: Scenario
    action: Action | None
    """None: a person decides."""
    expected_minor: int | None
    actual_minor: int | None
    reason: str
    """Role, money and knowledge in a word each: what row of the table it was."""
    version: int | None = None
    """Of the payment, where the disagreement is that the order does not know this version."""

    def key(self, order_id: str, payment_id: str) -> str:
        """A later version that the order does not know either is another disagreement, with a command of its own."""
        suffix = f":v{self.version}" if self.version is not None else ""
        return f"{self.scenario.value}:{order_id}:{payment_id}{suffix}"


Combination = tuple[Role, MoneyState, Knowledge]
Row = tuple[Scenario, Action | None]

_UNTOLD = (Knowledge.NOTHING, Knowledge.OLDER)
_TOLD = (Knowledge.UNDECIDED, Knowledge.ACTING, Knowledge.GAVE_UP)


def _rows(role: Role, money: MoneyState, row: Row, *knowledge: Knowledge) -> dict[Combination, Row]:
    return {(role, money, each): row for each in knowledge or Knowledge}


_CONFIRM_STALE: Row = (S.STALE_ORDER, A.CONFIRM_ORDER)

RULES: Mapping[Combination, Row] = {
    # An open order: whatever it was not told, it is told; taken money that it knows and does nothing about, once more.
    **_rows(Role.AWAITED, MoneyState.TAKEN, (S.UNCONFIRMED_ORDER, A.CONFIRM_ORDER), *_UNTOLD, Knowledge.UNDECIDED),
    **_rows(Role.AWAITED, MoneyState.TAKEN, (S.UNCONFIRMED_ORDER, A.REFUND), Knowledge.GAVE_UP),
    **_rows(Role.AWAITED, MoneyState.LEAVING, (S.UNCONFIRMED_ORDER, A.CONFIRM_ORDER), *_UNTOLD),
    **_rows(Role.AWAITED, MoneyState.LEAVING, (S.UNCONFIRMED_ORDER, None), Knowledge.GAVE_UP),
    **_rows(Role.AWAITED, MoneyState.HELD, _CONFIRM_STALE, *_UNTOLD),
    **_rows(Role.AWAITED, MoneyState.BACK, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.AWAITED, MoneyState.COMING, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.AWAITED, MoneyState.NONE, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.AWAITED, MoneyState.UNCLEAR, _CONFIRM_STALE, Knowledge.OLDER),
    # The payment that confirmed the order: nothing fulfilled may stay unpaid, whatever the order knows.
    **_rows(Role.KEEPER, MoneyState.TAKEN, _CONFIRM_STALE, *_UNTOLD),
    **_rows(Role.KEEPER, MoneyState.LEAVING, _CONFIRM_STALE, *_UNTOLD),
    **_rows(Role.KEEPER, MoneyState.BACK, _CONFIRM_STALE, *_UNTOLD),
    **_rows(Role.KEEPER, MoneyState.HELD, (S.UNPAID_ORDER, A.SYNC)),
    **_rows(Role.KEEPER, MoneyState.COMING, (S.UNPAID_ORDER, A.SYNC)),
    **_rows(Role.KEEPER, MoneyState.UNCLEAR, (S.UNPAID_ORDER, A.SYNC)),
    **_rows(Role.KEEPER, MoneyState.NONE, (S.UNPAID_ORDER, A.CANCEL_ORDER)),
    # A second payment: the order gives it back once it knows of it.
    **_rows(Role.BESIDE, MoneyState.TAKEN, (S.DUPLICATE_PAYMENT, A.CONFIRM_ORDER), *_UNTOLD, Knowledge.UNDECIDED),
    **_rows(Role.BESIDE, MoneyState.TAKEN, (S.DUPLICATE_PAYMENT, A.REFUND), Knowledge.GAVE_UP),
    **_rows(Role.BESIDE, MoneyState.LEAVING, (S.DUPLICATE_PAYMENT, A.CONFIRM_ORDER), *_UNTOLD),
    **_rows(Role.BESIDE, MoneyState.LEAVING, (S.DUPLICATE_PAYMENT, None), Knowledge.GAVE_UP),
    **_rows(Role.BESIDE, MoneyState.HELD, (S.DUPLICATE_PAYMENT, A.CONFIRM_ORDER), *_UNTOLD, Knowledge.UNDECIDED),
    **_rows(Role.BESIDE, MoneyState.HELD, (S.DUPLICATE_PAYMENT, A.REFUND), Knowledge.GAVE_UP),
    **_rows(Role.BESIDE, MoneyState.BACK, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.BESIDE, MoneyState.COMING, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.BESIDE, MoneyState.NONE, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.BESIDE, MoneyState.UNCLEAR, _CONFIRM_STALE, Knowledge.OLDER),
    # Money for a closed order: the order fulfils late or gives it back, by its products' policies.
    **_rows(Role.LATE, MoneyState.TAKEN, (S.LATE_PAYMENT, A.CONFIRM_ORDER), *_UNTOLD, Knowledge.UNDECIDED),
    **_rows(Role.LATE, MoneyState.TAKEN, (S.LATE_PAYMENT, A.REFUND), Knowledge.GAVE_UP),
    **_rows(Role.LATE, MoneyState.LEAVING, (S.LATE_PAYMENT, A.CONFIRM_ORDER), *_UNTOLD),
    **_rows(Role.LATE, MoneyState.LEAVING, (S.LATE_PAYMENT, None), Knowledge.GAVE_UP),
    **_rows(Role.LATE, MoneyState.HELD, (S.LATE_PAYMENT, A.CONFIRM_ORDER), *_UNTOLD),
    **_rows(Role.LATE, MoneyState.HELD, (S.LATE_PAYMENT, A.REFUND), Knowledge.GAVE_UP),
    **_rows(Role.LATE, MoneyState.BACK, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.LATE, MoneyState.COMING, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.LATE, MoneyState.NONE, _CONFIRM_STALE, Knowledge.OLDER),
    **_rows(Role.LATE, MoneyState.UNCLEAR, _CONFIRM_STALE, Knowledge.OLDER),
}
"""What is absent is in step: both failed, paid and succeeded, money on its way back, a page that is still open, held
funds of a closed order that waits for their capture."""

ENDED = frozenset({PaymentStatus.FAILED, PaymentStatus.CANCELED, PaymentStatus.EXPIRED})
COMING = frozenset({PaymentStatus.CREATED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.PROCESSING})

GAVE_UP = "refund_failed"
"""order_service's word for: asked several times, and the money is still there."""


def decide(
    order: KnownOrder | None,
    payment: KnownPayment | None,
    *,
    payment_id: str,
    settled_before: datetime | None,
    others: Sequence[KnownPayment] = (),
    orphan_policy: OrphanPolicy = OrphanPolicy.CASE,
) -> Verdict | None:
    """None: in step, or changed since ``settled_before``, so that the event which says it may still be on its way.

    ``settled_before`` None judges whatever its age. ``payment_id`` names the payment where payment_service knows none.
    ``others``: the order's other payments, as payment_service knows them.
    """
    changed_at = max((side.updated_at for side in (order, payment) if side is not None), default=None)
    if changed_at is None or (settled_before is not None and changed_at > settled_before):
        return None
    if order is None:
        return _orphan(payment, orphan_policy) if payment is not None else None
    if payment is None:
        return _unless_paid_otherwise(_without_payment(order, payment_id), others)
    known = known_to(order, payment_id)
    if is_behind(order, payment):
        return _rolled_back(payment, known)
    if _mismatches(payment, order):
        return _mismatch(payment, order, known)
    return _unless_paid_otherwise(_by_the_table(payment, order, known), others)


def is_behind(order: KnownOrder | None, payment: KnownPayment | None) -> bool:
    """Whether the order knows a newer version than our copy of the payment is.

    At rest, that is no pull that was a moment too early: payment_service has forgotten what it once said (PG13).
    """
    known = known_to(order, payment.payment_id) if order is not None and payment is not None else None
    return known is not None and payment is not None and known.version > payment.version


def known_to(order: KnownOrder, payment_id: str) -> KnownOrderPayment | None:
    return next((each for each in order.payments if each.payment_id == payment_id), None)


def money_of(payment: KnownPayment) -> MoneyState:
    standing = payment.standing
    is_for_good = 0 < standing.amount_captured == standing.amount_authorized
    is_captured = payment.status is PaymentStatus.CAPTURED and standing.amount_captured > 0
    if is_captured or (payment.status is PaymentStatus.PARTIALLY_CAPTURED and is_for_good):
        return _state_of_taken(payment)
    if payment.status in (PaymentStatus.AUTHORIZED, PaymentStatus.PARTIALLY_CAPTURED):
        return MoneyState.HELD
    if payment.status in COMING:
        return MoneyState.COMING
    if payment.status is PaymentStatus.CONFLICTED or standing.outcome_unknown:
        return MoneyState.UNCLEAR
    return MoneyState.NONE


def _state_of_taken(payment: KnownPayment) -> MoneyState:
    standing = payment.standing
    remaining = standing.amount_captured - standing.amount_refunded - standing.amount_disputed
    if remaining <= 0:
        return MoneyState.BACK
    return MoneyState.TAKEN if remaining > standing.amount_refund_pending else MoneyState.LEAVING


def role_of(payment_id: str, order: KnownOrder) -> Role:
    if order.status == "open":
        return Role.AWAITED
    if order.status != "confirmed":
        return Role.LATE
    return Role.KEEPER if order.confirmed_by == payment_id else Role.BESIDE


def knowledge_of(payment: KnownPayment, known: KnownOrderPayment | None) -> Knowledge:
    if known is None:
        return Knowledge.NOTHING
    if known.version < payment.version:
        return Knowledge.OLDER
    if known.resolution is None:
        return Knowledge.UNDECIDED
    return Knowledge.GAVE_UP if known.resolution == GAVE_UP else Knowledge.ACTING


def _by_the_table(payment: KnownPayment, order: KnownOrder, known: KnownOrderPayment | None) -> Verdict | None:
    role, money = role_of(payment.payment_id, order), money_of(payment)
    knowledge = knowledge_of(payment, known)
    row = RULES.get((role, money, knowledge))
    if row is None:
        return None
    scenario, action = row
    is_untold = action is Action.CONFIRM_ORDER and knowledge in _UNTOLD
    return Verdict(
        scenario,
        action,
        _expected(scenario, order, known),
        _has(payment),
        f"{role.value}, {money.value}, {knowledge.value}",
        version=payment.version if is_untold else None,
    )


def _expected(scenario: Scenario, order: KnownOrder, known: KnownOrderPayment | None) -> int:
    if scenario is Scenario.UNPAID_ORDER:
        return order.total.amount_minor
    if scenario is Scenario.STALE_ORDER and known is not None:
        return known.amount_captured - known.amount_refunded
    return 0


def _has(payment: KnownPayment) -> int:
    return payment.standing.amount_captured - payment.standing.amount_refunded


def _without_payment(order: KnownOrder, payment_id: str) -> Verdict | None:
    known = known_to(order, payment_id)
    if order.status == "confirmed" and order.confirmed_by == payment_id:
        if order.payment_status == "refunded":
            return None  # it went back in full: nothing stays unpaid
        total = order.total.amount_minor
        if known is not None and known.version > 0:  # only payment_service itself can have told that
            return Verdict(S.ORDER_WITHOUT_PAYMENT, None, total, 0, "keeper, forgotten")
        return Verdict(S.ORDER_WITHOUT_PAYMENT, A.CANCEL_ORDER, total, 0, "keeper, absent")
    if known is None or known.amount_captured <= known.amount_refunded:
        return None
    believed = known.amount_captured - known.amount_refunded
    return Verdict(S.ORDER_WITHOUT_PAYMENT, None, believed, 0, f"{role_of(payment_id, order).value}, absent")


def _unless_paid_otherwise(verdict: Verdict | None, others: Sequence[KnownPayment]) -> Verdict | None:
    """Canceling gives all of the order's money back, also that of a payment which pays for it: a person decides."""
    if verdict is None or verdict.action is not A.CANCEL_ORDER:
        return verdict
    has_money = any(money_of(each) in (MoneyState.TAKEN, MoneyState.HELD) for each in others)
    return replace(verdict, action=None, reason=f"{verdict.reason}, paid otherwise") if has_money else verdict


def _rolled_back(payment: KnownPayment, known: KnownOrderPayment | None) -> Verdict:
    assert known is not None, "the order knows more of it"
    believed = known.amount_captured - known.amount_refunded
    reason = f"order knows version {known.version}, payment_service {payment.version}"
    return Verdict(S.ROLLED_BACK, None, believed, _has(payment), reason, version=known.version)


def _orphan(payment: KnownPayment, policy: OrphanPolicy) -> Verdict | None:
    money = money_of(payment)
    is_conflicted = payment.status is PaymentStatus.CONFLICTED
    if money not in (MoneyState.TAKEN, MoneyState.LEAVING, MoneyState.HELD) and not is_conflicted:
        return None
    is_refundable = money is not MoneyState.LEAVING and not is_conflicted
    action = A.REFUND if policy is OrphanPolicy.REFUND and is_refundable else None
    return Verdict(S.ORPHAN_PAYMENT, action, 0, _has(payment), f"orphan, {money.value}")


def _mismatches(payment: KnownPayment, order: KnownOrder) -> bool:
    """Not the order's amount or currency, or the gateway's account, amount or currency were not what was asked for."""
    if payment.status is PaymentStatus.CONFLICTED or payment.amount_excess > 0:
        return True
    has_money = money_of(payment) in (MoneyState.TAKEN, MoneyState.LEAVING, MoneyState.HELD)
    is_too_much = payment.standing.amount_captured > order.total.amount_minor
    return has_money and (payment.conflict is not None or payment.amount != order.total or is_too_much)


def _mismatch(payment: KnownPayment, order: KnownOrder, known: KnownOrderPayment | None) -> Verdict:
    is_untold = knowledge_of(payment, known) in _UNTOLD
    is_comparable = payment.amount.currency == order.total.currency
    return Verdict(
        S.MISMATCHED_PAYMENT,
        A.CONFIRM_ORDER if is_untold else None,
        order.total.amount_minor if is_comparable else None,
        max(payment.standing.amount_captured, payment.amount.amount_minor) if is_comparable else None,
        f"{payment.conflict or 'differs'}, {'untold' if is_untold else 'told'}",
    )
