"""Stripe: the itemized payout reconciliation (CSV), and the API's list of balance transactions (JSON).

The report writes decimals in major units, the API integers in minor units; both have the tax in the fee. A refund's
gross is negative. What was paid in another currency is in ``customer_facing_…``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.reconciler.domain.settlement import ABOUT_A_PAYMENT, LineKind, Parsed, SettlementLine, StatedPayout
from services.reconciler.settlement_formats.cells import BadCell, Memo, kind_reader, rescaled, unix_moment
from services.reconciler.settlement_formats.json_format import Fields, JsonItems
from services.reconciler.settlement_formats.port import ReadingContext
from services.reconciler.settlement_formats.table_format import LineNames, Names, Table
from shared.money import CURRENCY_EXPONENT

_KINDS: Mapping[str, LineKind] = {
    "charge": LineKind.SALE,
    "refund": LineKind.REFUND,
    "refund_failure": LineKind.REFUND_REVERSAL,
    "dispute": LineKind.CHARGEBACK,
    "dispute_reversal": LineKind.CHARGEBACK_REVERSAL,
    "fee": LineKind.FEE,
    "network_cost": LineKind.FEE,
    "tax": LineKind.TAX,
    "risk_reserved_funds": LineKind.RESERVE,
    "connect_reserved_funds": LineKind.RESERVE,
    "payout": LineKind.PAYOUT,
    "payout_reversal": LineKind.PAYOUT,
    **dict.fromkeys(
        (
            "advance",
            "advance_funding",
            "charge_failure",  # a bank debit that did not come in after all: no kind of its own, and never a dispute
            "connect_collection_transfer",
            "contribution",
            "financing_paydown",
            "financing_paydown_reversal",
            "financing_payout",
            "financing_payout_reversal",
            "other_adjustment",
            "partial_capture_reversal",
            "platform_earning",
            "platform_earning_refund",
            "topup",
            "topup_reversal",
            "transfer",
            "transfer_reversal",
            "unreconciled_customer_funds",
        ),
        LineKind.ADJUSTMENT,
    ),
}
"""``reporting_category``, which Stripe asks to prefer over ``type``."""

_IDS = ("source", "charge", "intent", "order_ref", "refund_ref", "transaction", "payout")


def _names(kind: LineKind, ids: Sequence[str]) -> LineNames:
    source, charge, intent, order_ref, refund_ref, transaction, payout = ids
    if kind is LineKind.PAYOUT:
        return source or payout or None, None, None, transaction or None, None
    own, parent, ours = source or charge or None, intent or charge or None, refund_ref or order_ref or None
    return own, parent, ours, transaction or None, payout or None


PAYOUT_RECONCILIATION = Table(
    name="stripe_payout_reconciliation",
    gateway="stripe",
    columns={
        "transaction": ("balance_transaction_id",),
        "kind": ("reporting_category",),
        "currency": ("currency",),
        "gross": ("gross",),
        "fee": ("fee",),
        "net": ("net",),
        "at": ("created_utc",),  # ``created`` is in whatever zone the report was asked for
        "source": ("source_id",),
        "charge": ("charge_id",),
        "intent": ("payment_intent_id",),
        "payout": ("automatic_payout_id", "payout_id"),
        "order_ref": ("payment_metadata[order_ref]",),
        "refund_ref": ("refund_metadata[refund_ref]",),
        "presented": ("customer_facing_amount",),
        "presented_currency": ("customer_facing_currency",),
    },
    required=frozenset({"transaction", "kind", "currency", "gross", "fee", "net", "source"}),
    kinds=_KINDS,
    ids=_IDS,
    names=_names,
    presented=("presented", "presented_currency"),
)

# --- the API --------------------------------------------------------------------------------------------------------

_TYPES: Mapping[str, LineKind] = {
    "payment": LineKind.SALE,
    "payment_refund": LineKind.REFUND,
    "payment_failure_refund": LineKind.REFUND_REVERSAL,
    "payment_reversal": LineKind.CHARGEBACK,
    "stripe_fee": LineKind.FEE,
    "stripe_fx_fee": LineKind.FEE,
    "tax_fee": LineKind.TAX,
    "reserve_transaction": LineKind.RESERVE,
    "reserved_funds": LineKind.RESERVE,
    "payout_cancel": LineKind.PAYOUT,
    "payout_failure": LineKind.PAYOUT,
    "adjustment": LineKind.ADJUSTMENT,
}
"""``type``, for documents without ``reporting_category``."""

_kind_of = Memo(kind_reader({**_KINDS, **_TYPES}))
_EXPONENT: Mapping[str, int] = {**CURRENCY_EXPONENT, "ISK": 2, "UGX": 2, "MGA": 0}
"""The API's own: króna and Ugandan shilling are sent times 100, ariary whole."""


