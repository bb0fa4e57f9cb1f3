"""Faults in what a gateway writes about its books: each is one disagreement with them, and is told with its size.

A line is hit by at most one fault. What is paid out follows the lines as they are written, except for ``payout_off``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.bookkeeping import in_order
from services.gateway_sandbox.gateways.port import Payout, PayoutTerms, SettlementFile, SettlementLine
from shared.errors import InvalidRequest
from shared.money import CURRENCY_EXPONENT


class SettlementFault(StrEnum):
    MISSING = "missing"
    """A capture's line is left out."""
    EXTRA = "extra"
    """A sale that exists nowhere, with ids as the gateway gives them; a copy of the chosen capture's."""
    DUPLICATED = "duplicated"
    """A line is there twice, with its own id both times."""
    WRONG_AMOUNT = "wrong_amount"
    """A capture's gross and net are ``by_minor`` (1) more."""
    WRONG_CURRENCY = "wrong_currency"
    """A capture is told, and paid out, in another currency that the gateway settles in."""
    FEE_CHANGED = "fee_changed"
    """A capture's fee is ``by_minor`` (7) more, and its net as much less."""
    REFUND_NETTED = "refund_netted"
    """A refund's line is left out, and its sale's gross and net are less by it."""
    PAYOUT_OFF = "payout_off"
    """A payout, and what the file itself states of it, is ``by_minor`` (1) more than its lines; ``line`` counts
    payouts."""
    TRUNCATED = "truncated"
    """The file ends in the middle of its last line."""
    BAD_ROW = "bad_row"
    """A line's amount is no number. It is not paid out."""


_USUAL_MINOR = {SettlementFault.WRONG_AMOUNT: 1, SettlementFault.FEE_CHANGED: 7, SettlementFault.PAYOUT_OFF: 1}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]")
_SHORTEST_ID = 6


class NothingToSow(InvalidRequest):
    """There is no such line left in this window, or this gateway's file cannot tell this fault."""

    code = "nothing_to_sow"


@dataclass(frozen=True, slots=True)
class Sow:
    """``line``: which of the lines that the fault can hit, from 0; where another fault has hit it, the next one."""

    fault: SettlementFault
    line: int = 0
    by_minor: int | None = None

    @property
    def is_about_payouts(self) -> bool:
        return self.fault is SettlementFault.PAYOUT_OFF

    @property
    def minor(self) -> int:
        return self.by_minor or _USUAL_MINOR.get(self.fault, 0)


@dataclass(frozen=True, slots=True)
class Sown:
    """``difference_minor``: what the gateway says more than the books, of the gross amount (of the net where only a fee
    differs, of the payout where that does); None where two amounts cannot be compared."""

    fault: SettlementFault
    kind: str
    object_id: str | None
    gateway_reference: str | None
    reference: str | None
    currency: str
    difference_minor: int | None


