"""MyFatoorah: what ``GetDepositedInvoices`` answers about a deposit (JSON).

Decimals in major units as text, thousands possibly apart by commas, currencies possibly as labels (``KD``). Whether
refunds come at all is not documented: a negative value is one. Times are the account's, whose zone the document does
not say: Kuwait's, as in the vendor's own samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from services.reconciler.domain.settlement import LineKind, Parsed, SettlementLine
from services.reconciler.settlement_formats.cells import (
    ISO,
    AmountStyle,
    BadCell,
    Memo,
    currency_of,
    moment_reader,
)
from services.reconciler.settlement_formats.json_format import Fields, JsonItems
from services.reconciler.settlement_formats.port import ReadingContext
from services.reconciler.settlement_formats.table_format import Names

_LABELS: Mapping[str, str] = {
    "KD": "KWD",
    "SR": "SAR",
    "BD": "BHD",
    "JD": "JOD",
    "QR": "QAR",
    "OR": "OMR",
    "RO": "OMR",
    "LE": "EGP",
    "DH": "AED",
}
"""KD and SR are seen; the others follow the countries' own habit, and none is the code of another currency."""

_STYLE = AmountStyle(grouped=True)
_moment = Memo(moment_reader((ISO,), "+03:00"))


def _currency(text: str) -> str:
    plain = text.strip().upper().replace(".", "")
    return currency_of(_LABELS.get(plain, plain) if text.isascii() else text)


_currency_of = Memo(_currency)


def _invoice(number: int, fields: Fields, context: ReadingContext) -> Iterator[Parsed]:
    paid_in = fields.read_text("PaidCurrency", _currency_of.__getitem__)
    currency, presented = _currency_of_deposit(fields, paid_in, context)
    gross, fee, net = (fields.major(key, currency, _STYLE) for key in ("DueValue", "TotalServiceCharge", "DueDeposit"))
    if net != gross - fee:
        raise BadCell("sum_wrong", f"{gross} less {fee} is not {net} (minor units)")
    kind = LineKind.SALE if gross >= 0 else LineKind.REFUND
    payment, invoice = fields.text("PaymentId"), fields.text("InvoiceId")
    names = Names(
        payment if kind is LineKind.SALE else None,  # a refund's own id is not among the fields
        invoice if kind is LineKind.SALE else payment,
        fields.optional("CustomerReference"),
        None,
        fields.optional("DepositReference"),
    )
    at = fields.read_text("PaidDate", _moment.__getitem__) if fields.has("PaidDate") else None
    other = paid_in if presented is not None else None
    word = "invoice" if kind is LineKind.SALE else "refund"
    yield SettlementLine(number, 0, kind, currency, gross, fee, 0, net, at, *names, presented, other, word)


def _currency_of_deposit(fields: Fields, paid_in: str, context: ReadingContext) -> tuple[str, int | None]:
    """The currency of the values, and what the shopper saw where that is in another one.

    The fields name only what was paid in; where that is the same number, it is the account's own currency. Raises
    BadCell where it is not, and the installation does not say the account's currency.
    """
    if _plain(fields, "PaidCurrencyValue") == _plain(fields, "DueValue"):
        return paid_in, None
    if context.default_currency is None or context.default_currency == paid_in:
        raise BadCell(
            "currency_unknown", "PaidCurrencyValue and DueValue differ, and the account's currency is not set"
        )
    presented = abs(fields.major("PaidCurrencyValue", paid_in, _STYLE))
    return context.default_currency, -presented if _plain(fields, "DueValue").startswith("-") else presented


def _plain(fields: Fields, key: str) -> str:
    """An amount's digits without what differs in writing: ``1,250.500`` and ``1250.5`` are one number."""
    text = fields.read_text(key, str.strip).replace(",", "")
    return text.rstrip("0").rstrip(".") if "." in text else text


FORMATS = (
    JsonItems(
        name="myfatoorah_deposit",
        gateway="myfatoorah",
        items_path="Data.item",
        keys=frozenset({"IsSuccess", "Data"}),
        item_keys=frozenset({"InvoiceId", "PaymentId", "DueValue", "TotalServiceCharge", "DueDeposit"}),
        read_item=_invoice,
    ),
)
