"""Razorpay: the combined reconciliation and the settlements of its API (JSON), and the dashboard's report (CSV).

The API writes integers in sub-units, and a fee that has its tax in it. The report's spelling, dates and unit are not
documented: a map fits it, rupees with decimals are expected, and a number without them is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from services.reconciler.domain.settlement import BadRow, LineKind, Parsed, SettlementLine, StatedPayout
from services.reconciler.settlement_formats.arrangement import Arrangement, arrangement_of
from services.reconciler.settlement_formats.cells import (
    DAY_FIRST,
    ISO,
    IST_ZONE,
    AmountStyle,
    BadCell,
    Memo,
    kind_reader,
    moment_reader,
    shown,
    unix_moment,
    worded,
)
from services.reconciler.settlement_formats.headers import (
    MOST_ROWS_BEFORE_HEADER,
    Columns,
    find_header,
    is_header,
    resolve,
)
from services.reconciler.settlement_formats.json_format import Fields, JsonItems
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext, Row
from services.reconciler.settlement_formats.table_format import Names

_KINDS = {
    "payment": LineKind.SALE,
    "refund": LineKind.REFUND,
    "transfer": LineKind.ADJUSTMENT,
    "adjustment": LineKind.ADJUSTMENT,
}
_kind_of = Memo(kind_reader(_KINDS))


@dataclass(frozen=True, slots=True)
class _Movement:
    """A row of the reconciliation, of either source. Minor units; ``fee`` has the tax in it."""

    word: str
    entity: str
    currency: str
    amount: int
    fee: int
    tax: int
    credit: int
    debit: int
    at: datetime | None
    payment: str | None
    order: str | None
    receipt: str | None
    dispute: str | None
    settlement: str | None

    def line(self, number: int) -> SettlementLine:
        """Raises BadCell. What a dispute takes, or gives back, is an adjustment that names it."""
        kind, sign = _kind_of[self.word]
        net = self.credit - self.debit
        if self.amount < 0 or not 0 <= self.tax <= max(self.fee, 0):
            why = f"amount {self.amount}, fee {self.fee}, tax {self.tax}: the tax is a part of the fee"
            raise BadCell("sum_wrong", why)
        is_dispute = self.dispute is not None and worded(self.word) == "adjustment"
        if is_dispute:
            kind = LineKind.CHARGEBACK if net < 0 else LineKind.CHARGEBACK_REVERSAL
        gross = self.amount * (sign or (1 if net >= 0 else -1))
        if gross - self.fee != net:
            raise BadCell("sum_wrong", f"{gross} less {self.fee} is not credit less debit, {net} (minor units)")
        own = self.dispute if is_dispute else self.entity
        names = Names(own, self.payment or self.order, self.receipt, self.entity, self.settlement)
        fee = self.fee - self.tax
        return SettlementLine(
            number, 0, kind, self.currency, gross, fee, self.tax, net, self.at, *names, None, None, self.word[:64]
        )


def _recon_item(number: int, fields: Fields, _context: ReadingContext) -> Iterator[Parsed]:
    if fields.raw("settled") is False:
        return  # listed, and not paid out yet: a later reconciliation has it again
    if fields.raw("settled") is not True:
        raise BadCell("not_settled", f"settled is {shown(fields.raw('settled'))}: it has not been paid out")
    yield _Movement(
        word=fields.text("type"),
        entity=fields.text("entity_id"),
        currency=fields.currency("currency"),
        amount=fields.whole("amount"),
        fee=fields.optional_whole("fee"),
        tax=fields.optional_whole("tax"),
        credit=fields.optional_whole("credit"),
        debit=fields.optional_whole("debit"),
        at=fields.read("created_at", unix_moment) if fields.has("created_at") else None,
        payment=fields.optional("payment_id"),
        order=fields.optional("order_id"),
        receipt=fields.optional("order_receipt"),
        dispute=fields.optional("dispute_id"),
        settlement=fields.optional("settlement_id"),
    ).line(number)


def _settlement(number: int, fields: Fields, context: ReadingContext) -> Iterator[Parsed]:
    """Only what was paid: of one that is on its way, or that failed, nothing has reached the bank."""
    reference, status = fields.text("id"), fields.text("status")
    if status in _NOT_PAID:
        return
    if status != "processed":
        raise BadCell("kind_unknown", f"status is {shown(status)}")
    currency = fields.currency("currency") if fields.has("currency") else context.default_currency or "INR"
    paid_at = fields.read("created_at", unix_moment)
    yield StatedPayout(number, reference, currency, fields.whole("amount"), paid_at, fields.optional("utr"))


_NOT_PAID = frozenset({"created", "failed"})
_COLLECTION = frozenset({"entity", "items"})

RECON = JsonItems(
    name="razorpay_recon",
    gateway="razorpay",
    items_path="items.item",
    keys=_COLLECTION,
    item_keys=frozenset({"entity_id", "type", "debit", "credit", "amount", "settlement_id"}),
    read_item=_recon_item,
)
SETTLEMENTS = JsonItems(
    name="razorpay_settlements",
    gateway="razorpay",
    items_path="items.item",
    keys=_COLLECTION,
    item_keys=frozenset({"id", "amount", "status", "utr"}),
    read_item=_settlement,
    may_be_empty=False,
)
_NAMES: Mapping[str, tuple[str, ...]] = {
    "entity": ("Entity ID", "entity_id"),
    "kind": ("Type",),
    "debit": ("Debit",),
    "credit": ("Credit",),
    "gross": ("Amount",),
    "currency": ("Currency",),
    "fee": ("Fees", "Fee"),
    "tax": ("Tax",),
    "settled": ("Settled",),
    "at": ("Created At", "created_at"),
    "payout": ("Settlement ID", "settlement_id"),
    "payment": ("Payment ID", "payment_id"),
    "order": ("Order ID", "order_id"),
    "receipt": ("Order Receipt", "order_receipt"),
    "dispute": ("Dispute ID", "dispute_id"),
}
_REQUIRED = frozenset({"entity", "kind", "debit", "credit", "gross", "currency", "fee", "tax", "payout"})
_PAID_OUT, _NOT_PAID_OUT = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
_moment = Memo(moment_reader((DAY_FIRST, ISO), IST_ZONE))


@dataclass(frozen=True, slots=True)
class Report:
    """The dashboard's CSV. Satisfies TableFormat."""

    name: str = "razorpay_report"
    version: int = 1
    gateway: str = "razorpay"

    @property
    def layout(self) -> Layout:
        return Layout.TABLE

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(names[0] for logical, names in _NAMES.items() if logical in _REQUIRED)

    def recognises(self, head: Head) -> bool:
        return self.recognises_arranged(head, {})

    def recognises_arranged(self, head: Head, header_map: Mapping[str, str]) -> bool:
        if head.layout is not Layout.TABLE:
            return False
        names = _arranged(header_map).in_files(_NAMES)
        return any(is_header(row.cells, names, _REQUIRED) for row in head.rows[:MOST_ROWS_BEFORE_HEADER])

    def read(self, rows: Iterable[Row], context: ReadingContext) -> Iterator[Parsed]:
        arrangement = _arranged(context.header_map)
        names = arrangement.in_files(_NAMES)
        iterator = iter(rows)
        columns = resolve(find_header(iterator, names, _REQUIRED, self.name).cells, names, self.name)
        return _report_lines(columns, arrangement.style, iterator)


