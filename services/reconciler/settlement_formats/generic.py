"""The generic gateway's settlement file. Its contract is payment_service/gateways/generic.md, which is ours."""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.settlement import LineKind
from services.reconciler.settlement_formats.table_format import Names, Table


def _names(_kind: LineKind, ids: Sequence[str]) -> Names:
    moved, payment, reference, session, settlement = ids
    return Names(moved or None, payment or None, reference or session or None, None, settlement or None)


FORMATS = (
    Table(
        name="generic_settlement",
        gateway="generic",
        columns={
            "payout": ("settlement_id",),
            "kind": ("type",),
            "id": ("id",),
            "payment": ("payment_id",),
            "reference": ("reference",),
            "session": ("session_reference",),
            "at": ("created_at",),
            "currency": ("currency",),
            "gross": ("amount",),
            "fee": ("fee",),
            "tax": ("tax",),
            "net": ("net",),
        },
        required=frozenset({"payout", "kind", "id", "payment", "at", "currency", "gross", "fee", "tax", "net"}),
        kinds={"capture": LineKind.SALE, "refund": LineKind.REFUND, "dispute": LineKind.CHARGEBACK},
        ids=("id", "payment", "reference", "session", "payout"),
        names=_names,
    ),
)
