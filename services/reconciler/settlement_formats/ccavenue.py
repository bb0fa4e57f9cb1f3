"""CCAvenue: the payout summary and the rows of each payout, in one JSON document, as they are fetched for a day.

``{"payoutSummary": …, "payIdDetails": {"<pay_Id>": … or a list of pages}}``. Keys of the summary come misspelled and
spelled right, and a single row may stand without its list. Rupees; the sign follows from ``txn_type``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from services.reconciler.domain.settlement import BadRow, LineKind, Parsed, SettlementLine, StatedPayout, StatedTotal
from services.reconciler.settlement_formats.cells import (
    DAY_FIRST,
    ISO,
    IST_ZONE,
    BadCell,
    Memo,
    kind_reader,
    moment_reader,
)
from services.reconciler.settlement_formats.json_format import Fields, Item, fields_of
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext
from services.reconciler.settlement_formats.table_format import Names

_kind_of = Memo(
    kind_reader(
        {
            "Shipped": LineKind.SALE,
            "Refunded": LineKind.REFUND,
            "Chargeback": LineKind.CHARGEBACK,
            "Cancelled": LineKind.ADJUSTMENT,
            "Auto-Cancelled": LineKind.ADJUSTMENT,
            "MISC": LineKind.ADJUSTMENT,
            "MSGCHRG": LineKind.FEE,
            "ASUC": LineKind.FEE,
        }
    )
)
_moment = Memo(moment_reader((ISO, DAY_FIRST), IST_ZONE))

_SUMMARY, _DETAILS = "payoutSummary", "payIdDetails"
_LISTS = ("payout_summary_list", "pauyout_summary_list")
_PAYOUTS = ("payout_summary_details", "pauyout_summary_details")


@dataclass(frozen=True, slots=True)
class CCAvenueSettlement:
    """Satisfies JsonFormat. The item is the document itself: rows stand under their payout's id."""

    name: str = "ccavenue_settlement"
    version: int = 1
    gateway: str = "ccavenue"
    items_path: str = ""

    @property
    def layout(self) -> Layout:
        return Layout.JSON

    @property
    def needs(self) -> tuple[str, ...]:
        return (_SUMMARY, _DETAILS)

    def recognises(self, head: Head) -> bool:
        return head.layout is Layout.JSON and bool({_SUMMARY, _DETAILS} & head.keys)

    def read(self, items: Iterable[tuple[int, Item]], context: ReadingContext) -> Iterator[Parsed]:
        numbers = count(1)
        for _, document in items:
            yield from _document(document, numbers, context)


def _document(document: Any, numbers: Iterator[int], context: ReadingContext) -> Iterator[Parsed]:
    if not isinstance(document, Mapping) or not {_SUMMARY, _DETAILS} & document.keys():
        yield BadRow(next(numbers), "item_unreadable", f"it has neither {_SUMMARY} nor {_DETAILS}")
        return
    currencies: dict[str, str] = {}
    for payout in _payouts_in(document.get(_SUMMARY)):
        yield _payout(next(numbers), payout, context, currencies)
    if _DETAILS in document:
        yield from _details(document[_DETAILS], numbers, currencies, context)


def _payout(number: int, payout: Any, context: ReadingContext, currencies: dict[str, str]) -> Parsed:
    try:
        fields = fields_of(payout)
        reference = fields.text("pay_Id")
        currency = currencies[reference] = _currency(fields, "settlement_currency", context)
        paid_at = fields.read_text("settlement_date", _moment.__getitem__) if fields.has("settlement_date") else None
        amount = fields.major("pay_amount", currency)
        return StatedPayout(number, reference, currency, amount, paid_at, fields.optional("utr_no"))
    except BadCell as bad:
        return BadRow(number, bad.code, bad.why)


def _details(
    details: Any, numbers: Iterator[int], currencies: Mapping[str, str], context: ReadingContext
) -> Iterator[Parsed]:
    if not isinstance(details, Mapping):
        yield BadRow(next(numbers), "item_unreadable", f"{_DETAILS} is no JSON object")
        return
    for reference, pages in details.items():
        stated, counted, number = None, 0, 0
        for page in as_list(pages):
            inner = _only(page, "pay_id_details_Result")
            total = inner.get("total_records") if isinstance(inner, Mapping) else None
            stated = total if type(total) is int else stated
            for row in as_list(_only(_only(inner, "pay_id_txn_details_list"), "pay_id_txn_details")):
                number, counted = next(numbers), counted + 1
                yield _row(number, row, str(reference), currencies.get(str(reference)), context)
        if stated is not None:
            yield StatedTotal(number or next(numbers), f"rows of {reference}"[:100], None, stated, counted)


def _row(number: int, row: Any, payout: str, settled_in: str | None, context: ReadingContext) -> Parsed:
    try:
        return _line(number, fields_of(row), payout, settled_in, context)
    except BadCell as bad:
        return BadRow(number, bad.code, bad.why)


def _line(number: int, fields: Fields, payout: str, settled_in: str | None, context: ReadingContext) -> SettlementLine:
    word = fields.text("txn_type")
    kind, sign = _kind_of[word]
    currency = _currency(fields, "currency", context)
    if settled_in is not None and settled_in != currency:
        raise BadCell("currency_unknown", f"currency is {currency}, and its payout is in {settled_in}")
    gross, fee, tax, stated = (fields.major(key, currency) for key in ("amount", "fees", "tax", "amt_payable"))
    gross = abs(gross) * sign if sign else gross
    net = gross - fee - tax
    if stated != net and not (sign < 0 and stated == -net):
        raise BadCell("sum_wrong", f"{gross} less {fee} less {tax} is {net}, not {stated} (minor units)")
    if kind is LineKind.FEE and net > 0:
        raise BadCell("sign_unknown", f"{word} of {net}: whether that is a cost or given back is not said")
    reference, order = fields.optional("ccavenue_ref_no"), fields.optional("order_no")
    at = fields.read_text("date_time", _moment.__getitem__) if fields.has("date_time") else None
    # A refund's own id is not among the columns: the payment's is its parent.
    own, parent = (reference, order) if kind is LineKind.SALE else (None, reference)
    names = Names(own, parent, order, None, payout)
    return SettlementLine(number, 0, kind, currency, gross, fee, tax, net, at, *names, None, None, word[:64])


def _currency(fields: Fields, key: str, context: ReadingContext) -> str:
    return fields.currency(key) if fields.optional(key) else context.default_currency or "INR"


def _payouts_in(summary: Any) -> list[Any]:
    found = _only(summary, "Payout_Summary_Result")
    for names in (_LISTS, _PAYOUTS):
        found = next((found[name] for name in names if isinstance(found, Mapping) and name in found), None)
    return as_list(found)


def _only(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def as_list(value: Any) -> list[Any]:
    """A single one may come without its list, and none as null or as blank text."""
    if isinstance(value, list):
        return value
    return [] if value is None or value == "" else [value]


FORMATS = (CCAvenueSettlement(),)