def _arranged(header_map: Mapping[str, str]) -> Arrangement:
    return arrangement_of(header_map, _NAMES, AmountStyle(point_required=True))


def _report_lines(columns: Columns, style: AmountStyle, rows: Iterable[Row]) -> Iterator[Parsed]:
    for row in rows:
        fitting = columns.fitted(row)
        if not isinstance(fitting, Row):
            if fitting is not None:
                yield fitting
            continue
        number = fitting.line_number
        try:
            fields = Fields({name: fitting.cells[at] for name, at in columns.at.items()})
            if worded(fields.optional("settled") or "") not in _NOT_PAID_OUT:
                yield _report_row(fields, style).line(number)
        except BadCell as bad:
            yield BadRow(number, bad.code, bad.why)


def _report_row(fields: Fields, style: AmountStyle) -> _Movement:
    settled = fields.optional("settled")
    if fields.has("settled") and worded(settled or "") not in _PAID_OUT:
        raise BadCell("not_settled", f"settled is {shown(settled)}: it has not been paid out")
    currency = fields.currency("currency")
    return _Movement(
        word=fields.text("kind"),
        entity=fields.text("entity"),
        currency=currency,
        amount=fields.major("gross", currency, style),
        fee=fields.major("fee", currency, style),
        tax=fields.major("tax", currency, style),
        credit=fields.major("credit", currency, style),
        debit=fields.major("debit", currency, style),
        at=fields.read_text("at", _moment.__getitem__) if fields.has("at") else None,
        payment=fields.optional("payment"),
        order=fields.optional("order"),
        receipt=fields.optional("receipt"),
        dispute=fields.optional("dispute"),
        settlement=fields.optional("payout"),
    )


FORMATS = (RECON, SETTLEMENTS, Report())
