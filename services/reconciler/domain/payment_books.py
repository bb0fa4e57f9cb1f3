"""One payment's books against every line about it: what disagrees, as a pure function of both sets.

Amounts are minor units with the lines' signs: what comes to us is positive. Each fault is one finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations
from typing import Any

from services.reconciler.domain.cases import Action, CaseKind, Finding, Scenario, Subject, key_part
from services.reconciler.domain.mirror import MovementKind
from services.reconciler.domain.settlement_rules import Due

MOST_REFUNDS_COMBINED = 8

_SIGN = {MovementKind.SALE: 1, MovementKind.REFUND: -1, MovementKind.CHARGEBACK: -1}

_UNKNOWN = {
    MovementKind.SALE: Scenario.UNKNOWN_LINE,
    MovementKind.REFUND: Scenario.UNKNOWN_REFUND,
    MovementKind.CHARGEBACK: Scenario.UNKNOWN_CHARGEBACK,
}

OF_A_PAYMENT = (
    Scenario.UNKNOWN_LINE,
    Scenario.UNKNOWN_REFUND,
    Scenario.UNKNOWN_CHARGEBACK,
    Scenario.AMOUNT_DIFFERS,
    Scenario.CURRENCY_DIFFERS,
    Scenario.SETTLED_TWICE,
    Scenario.REFUND_NETTED,
    Scenario.NOT_SETTLED,
)
"""What judging a payment's books anew finds again, if it is still there."""


@dataclass(frozen=True, slots=True)
class BookMovement:
    """What moved, by our books. ``amount_minor`` is positive."""

    kind: MovementKind
    reference: str
    amount_minor: int
    currency: str
    occurred_at: datetime
    is_withheld: bool = False
    """An open dispute: the gateway may hold its money back, or give it back, or leave it with us until the end."""


@dataclass(frozen=True, slots=True)
class BookLine:
    """A line of any file that counts (told by no earlier file), matched with the payment."""

    file_id: str
    line_number: int
    kind: str
    movement_kind: MovementKind
    currency: str
    amount_minor: int
    """As the shopper saw it where the file says so, else gross; signed."""
    reference: str | None
    movement_reference: str | None
    identity: int
    occurrence: int


@dataclass(frozen=True, slots=True)
class PaymentBooks:
    """One payment: what our books say moved, and every line about it."""

    payment_id: str
    order_id: str
    gateway: str
    account: str
    currency: str
    movements: tuple[BookMovement, ...]
    lines: tuple[BookLine, ...]


def judge_payment(books: PaymentBooks, due: Due) -> list[Finding]:
    """Everything that disagrees about one payment. Depends on the sets of movements and lines, not on their order."""
    books = _without_what_adds_up(books)
    of_movement: dict[tuple[MovementKind, str], list[BookLine]] = {}
    loose: dict[tuple[MovementKind, str], list[BookLine]] = {}
    known = {(movement.kind, movement.reference) for movement in books.movements}
    for line in sorted(books.lines, key=lambda line: (line.identity, line.occurrence, line.file_id, line.line_number)):
        where = (line.movement_kind, line.movement_reference or "")
        if where in known:
            of_movement.setdefault(where, []).append(line)
        else:
            loose.setdefault((line.movement_kind, line.reference or f"#{line.identity:x}"), []).append(line)
    movements = sorted(books.movements, key=lambda movement: (movement.kind, movement.reference))
    unsettled = [movement for movement in movements if (movement.kind, movement.reference) not in of_movement]
    findings: list[Finding] = []
    netted: set[str] = set()
    for movement in movements:
        lines = of_movement.get((movement.kind, movement.reference))
        if lines:
            free = [candidate for candidate in unsettled if candidate.reference not in netted]
            finding, refunds = _judge_settled(books, movement, lines, free)
            findings += [finding] if finding else []
            netted.update(refunds)
    for movement in unsettled:
        is_explained = movement.is_withheld or (movement.kind is MovementKind.REFUND and movement.reference in netted)
        if not is_explained and due.has(movement.occurred_at):
            findings.append(_finding(Scenario.NOT_SETTLED, books, movement, 0, []))
    if _comes_to_nothing(line for lines in loose.values() for line in lines):
        return findings
    findings += [finding for lines in loose.values() if (finding := _judge_loose(books, lines))]
    return findings


def _without_what_adds_up(books: PaymentBooks) -> PaymentBooks:
    """Without what is explained as a whole: several captures in other parts than ours, or in one, are one sum.

    Of each kind, the lines that name none of our movements against the movements that no line names.
    """
    known = {(movement.kind, movement.reference) for movement in books.movements}
    named = {(line.movement_kind, line.reference) for line in books.lines} & known
    lines = [line for line in books.lines if (line.movement_kind, line.reference) not in known]
    for kind in {line.movement_kind for line in lines}:
        moved = [each for each in books.movements if each.kind is kind and (kind, each.reference) not in named]
        told = [line for line in lines if line.movement_kind is kind]
        expected = _sums((each.currency, _SIGN[kind] * each.amount_minor) for each in moved)
        if expected and expected == _sums((line.currency, line.amount_minor) for line in told):
            books = replace(
                books,
                movements=tuple(each for each in books.movements if each not in moved),
                lines=tuple(line for line in books.lines if line not in told),
            )
    return books


