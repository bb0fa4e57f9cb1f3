"""What is a disagreement between settlement files and our books: pure rules over what the database has narrowed.

Amounts are minor units with the lines' signs: what comes to us is positive. Each fault is one finding.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, Literal

from services.reconciler.domain.cases import Action, CaseKind, Finding, Scenario, Subject
from services.reconciler.domain.mirror import MovementKind
from services.reconciler.domain.settlement import FileStatus, LineKind, SettlementFile, StatedTotal

DEFAULT_DELAY_DAYS: Mapping[str, int] = {
    "stripe": 7,  # payouts two to seven days after the charge; the report is ready the next day
    "paypal": 3,  # daily report of the day before, by noon in the report's zone
    "razorpay": 5,  # two working days, over a weekend and a holiday
    "payu": 5,
    "billdesk": 5,
    "ccavenue": 5,
    "phonepe": 5,
    "paytm": 5,
    "myfatoorah": 7,  # the fact sheet's example is deposited after four days
    "tabby": 10,  # weekly statements
    "tamara": 10,
}
ANY_GATEWAY_DELAY_DAYS = 7
MAX_FINDINGS_PER_SCENARIO = 500
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
class FeeRule:
    """What a gateway takes of a sale: a part, something fixed, and tax on both. A file that names no tax tells one
    number for both."""

    basis_points: int = 0
    fixed_minor: Mapping[str, int] = field(default_factory=dict)
    """Per currency."""
    tax_percent: int = 0
    tolerance_minor: int = 1
    """Of fee and tax each: gateways round by line or by batch (failure RC5)."""
    rounding: Literal["half_up", "down"] = "half_up"

    def expected(self, gross_minor: int, currency: str) -> tuple[int, int]:
        """Fee and tax on it."""
        half, half_percent = (5_000, 50) if self.rounding == "half_up" else (0, 0)
        fee = (gross_minor * self.basis_points + half) // 10_000 + self.fixed_minor.get(currency, 0)
        return fee, (fee * self.tax_percent + half_percent) // 100

    def allows(self, gross_minor: int, currency: str, *, fee_minor: int, tax_minor: int) -> bool:
        fee, tax = self.expected(gross_minor, currency)
        if tax_minor == 0:
            return abs(fee_minor - fee - tax) <= self.tolerance_minor
        return abs(fee_minor - fee) <= self.tolerance_minor and abs(tax_minor - tax) <= self.tolerance_minor


@dataclass(frozen=True, slots=True)
class SettlementRules:
    """Tolerances and patience, all explicit."""

    delay_days: Mapping[str, int] = field(default_factory=dict)
    """Exceptions from DEFAULT_DELAY_DAYS."""
    fees: Mapping[str, FeeRule] = field(default_factory=dict)
    """Per gateway; the fees of one without a rule are not checked."""
    payout_rounding_minor: int = 0
    """A payout may differ by so much from its lines; what differs is booked as adjustment."""
    payout_days: int = 7
    """Within so many days somebody has to say what a payout paid."""
    lookback_days: int = 90
    """What was taken longer ago is not looked for any more."""

    def delay(self, gateway: str) -> timedelta:
        default = DEFAULT_DELAY_DAYS.get(gateway, ANY_GATEWAY_DELAY_DAYS)
        return timedelta(days=self.delay_days.get(gateway, default))


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


@dataclass(frozen=True, slots=True)
class Due:
    """Movements of this time must have been settled: older than the delay, and covered by a file that was read."""

    since: datetime
    until: datetime | None
    """None: no file covers anything yet."""

    def has(self, at: datetime) -> bool:
        return self.until is not None and self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class Coverage:
    """The times of the earliest and the latest line of an account's files. None: there is none."""

    since: datetime | None = None
    until: datetime | None = None

    def with_file(self, since: datetime | None, until: datetime | None) -> Coverage:
        return Coverage(_of(min, self.since, since), _of(max, self.until, until))


def _of(choose: Callable[..., datetime], *times: datetime | None) -> datetime | None:
    known = [at for at in times if at is not None]
    return choose(known) if known else None


def due(rules: SettlementRules, gateway: str, covered: Coverage, *, now: datetime) -> Due:
    """What moved before the day of the first line that there is may have been in a file that nobody sent in."""
    oldest = now - timedelta(days=rules.lookback_days)
    until = None if covered.until is None else min(covered.until, now - rules.delay(gateway))
    if covered.since is None:
        return Due(oldest, until)
    first_day = covered.since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Due(max(oldest, first_day), until)


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
        key=f"{scenario}:{books.payment_id}:{_short(first.reference or f'#{first.identity:x}')}",
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
        key=f"{scenario}:{books.payment_id}:{movement.kind}:{_short(movement.reference)}",
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