class Field:
    """The lines of the books, and what is written in the place of each."""

    def __init__(self, lines: Sequence[SettlementLine], terms: PayoutTerms) -> None:
        self._lines = lines
        self._terms = terms
        self._written = [[line] for line in lines]
        self._hit: set[int] = set()
        self._extra: list[SettlementLine] = []
        self.is_truncated = False

    def written(self) -> list[SettlementLine]:
        lines = [line for place in self._written for line in place]
        return in_order([*lines, *self._extra])

    def sow(self, wanted: Sequence[Sow]) -> list[Sown]:
        """In their order, but netted refunds before all others: they need two lines. Raises NothingToSow."""
        first_netted = sorted(enumerate(wanted), key=lambda each: each[1].fault is not SettlementFault.REFUND_NETTED)
        sown = {number: _SOWERS[sow.fault](self, sow) for number, sow in first_netted}
        return [sown[number] for number in sorted(sown)]

    def sow_payout(self, sow: Sow, payouts: Sequence[Payout]) -> Sown:
        if sow.line >= len(payouts):
            raise NothingToSow
        payout = payouts[sow.line]
        return Sown(sow.fault, "payout", payout.reference, None, None, payout.currency, sow.minor)

    def miss(self, sow: Sow) -> Sown:
        place, line = self._choose(sow)
        self._written[place] = []
        return _sown(sow, line, -line.gross_minor)

    def invent(self, sow: Sow) -> Sown:
        captures = [line for line in self._lines if line.kind == "capture"]
        if sow.line >= len(captures):
            raise NothingToSow
        line = _invented(captures[sow.line])
        self._extra.append(line)
        return _sown(sow, line, line.gross_minor)

    def repeat(self, sow: Sow) -> Sown:
        place, line = self._choose(sow, of_any_kind=True)
        self._written[place] = [line, line]
        return _sown(sow, line, line.gross_minor)

    def change_amount(self, sow: Sow) -> Sown:
        place, line = self._choose(sow)
        self._written[place] = [replace(line, amount_minor=line.amount_minor + sow.minor)]
        return _sown(sow, line, sow.minor)

    def change_currency(self, sow: Sow) -> Sown:
        place, line = self._choose(sow)
        own = line.entry.currency
        others = [currency for currency in self._terms.currencies if currency != own]
        if not others:
            raise NothingToSow("this gateway settles in one currency, and its file does not name it")
        others.sort(key=lambda currency: CURRENCY_EXPONENT[currency] != CURRENCY_EXPONENT[own])
        self._written[place] = [replace(line, entry=replace(line.entry, currency=others[0]))]
        return _sown(sow, line, None)

    def change_fee(self, sow: Sow) -> Sown:
        place, line = self._choose(sow)
        self._written[place] = [replace(line, fee_minor=line.fee_minor + sow.minor)]
        return _sown(sow, line, -sow.minor)

    def net_a_refund(self, sow: Sow) -> Sown:
        """Only where the sale still comes to something: a line of nothing would be another fault."""
        sales = {line.object_id: place for place, line in enumerate(self._lines) if line.kind == "capture"}
        pairs = [
            (sales[line.parent_id], place)
            for place, line in enumerate(self._lines)
            if line.kind == "refund"
            and line.parent_id in sales
            and line.amount_minor < self._lines[sales[line.parent_id]].amount_minor
        ]
        sale_place, refund_place = self._take(sow, pairs)
        sale, refund = self._lines[sale_place], self._lines[refund_place]
        self._written[refund_place] = []
        self._written[sale_place] = [replace(sale, amount_minor=sale.amount_minor - refund.amount_minor)]
        return _sown(sow, sale, -refund.amount_minor)

    def truncate(self, sow: Sow) -> Sown:
        if not self._lines:
            raise NothingToSow
        self.is_truncated = True
        return Sown(sow.fault, "file", None, None, None, self._lines[-1].entry.currency, None)

    def spoil(self, sow: Sow) -> Sown:
        place, line = self._choose(sow, of_any_kind=True)
        self._written[place] = [replace(line, is_unreadable=True)]
        return _sown(sow, line, -line.gross_minor)

    def _choose(self, sow: Sow, *, of_any_kind: bool = False) -> tuple[int, SettlementLine]:
        fit = [(place,) for place, line in enumerate(self._lines) if of_any_kind or line.kind == "capture"]
        [place] = self._take(sow, fit)
        return place, self._lines[place]

    def _take(self, sow: Sow, fit: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The wanted one, or else the next that no fault has hit."""
        if sow.line < len(fit):
            for places in (*fit[sow.line :], *fit[: sow.line]):
                if self._hit.isdisjoint(places):
                    self._hit.update(places)
                    return places
        raise NothingToSow


_SOWERS: dict[SettlementFault, Callable[[Field, Sow], Sown]] = {
    SettlementFault.MISSING: Field.miss,
    SettlementFault.EXTRA: Field.invent,
    SettlementFault.DUPLICATED: Field.repeat,
    SettlementFault.WRONG_AMOUNT: Field.change_amount,
    SettlementFault.WRONG_CURRENCY: Field.change_currency,
    SettlementFault.FEE_CHANGED: Field.change_fee,
    SettlementFault.REFUND_NETTED: Field.net_a_refund,
    SettlementFault.TRUNCATED: Field.truncate,
    SettlementFault.BAD_ROW: Field.spoil,
}


def cut_short(file: SettlementFile, lines: Sequence[SettlementLine]) -> SettlementFile:
    """The file as far as the middle of the row of its last line; of JSON, as far as the last id in it."""
    last, body = lines[-1], file.body
    ids = {last.object_id, last.entry.payment_reference, last.entry.gateway_reference, last.entry.reference} - {None}
    place = max(body.rfind(each.encode()) for each in ids if each)
    start, end = body.rfind(b"\n", 0, place) + 1, body.find(b"\n", place)
    return replace(file, body=body[: (start + end) // 2 if end >= 0 else place])


def _sown(sow: Sow, line: SettlementLine, difference_minor: int | None) -> Sown:
    entry = line.entry
    return Sown(
        sow.fault,
        line.kind,
        line.object_id,
        entry.gateway_reference,
        line.reference or entry.reference,
        entry.currency,
        difference_minor,
    )


def _invented(line: SettlementLine) -> SettlementLine:
    """As the line, under ids that nobody knows."""
    entry = line.entry
    stranger: BookEntry = replace(
        entry,
        gateway_reference=_unlike(entry.gateway_reference),
        reference=_unlike(entry.reference),
        order_id=_unlike(entry.order_id),
        payment_reference=_unlike(entry.payment_reference),
        metadata=_unlike(entry.metadata),
        details=_unlike(entry.details),
    )
    return replace(line, entry=stranger, object_id=_unlike(line.object_id), reference=_unlike(line.reference))


def _unlike(value: Any) -> Any:
    """The same shape with other letters and digits at the end of each id; the same id becomes the same other one."""
    if isinstance(value, dict):
        return {key: _unlike(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unlike(each) for each in value]
    is_id = isinstance(value, str) and len(value) >= _SHORTEST_ID and any(map(str.isdigit, value))
    if not is_id or "://" in value or "@" in value or _MOMENT.match(value):
        return value
    kept = min(len(value) // 2, 8)
    return value[:kept] + "".join(map(_other, value[kept:], sha256(value.encode()).digest() * len(value)))


def _other(character: str, random: int) -> str:
    """Another character of the same kind."""
    for first, size in (("0", 10), ("a", 26), ("A", 26)):
        place = ord(character) - ord(first)
        if 0 <= place < size:
            return chr(ord(first) + (place + 1 + random % (size - 1)) % size)
    return character
