"""PayU India: what ``get_settlement_details`` answers (JSON). Rupees with four digits; the action decides the signs.

Per line everything is rounded half to even, to paise. So that the lines of a payout come to its exact total, rounded,
what is left over follows as one line ``rounding`` per payout at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.reconciler.domain.settlement import ROUNDING, BadRow, LineKind, Parsed, SettlementLine
from services.reconciler.settlement_formats.cells import (
    DAY_FIRST,
    ISO,
    IST_ZONE,
    LARGEST_MINOR,
    BadCell,
    Memo,
    kind_reader,
    moment_reader,
    shown,
    worded,
)
from services.reconciler.settlement_formats.json_format import Fields, Item, fields_of
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext, Unreadable
from services.reconciler.settlement_formats.table_format import Names

CURRENCY = "INR"
_PER_PAISA = 100
"""Ten-thousandths of a rupee."""
_MOST_PAYOUTS = 100_000

_kind_of = Memo(
    kind_reader(
        {
            "capture": LineKind.SALE,
            "refund": LineKind.REFUND,
            "refundreversal": LineKind.REFUND_REVERSAL,
            "refund reversal": LineKind.REFUND_REVERSAL,
            "chargeback": LineKind.CHARGEBACK,
            "chargeback reversal": LineKind.CHARGEBACK_REVERSAL,
            "chargebackreversal": LineKind.CHARGEBACK_REVERSAL,
        }
    )
)
_moment = moment_reader((ISO, DAY_FIRST), IST_ZONE)
_RUPEES = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,4})0*)?")


@dataclass(slots=True)
class _Payout:
    """What its lines come to: exactly, in ten-thousandths of a rupee, and as they were rounded, in paise."""

    exact: int = 0
    rounded: int = 0
    inexact_lines: int = 0
    last_item: int = 0


@dataclass(frozen=True, slots=True)
class PayUSettlement:
    """Satisfies JsonFormat. An item is one transaction; the whole of ``Txn_details`` is understood as well."""

    name: str = "payu_settlement"
    version: int = 1
    gateway: str = "payu"
    items_path: str = "Txn_details"

    @property
    def layout(self) -> Layout:
        return Layout.JSON

    @property
    def needs(self) -> tuple[str, ...]:
        return ("Txn_details", "payuid", "requestaction")

    def recognises(self, head: Head) -> bool:
        return head.layout is Layout.JSON and "Txn_details" in head.keys

    def read(self, items: Iterable[tuple[int, Item]], context: ReadingContext) -> Iterator[Parsed]:  # noqa: ARG002
        payouts: dict[str, _Payout] = {}
        for number, item in _transactions(items):
            try:
                fields = fields_of(item)
                if not _is_void(fields):
                    yield _line(number, fields, payouts)
            except BadCell as bad:
                yield BadRow(number, bad.code, bad.why)
        yield from _roundings(payouts)


def _transactions(items: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Numbered anew where one item holds them all: by their order in it."""
    number = 0
    for _, item in items:
        if item == []:  # nothing was settled
            continue
        is_one = not isinstance(item, Mapping) or "payuid" in item or not _holds_items(item)
        for each in (item,) if is_one else item.values():
            number += 1
            yield number, each


def _holds_items(item: Item) -> bool:
    return all(isinstance(value, Mapping) for value in item.values())


def _is_void(fields: Fields) -> bool:
    """An authorisation that was let go of moves nothing; one that costs something is looked at as a line."""
    costs = ("mer_service_fee", "mer_service_tax", "mer_net_amount")
    return worded(fields.text("requestaction")) == "cancel" and not any(_exact(fields, key) for key in costs)


def _line(number: int, fields: Fields, payouts: dict[str, _Payout]) -> SettlementLine:
    word, payu_id = fields.text("requestaction"), fields.text("payuid")
    kind, sign = _kind_of[word]
    exact_gross = abs(_exact(fields, "requestamount")) * sign
    exact_fee, exact_tax = _exact(fields, "mer_service_fee"), _exact(fields, "mer_service_tax")
    exact_net = exact_gross - exact_fee - exact_tax
    stated = _exact(fields, "mer_net_amount")
    if stated not in ((exact_net,) if sign > 0 else (exact_net, -exact_net)):
        raise BadCell("sum_wrong", f"{exact_gross} less {exact_fee} less {exact_tax} is not {stated} (rupees × 10 000)")
    gross, net, fee = _paise(exact_gross), _paise(exact_net), _paise(exact_fee)
    if not exact_tax:
        fee = gross - net
    payout = fields.optional("mer_utr")
    at = fields.read_text("requestdate", _moment) if fields.has("requestdate") else None
    names = _names(kind, fields, payu_id, payout)
    line = SettlementLine(
        number, 0, kind, CURRENCY, gross, fee, gross - fee - net, net, at, *names, None, None, word[:64]
    )
    if payout is not None:
        _count(payouts, payout, exact_net, net, number)
    return line


def _names(kind: LineKind, fields: Fields, payu_id: str, payout: str | None) -> Names:
    """A capture is known by the payment's id; what goes back by its request's, and by our token where it was ours."""
    order = fields.optional("txnid")
    if kind is LineKind.SALE:
        return Names(payu_id, order, order, None, payout)
    token = fields.optional("token") if kind is not LineKind.CHARGEBACK else None
    return Names(fields.optional("requestid"), payu_id, token or order, None, payout)


def _exact(fields: Fields, key: str) -> int:
    """Ten-thousandths of a rupee. Raises BadCell."""
    text = fields.text(key)
    found = _RUPEES.fullmatch(text)
    if found is None:
        raise BadCell("amount_unreadable", f"{key}: {shown(text)} is no amount of rupees with up to four decimals")
    sign, whole, rest = found.groups()
    number = int(whole + (rest or "").ljust(4, "0"))
    return -number if sign else number


def _paise(exact: int) -> int:
    """Rounded half to even. Raises BadCell."""
    whole, rest = divmod(abs(exact), _PER_PAISA)
    if rest * 2 > _PER_PAISA or (rest * 2 == _PER_PAISA and whole % 2):
        whole += 1
    if whole >= LARGEST_MINOR:
        raise BadCell("amount_too_large", "an amount is larger than any settlement")
    return -whole if exact < 0 else whole


def _count(payouts: dict[str, _Payout], reference: str, exact: int, rounded: int, number: int) -> None:
    payout = payouts.get(reference)
    if payout is None:
        if len(payouts) >= _MOST_PAYOUTS:
            raise Unreadable("too_many_payouts", f"more than {_MOST_PAYOUTS} UTRs in one answer")
        payout = payouts[reference] = _Payout()
    payout.exact += exact
    payout.rounded += rounded
    payout.inexact_lines += exact % _PER_PAISA != 0
    payout.last_item = number


def _roundings(payouts: Mapping[str, _Payout]) -> Iterator[SettlementLine]:
    """Numbered as the second part of their payout's last line. The id is ours: of a report that has grown, the rounding
    replaces the one before, and so is there even if it is nothing."""
    for reference, payout in payouts.items():
        rest = _paise(payout.exact) - payout.rounded
        if rest or payout.inexact_lines > 1:
            names = Names(line_reference=f"{ROUNDING}:{reference}", payout_reference=reference)
            yield SettlementLine(
                payout.last_item,
                1,
                LineKind.ADJUSTMENT,
                CURRENCY,
                rest,
                0,
                0,
                rest,
                None,
                *names,
                None,
                None,
                ROUNDING,
            )


FORMATS = (PayUSettlement(),)
