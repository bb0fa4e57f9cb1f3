"""Paytm: the dashboard's CSV. Its columns' real names are not documented: a map fits them.

Rupees, India's time. Signs are not documented: the type decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.settlement import LineKind
from services.reconciler.settlement_formats.cells import DAY_FIRST, ISO, IST_ZONE, AmountStyle
from services.reconciler.settlement_formats.table_format import Names, Signs, Table


def _names(kind: LineKind, ids: Sequence[str]) -> Names:
    """The order's name is ours. A refund's transaction is the refund's own id (``refId``), which may be ours too."""
    transaction, order, utr = ids
    ours = order if kind is LineKind.SALE else transaction or order
    return Names(transaction or None, order or None, ours or None, None, utr or None)


FORMATS = (
    Table(
        name="paytm_settlement",
        gateway="paytm",
        columns={
            "order": ("order_id",),
            "transaction": ("transaction_id",),
            "kind": ("transaction_type",),
            "at": ("transaction_date",),
            "gross": ("gross_amount",),
            "fee": ("commission",),
            "tax": ("gst",),
            "net": ("net_amount",),
            "payout": ("utr",),
            "status": ("status",),
        },
        required=frozenset({"order", "transaction", "kind", "gross", "fee", "tax", "net", "payout"}),
        kinds={
            "sale": LineKind.SALE,
            "refund": LineKind.REFUND,
            "chargeback": LineKind.CHARGEBACK,
            "chargeback reversal": LineKind.CHARGEBACK_REVERSAL,
            "adjustment": LineKind.ADJUSTMENT,
        },
        ids=("transaction", "order", "payout"),
        names=_names,
        signs=Signs.BY_KIND,
        style=AmountStyle(point_required=True),
        layouts=(ISO, DAY_FIRST),
        zone=IST_ZONE,
        currency="INR",
        arranged=True,
        settled=("status", frozenset({"payout settled", "bank initiated"})),
    ),
)