@dataclass(frozen=True, slots=True)
class LooseLine:
    """A line about a payment that we do not know, or one whose fee is not what was agreed."""

    gateway: str
    account: str
    file_id: str
    line_number: int
    kind: str
    currency: str
    gross_minor: int
    fee_minor: int
    tax_minor: int
    reference: str | None
    our_reference: str | None
    occurred_at: datetime | None
    identity: int
    occurrence: int
    payment_id: str | None = None

    @property
    def name(self) -> str:
        """Of its content: the same line in another file has the same name."""
        return f"{self.gateway}:{self.account}:{self.identity % 2**64:016x}:{self.occurrence}"

    @property
    def subject(self) -> Subject:
        return Subject(
            gateway=self.gateway,
            account=self.account,
            payment_id=self.payment_id,
            file_id=self.file_id,
            line_number=self.line_number,
        )


def unknown_line(line: LooseLine, candidates: Sequence[Mapping[str, Any]]) -> Finding:
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=Scenario.UNKNOWN_LINE,
        key=f"{Scenario.UNKNOWN_LINE}:{line.name}",
        subject=line.subject,
        currency=line.currency,
        expected_minor=0,
        actual_minor=line.gross_minor,
        evidence={
            "kind": line.kind,
            "reference": line.reference,
            "our_reference": line.our_reference,
            "occurred_at": line.occurred_at.isoformat() if line.occurred_at else None,
            "candidates": list(candidates),
        },
    )


def fee_differs(line: LooseLine, rule: FeeRule) -> Finding | None:
    """Fee and tax of a sale against what was agreed. What it costs us more is negative."""
    if line.kind != LineKind.SALE or line.gross_minor < 0:
        return None
    if rule.allows(line.gross_minor, line.currency, fee_minor=line.fee_minor, tax_minor=line.tax_minor):
        return None
    fee, tax = rule.expected(line.gross_minor, line.currency)
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=Scenario.FEE_DIFFERS,
        key=f"{Scenario.FEE_DIFFERS}:{line.name}",
        subject=line.subject,
        currency=line.currency,
        expected_minor=-(fee + tax),
        actual_minor=-(line.fee_minor + line.tax_minor),
        evidence={
            "reference": line.reference,
            "gross_minor": line.gross_minor,
            "fee_minor": {"agreed": fee, "taken": line.fee_minor},
            "tax_minor": {"agreed": tax, "taken": line.tax_minor},
        },
    )


@dataclass(frozen=True, slots=True)
class Payout:
    """A payout: what its lines add up to, and what was said to be paid."""

    gateway: str
    account: str
    payout_reference: str
    currency: str
    lines_minor: int
    lines: int
    stated_minor: int | None
    first_seen_at: datetime
    paid_at: datetime | None = None
    bank_reference: str | None = None

    @property
    def unexplained_minor(self) -> int | None:
        return None if self.stated_minor is None else self.stated_minor - self.lines_minor


def judge_payout(payout: Payout, rules: SettlementRules, *, is_stated_usually: bool, now: datetime) -> Finding | None:
    """``is_stated_usually``: this gateway's files, or statements, say what payouts paid."""
    is_late = now - payout.first_seen_at >= timedelta(days=rules.payout_days)
    if payout.unexplained_minor is None:
        scenario = Scenario.PAYOUT_MISSING if is_late and is_stated_usually else None
    elif payout.lines == 0 and not is_late:
        scenario = None  # the bank was quicker than the gateway's file
    else:
        scenario = Scenario.PAYOUT_DIFFERS if abs(payout.unexplained_minor) > rules.payout_rounding_minor else None
    if scenario is None:
        return None
    reference = _short(payout.payout_reference)
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=scenario,
        key=f"{scenario}:{payout.gateway}:{payout.account}:{reference}:{payout.currency}",
        subject=Subject(gateway=payout.gateway, account=payout.account, payout_reference=payout.payout_reference),
        currency=payout.currency,
        expected_minor=payout.lines_minor,
        actual_minor=payout.stated_minor,
        evidence={
            "lines": payout.lines,
            "bank_reference": payout.bank_reference,
            "paid_at": payout.paid_at.isoformat() if payout.paid_at else None,
        },
    )


def rounding_minor(payout: Payout, rules: SettlementRules) -> int:
    """What the payout differs by within its tolerance, as it is booked: positive is taken from us."""
    unexplained = payout.unexplained_minor
    if unexplained is None or payout.lines == 0 or abs(unexplained) > rules.payout_rounding_minor:
        return 0
    return -unexplained


