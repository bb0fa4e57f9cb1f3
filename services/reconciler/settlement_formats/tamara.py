"""Tamara: the portal's report. Its columns' names are not documented; these are ours, and a map fits them."""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.settlement import LineKind
from services.reconciler.settlement_formats.cells import DAY_FIRST, ISO
from services.reconciler.settlement_formats.tabby import STATEMENT_KINDS
from services.reconciler.settlement_formats.table_format import Names, Signs, Table


def _names(kind: LineKind, ids: Sequence[str]) -> Names:
    """Captures are known by their order where they have no id of their own here."""
    order, reference, moved, statement = ids
    own = moved or (order if kind is LineKind.SALE else "")
    return Names(own or None, order or None, reference or None, None, statement or None)


FORMATS = (
    Table(
        name="tamara_statement",
        gateway="tamara",
        columns={
            "payout": ("statement_reference",),
            "order": ("order_id",),
            "order_reference": ("order_reference_id",),
            "kind": ("type",),
            "at": ("created_at", "statement_date"),
            "gross": ("gross",),
            "fee": ("fee",),
            "tax": ("fee_vat",),
            "net": ("net",),
            "currency": ("currency",),
            "reference": ("reference",),
        },
        required=frozenset({"payout", "order", "order_reference", "kind", "gross", "fee", "tax", "net", "currency"}),
        kinds=STATEMENT_KINDS,
        ids=("order", "order_reference", "reference", "payout"),
        names=_names,
        signs=Signs.BY_KIND,
        layouts=(ISO, DAY_FIRST),
        arranged=True,
    ),
)
