"""The reducer: a payment's state as a pure function of the set of its facts. Status is derived here and nowhere else.

Facts are a set: the same ones in any order, any number of times, give the same state (failures PY9, W3). Precedence, in
place of an order of arrival:

1. An amount or currency that is not ours makes the payment conflicted, never paid (failures PY10, PY11).
2. Money taken wins over everything else, however late it is learnt (failure PY8).
3. Funds held count until the object that holds them is canceled or expired.
4. Without money: canceled, failed, expired; then processing; then an open session.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.payment_service.domain.models import (
    ENDED_WITHOUT_MONEY,
    WITH_MONEY,
    CaptureMode,
    Fact,
    FactKind,
    Observation,
    PaymentState,
    PaymentStatus,
    Terms,
)

_MONEY_KINDS = frozenset({FactKind.AUTHORIZED, FactKind.CAPTURED})

_WITHOUT_MONEY: tuple[tuple[FactKind, PaymentStatus], ...] = (
    (FactKind.CANCELED, PaymentStatus.CANCELED),  # ours or the shopper's wish explains a failure seen beside it
    (FactKind.FAILED, PaymentStatus.FAILED),
    (FactKind.EXPIRED, PaymentStatus.EXPIRED),
    (FactKind.PROCESSING, PaymentStatus.PROCESSING),
    (FactKind.SESSION_OPENED, PaymentStatus.REQUIRES_ACTION),
)


def reduce_facts(terms: Terms, facts: Iterable[Fact]) -> PaymentState:
    """The state that these facts amount to. Total over every set of facts; never raises."""
    observations = frozenset(fact.observation for fact in facts)
    money = [observation for observation in observations if observation.kind in _MONEY_KINDS]
    if any(observation.amount is None or observation.amount.currency != terms.amount.currency for observation in money):
        return _conflicted(terms, money, "currency_mismatch")
    captured = _total(money, FactKind.CAPTURED)
    held = max(captured, _held(observations))
    if captured or held:
        return _with_money(terms, money, captured=captured, held=held)
    if _claims_money(observations):  # a success of nothing is not a success (failure PY10)
        return _conflicted(terms, money, "amount_too_low")
    kinds = {observation.kind for observation in observations}
    status = next((status for kind, status in _WITHOUT_MONEY if kind in kinds), PaymentStatus.CREATED)
    return PaymentState(status=status, failure_code=_failure_code(observations))


def _with_money(terms: Terms, money: list[Observation], *, captured: int, held: int) -> PaymentState:
    expected, tolerance = terms.amount.amount_minor, terms.tolerance_minor
    if max(captured, held) > expected + tolerance:
        return _conflicted(terms, money, "amount_too_high")
    if captured >= expected - tolerance and captured > 0:
        return PaymentState(PaymentStatus.CAPTURED, amount_authorized=held, amount_captured=captured)
    if captured and terms.capture is CaptureMode.AUTOMATIC:
        return _conflicted(terms, money, "amount_too_low")
    if captured:
        return PaymentState(PaymentStatus.PARTIALLY_CAPTURED, amount_authorized=held, amount_captured=captured)
    if held < expected - tolerance:
        return _conflicted(terms, money, "amount_too_low")
    return PaymentState(PaymentStatus.AUTHORIZED, amount_authorized=held)


def _conflicted(terms: Terms, money: list[Observation], why: str) -> PaymentState:
    # Totals say what the gateway holds of our currency; a foreign currency cannot be added up here.
    ours = [o for o in money if o.amount is not None and o.amount.currency == terms.amount.currency]
    captured = _total(ours, FactKind.CAPTURED)
    return PaymentState(
        PaymentStatus.CONFLICTED,
        amount_authorized=max(captured, _total(ours, FactKind.AUTHORIZED)),
        amount_captured=captured,
        conflict=why,
    )


def _total(observations: Iterable[Observation], kind: FactKind) -> int:
    """Amounts are cumulative per gateway object, so the largest of each object counts, once."""
    largest: dict[str, int] = {}
    for observation in observations:
        if observation.kind is kind and observation.amount is not None:
            reference = observation.object_reference
            largest[reference] = max(largest.get(reference, 0), observation.amount.amount_minor)
    return sum(largest.values())


def _held(observations: frozenset[Observation]) -> int:
    """Authorized funds of the objects that have not been released."""
    released = _released(observations)
    return _total((o for o in observations if o.object_reference not in released), FactKind.AUTHORIZED)


def _released(observations: frozenset[Observation]) -> frozenset[str]:
    return frozenset(o.object_reference for o in observations if o.kind in (FactKind.CANCELED, FactKind.EXPIRED))


def _claims_money(observations: frozenset[Observation]) -> bool:
    """Whether the gateway says that it took money, or holds some, however little."""
    released = _released(observations)
    return any(
        o.kind is FactKind.CAPTURED or (o.kind is FactKind.AUTHORIZED and o.object_reference not in released)
        for o in observations
    )


def _failure_code(observations: frozenset[Observation]) -> str | None:
    """Why it failed, as far as the gateway said; the smallest code, so that the answer does not depend on any order."""
    codes = [o.reason for o in observations if o.kind in (FactKind.FAILED, FactKind.DECLINED) and o.reason]
    return min(codes, default=None)


def is_late_success(before: PaymentStatus, after: PaymentStatus) -> bool:
    """Money after the payment had been given up on."""
    return before in ENDED_WITHOUT_MONEY and after in WITH_MONEY
