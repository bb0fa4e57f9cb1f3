"""BillDesk: files are arranged with each merchant, so that the columns here are logical ones and a map fits them.

Rupees, India's time. Signs are not documented: the type decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.settlement import LineKind
from services.reconciler.settlement_formats.cells import DAY_FIRST, ISO, IST_ZONE
from services.reconciler.settlement_formats.table_format import Names, Signs, Table


def _names(kind: LineKind, ids: Sequence[str]) -> Names:
    transaction, order, utr, refund, refund_ref = ids
    if kind is LineKind.SALE:
        return Names(transaction or None, order or None, order or None, None, utr or None)
    return Names(refund or None, transaction or order or None, refund_ref or order or None, None, utr or None)


FORMATS = (
    Table(
        name="billdesk_settlement",
        gateway="billdesk",
        columns={
            "transaction": ("transactionid",),
            "order": ("orderid",),
            "kind": ("type",),
            "at": ("transaction_date",),
            "gross": ("gross",),
            "fee": ("fee",),
            "tax": ("tax",),
            "net": ("net",),
            "payout": ("utr",),
            "refund": ("refundid",),
            "refund_reference": ("merc_refund_ref_no",),
        },
        required=frozenset({"transaction", "kind", "at", "gross", "fee", "tax", "net", "payout"}),
        kinds={
            "sale": LineKind.SALE,
            "refund": LineKind.REFUND,
            "chargeback": LineKind.CHARGEBACK,
            "chargeback reversal": LineKind.CHARGEBACK_REVERSAL,
            "adjustment": LineKind.ADJUSTMENT,
        },
        ids=("transaction", "order", "payout", "refund", "refund_reference"),
        names=_names,
        signs=Signs.BY_KIND,
        layouts=(ISO, DAY_FIRST),
        zone=IST_ZONE,
        currency="INR",
        arranged=True,
    ),
)