def _comes_to_nothing(lines: Iterable[BookLine]) -> bool:
    """What was given and taken back at the gateway, under whatever names: here it is as if it had never been."""
    return not any(_sums((line.currency, line.amount_minor) for line in lines).values())


def _sums(amounts: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for currency, amount in amounts:
        found[currency] = found.get(currency, 0) + amount
    return found


def _judge_settled(
    books: PaymentBooks, movement: BookMovement, lines: Sequence[BookLine], unsettled: Sequence[BookMovement]
) -> tuple[Finding | None, tuple[str, ...]]:
    """The finding, and the refunds that it explains."""
    if any(line.currency != movement.currency for line in lines):
        return _finding(Scenario.CURRENCY_DIFFERS, books, movement, None, lines), ()
    expected = _SIGN[movement.kind] * movement.amount_minor
    actual = sum(line.amount_minor for line in lines)
    if actual == expected or (movement.is_withheld and actual == 0):
        return None, ()
    if abs(actual) > abs(expected) and any(line.amount_minor == expected for line in lines):
        return _finding(Scenario.SETTLED_TWICE, books, movement, actual, lines), ()
    if movement.kind is MovementKind.SALE:
        netted = _netted(expected - actual, [refund for refund in unsettled if refund.kind is MovementKind.REFUND])
        if netted:
            evidence = {"netted_refunds": [{"reference": m.reference, "amount_minor": m.amount_minor} for m in netted]}
            finding = _finding(Scenario.REFUND_NETTED, books, movement, actual, lines, evidence)
            return finding, tuple(refund.reference for refund in netted)
    return _finding(Scenario.AMOUNT_DIFFERS, books, movement, actual, lines), ()


def _netted(missing: int, refunds: Sequence[BookMovement]) -> tuple[BookMovement, ...]:
    """The refunds that are just what is missing: all of them together, or else the fewest that are."""
    if missing <= 0 or not refunds:
        return ()
    if sum(refund.amount_minor for refund in refunds) == missing:
        return tuple(refunds)
    for count in range(1, min(len(refunds), MOST_REFUNDS_COMBINED)):
        for chosen in combinations(refunds[:MOST_REFUNDS_COMBINED], count):
            if sum(refund.amount_minor for refund in chosen) == missing:
                return chosen
    return ()


def _judge_loose(books: PaymentBooks, lines: Sequence[BookLine]) -> Finding | None:
    """Lines of one reference that are no movement of ours: the gateway is asked, which tells us what we missed."""
    actual, first = sum(line.amount_minor for line in lines), lines[0]
    if actual == 0:
        return None  # a refund and its reversal: nothing is left of it, here as there
    scenario = _UNKNOWN[first.movement_kind]
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=scenario,
        key=f"{scenario}:{books.payment_id}:{key_part(first.reference or f'#{first.identity:x}')}",
        subject=_subject(books, lines),
        currency=first.currency,
        expected_minor=0,
        actual_minor=actual,
        action=Action.SYNC,
        evidence={"reference": first.reference, "lines": _shown(lines)},
    )


def _finding(
    scenario: Scenario,
    books: PaymentBooks,
    movement: BookMovement,
    actual: int | None,
    lines: Sequence[BookLine],
    evidence: Mapping[str, Any] | None = None,
) -> Finding:
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=scenario,
        key=f"{scenario}:{books.payment_id}:{movement.kind}:{key_part(movement.reference)}",
        subject=_subject(books, lines),
        currency=movement.currency,
        expected_minor=_SIGN[movement.kind] * movement.amount_minor,
        actual_minor=actual,
        evidence={
            "movement": {
                "kind": movement.kind.value,
                "reference": movement.reference,
                "occurred_at": movement.occurred_at.isoformat(),
            },
            "lines": _shown(lines),
            **(evidence or {}),
        },
    )


def _subject(books: PaymentBooks, lines: Sequence[BookLine]) -> Subject:
    last = max(lines, key=lambda line: (line.file_id, line.line_number), default=None)
    return Subject(
        gateway=books.gateway,
        account=books.account,
        order_id=books.order_id,
        payment_id=books.payment_id,
        file_id=last.file_id if last else None,
        line_number=last.line_number if last else None,
    )


def _shown(lines: Sequence[BookLine]) -> list[dict[str, Any]]:
    return [
        {
            "file_id": line.file_id,
            "line_number": line.line_number,
            "kind": line.kind,
            "amount_minor": line.amount_minor,
            "currency": line.currency,
        }
        for line in lines[:20]
    ]
