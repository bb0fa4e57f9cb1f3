"""Tabby: no columns of its statement are documented. These are ours, and a map fits them to the file that comes."""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.settlement import LineKind
from services.reconciler.settlement_formats.cells import DAY_FIRST, ISO
from services.reconciler.settlement_formats.table_format import Names, Signs, Table

STATEMENT_KINDS = {
    "capture": LineKind.SALE,
    "refund": LineKind.REFUND,
    "dispute": LineKind.CHARGEBACK,
    "fee": LineKind.FEE,
    "adjustment": LineKind.ADJUSTMENT,
}


def _names(kind: LineKind, ids: Sequence[str]) -> Names:
    """Captures are known by their payment where they have no id of their own here."""
    payment, order, moved, statement = ids
    own = moved or (payment if kind is LineKind.SALE else "")
    return Names(own or None, payment or None, order or None, None, statement or None)


FORMATS = (
    Table(
        name="tabby_statement",
        gateway="tabby",
        columns={
            "payment": ("payment_id",),
            "order": ("order_reference",),
            "kind": ("type",),
            "at": ("created_at", "statement_date"),
            "gross": ("gross",),
            "fee": ("fee",),
            "tax": ("fee_vat",),
            "net": ("net",),
            "currency": ("currency",),
            "reference": ("reference",),
            "payout": ("statement_reference",),
        },
        required=frozenset({"payment", "order", "kind", "gross", "fee", "tax", "net", "currency"}),
        kinds=STATEMENT_KINDS,
        ids=("payment", "order", "reference", "payout"),
        names=_names,
        signs=Signs.BY_KIND,
        layouts=(ISO, DAY_FIRST),
        arranged=True,
    ),
)