def _balance_transaction(number: int, fields: Fields, _context: ReadingContext) -> Iterator[Parsed]:
    if (fields.optional("object") or "balance_transaction") != "balance_transaction":
        raise BadCell("item_unreadable", "it is no balance transaction")
    word, currency = fields.optional("reporting_category") or fields.text("type"), fields.currency("currency")
    (kind, sign), transaction = _kind_of[word], fields.text("id")
    gross, fee, net = (
        rescaled(fields.whole(key), _EXPONENT[currency], CURRENCY_EXPONENT[currency], fields.raw(key))
        for key in ("amount", "fee", "net")
    )
    if net != gross - fee:
        raise BadCell("sum_wrong", f"amount {gross} less fee {fee} is not net {net} (minor units)")
    if gross * sign < 0:
        raise BadCell("sign_wrong", f"amount {gross} does not suit {word}")
    at = fields.read("created", unix_moment)
    source, parent, ours = _source_of(fields.raw("source"))
    if kind is LineKind.PAYOUT:
        names = Names(source, None, None, transaction, None)
        if source:
            yield StatedPayout(number, source, currency, -net, at, None)
    else:
        names = Names(source, parent, ours, transaction, fields.optional("payout"))
    shown_to_shopper = _presented(fields.raw("source"), currency, gross) if kind in ABOUT_A_PAYMENT else (None, None)
    yield SettlementLine(number, 0, kind, currency, gross, fee, 0, net, at, *names, *shown_to_shopper, word[:64])


def _presented(source: Any, currency: str, gross: int) -> tuple[int | None, str | None]:
    """What the shopper saw, where the expanded source is in another currency. Of a charge only a part may be taken."""
    if not isinstance(source, Mapping) or "currency" not in source:
        return None, None
    fields = Fields(source)
    other = fields.currency("currency")
    if other == currency:
        return None, None
    key = "amount_captured" if "amount_captured" in source else "amount"
    amount = abs(rescaled(fields.whole(key), _EXPONENT[other], CURRENCY_EXPONENT[other], fields.raw(key)))
    return -amount if gross < 0 else amount, other


def _source_of(source: Any) -> tuple[str | None, str | None, str | None]:
    """The object that moved, the intent that it belongs to and our reference: the last two where it is expanded."""
    if not isinstance(source, Mapping):
        return Fields({"source": source}).optional("source"), None, None
    fields = Fields(source)
    metadata = Fields(source["metadata"]) if isinstance(source.get("metadata"), Mapping) else Fields({})
    parent = fields.optional("payment_intent") or fields.optional("charge")
    ours = metadata.optional("refund_ref") or metadata.optional("order_ref")
    return fields.text("id"), parent, ours


BALANCE_TRANSACTIONS = JsonItems(
    name="stripe_balance_transactions",
    gateway="stripe",
    items_path="data.item",
    keys=frozenset({"object", "data"}),
    item_keys=frozenset({"id", "amount", "fee", "net", "currency", "source"}),
    read_item=_balance_transaction,
)

FORMATS = (PAYOUT_RECONCILIATION, BALANCE_TRANSACTIONS)
