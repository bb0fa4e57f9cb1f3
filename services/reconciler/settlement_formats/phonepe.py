"""PhonePe: the dashboard's CSV. Its columns' real names are not documented: a map fits them.

The dashboard is said to show rupees where the API has paise, so that a number without decimals is refused until the
installation says which it is. India's time. Signs are not documented: the type decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.settlement import LineKind
from services.reconciler.settlement_formats.cells import DAY_FIRST, ISO, IST_ZONE, AmountStyle
from services.reconciler.settlement_formats.table_format import Names, Signs, Table


def _names(kind: LineKind, ids: Sequence[str]) -> Names:
    """Orders and refunds go by our names; the transaction of a refund is its ``merchantRefundId``, or PhonePe's."""
    transaction, order, utr = ids
    ours = order if kind is LineKind.SALE else transaction or order
    return Names(transaction or None, order or None, ours or None, None, utr or None)


FORMATS = (
    Table(
        name="phonepe_settlement",
        gateway="phonepe",
        columns={
            "order": ("order_id",),
            "transaction": ("transaction_id",),
            "kind": ("type",),
            "at": ("transaction_time",),
            "gross": ("gross",),
            "fee": ("fee",),
            "tax": ("tax",),
            "net": ("net",),
            "payout": ("utr",),
        },
        required=frozenset({"order", "transaction", "kind", "at", "gross", "fee", "tax", "net", "payout"}),
        kinds={
            "payment": LineKind.SALE,
            "refund": LineKind.REFUND,
            "dispute": LineKind.CHARGEBACK,
            "chargeback": LineKind.CHARGEBACK,
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
    ),
)
