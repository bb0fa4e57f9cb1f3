"""PayPal: Transaction Search (JSON). The files that come by SFTP are in ``paypal_reports``."""

from __future__ import annotations

from collections.abc import Iterator

from services.reconciler.domain.settlement import LineKind, Parsed, SettlementLine, StatedPayout
from services.reconciler.settlement_formats.cells import ISO, UTC_ZONE, BadCell, Memo, moment_reader, shown
from services.reconciler.settlement_formats.json_format import Fields, JsonItems
from services.reconciler.settlement_formats.paypal_kinds import kind_of
from services.reconciler.settlement_formats.paypal_reports import REPORTS
from services.reconciler.settlement_formats.port import ReadingContext
from services.reconciler.settlement_formats.table_format import Names

_moment = Memo(moment_reader((ISO,), UTC_ZONE))
_MOVED = frozenset({"S", "V", "F"})
"""Succeeded; the same and reversed later; the same and refunded in part. Each reversal has a row of its own."""
_NOT_YET = frozenset({"P", "D"})


def _transaction(number: int, item: Fields, _context: ReadingContext) -> Iterator[Parsed]:
    fields = item.object("transaction_info") if item.has("transaction_info") else item
    status = fields.optional("transaction_status") or "S"
    if status in _NOT_YET:
        return
    if status not in _MOVED:
        raise BadCell("kind_unknown", f"transaction_status is {shown(status)}")
    amount = fields.object("transaction_amount")
    currency = amount.currency("currency_code")
    gross, fee = amount.major("value", currency), _fee(fields, currency)
    code, reference = fields.text("transaction_event_code"), fields.text("transaction_id")
    kind = kind_of(code, gross)
    if kind is None:
        return
    net = gross - fee
    at = fields.read_text("transaction_initiation_date", _moment.__getitem__)
    if kind is LineKind.PAYOUT:
        names = Names(reference)
        bank = fields.optional("bank_reference_id")
        yield StatedPayout(number, reference, currency, -net, at, bank)
    else:
        ours = fields.optional("custom_field") or fields.optional("invoice_id")
        names = Names(
            reference, fields.optional("paypal_reference_id"), ours, None, fields.optional("bank_reference_id")
        )
    yield SettlementLine(number, 0, kind, currency, gross, fee, 0, net, at, *names, None, None, code)


def _fee(fields: Fields, currency: str) -> int:
    """Written as what it does to the balance: a cost is negative."""
    if not fields.has("fee_amount"):
        return 0
    fee = fields.object("fee_amount")
    if fee.currency("currency_code") != currency:
        raise BadCell("currency_unknown", "the fee is in another currency than the amount")
    return -fee.major("value", currency)


TRANSACTIONS = JsonItems(
    name="paypal_transactions",
    gateway="paypal",
    items_path="transaction_details.item",
    keys=frozenset({"transaction_details"}),
    item_keys=frozenset(),
    read_item=_transaction,
)

FORMATS = (*REPORTS, TRANSACTIONS)