def findings_of_file(file: SettlementFile, bad_rows: int, totals: Sequence[StatedTotal]) -> list[Finding]:
    """One at most: where rows could not be read, the file's totals cannot be checked, and say nothing more."""
    differing = sorted(
        (total for total in totals if total.stated != total.counted), key=lambda each: (each.name, each.currency or "")
    )
    evidence = [total._asdict() for total in differing[:20]]
    if bad_rows:
        return [_of_file(Scenario.BAD_ROWS, file, {"bad_rows": bad_rows, "totals": evidence})]
    if not differing:
        return []
    first = differing[0]
    finding = _of_file(Scenario.FILE_TOTALS_DIFFER, file, {"name": first.name, "totals": evidence})
    if first.currency is None:  # a count of rows is no money
        return [finding]
    return [replace(finding, currency=first.currency, expected_minor=first.counted, actual_minor=first.stated)]


def unread_file(file: SettlementFile) -> Finding:
    """Until the same content is sent again and read, or a file of the same name is, or a person accepts it."""
    scenario = Scenario.FILE_INCOMPLETE if file.status is FileStatus.INCOMPLETE else Scenario.FILE_REFUSED
    return _of_file(scenario, file, {"problem": file.problem, "detail": file.problem_detail})


def name_of_file(file: SettlementFile) -> str:
    """Of its content, whatever it was called and whenever it came."""
    return f"{file.gateway}:{file.account}:{file.content_sha256.hex()[:32]}"


def _of_file(scenario: Scenario, file: SettlementFile, evidence: Mapping[str, Any]) -> Finding:
    subject = Subject(gateway=file.gateway, account=file.account, file_id=file.file_id)
    return Finding(
        CaseKind.SETTLEMENT,
        scenario,
        f"{scenario}:{name_of_file(file)}",
        subject,
        evidence={"file": file.name, **evidence},
    )


class Limited:
    """At most so many findings of a scenario, the first by their keys, and one that counts the rest.

    Give findings in any order: the same ones come out, in memory for the limit.
    """

    def __init__(
        self,
        scope: Subject,
        name: str,
        *,
        always: Set[str] = frozenset(),
        counts_always: bool = False,
        limit: int = MAX_FINDINGS_PER_SCENARIO,
    ) -> None:
        """``always``: keys of open cases; dropping one of these findings would close a case that is not settled.

        ``counts_always``: they use up the limit, so that looking again and again does not open more and more cases.
        """
        self._scope = scope
        self._name = name
        self._limit = limit
        self._always = always
        self._counts_always = counts_always
        self._found_again: dict[str, Finding] = {}
        self._kept: dict[Scenario, dict[str, Finding]] = {}
        self._rest: Counter[Scenario] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if finding.key in self._always:
                self._found_again[finding.key] = finding
                continue
            kept = self._kept.setdefault(finding.scenario, {})
            kept[finding.key] = finding
            if len(kept) > 2 * self._limit:
                self._trim(finding.scenario, self._limit)

    def count_rest(self, scenario: Scenario, count: int) -> None:
        """Of those that were not even read."""
        self._rest[scenario] += count

    def findings(self) -> Iterator[Finding]:
        yield from (finding for _, finding in sorted(self._found_again.items()))
        used = Counter(finding.scenario for finding in self._found_again.values() if self._counts_always)
        for scenario in sorted(self._kept.keys() | self._rest.keys()):
            self._trim(scenario, self._limit - used[scenario])
            yield from (finding for _, finding in sorted(self._kept.get(scenario, {}).items()))
            if self._rest[scenario]:
                yield self._summary(scenario)

    def _trim(self, scenario: Scenario, limit: int) -> None:
        kept = self._kept.get(scenario, {})
        for key in sorted(kept)[max(limit, 0) :]:
            del kept[key]
            self._rest[scenario] += 1

    def _summary(self, scenario: Scenario) -> Finding:
        return Finding(
            kind=CaseKind.SETTLEMENT,
            scenario=scenario,
            key=f"{scenario}:rest:{self._name}",
            subject=self._scope,
            evidence={"summary": True, "more": self._rest[scenario]},
        )


def keys_of(findings: Collection[Finding]) -> str:
    """A digest of what was found, in an order of its contents."""
    content = "\n".join(
        f"{finding.key} {finding.currency} {finding.expected_minor} {finding.actual_minor}"
        for finding in sorted(findings, key=lambda finding: finding.key)
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _short(reference: str) -> str:
    """Keys are short; a long reference is named by its digest."""
    return reference if len(reference) <= 60 else hashlib.sha256(reference.encode()).hexdigest()[:32]
