"""What PayPal's event codes (T-codes) mean for the balance."""

from __future__ import annotations

from collections.abc import Mapping

from services.reconciler.domain.settlement import LineKind
from services.reconciler.settlement_formats.cells import SIGNS, BadCell, shown

_CODES: Mapping[str, LineKind] = {
    "T1105": LineKind.RESERVE,  # held for a dispute, and let go again
    "T1106": LineKind.CHARGEBACK,  # taken back by PayPal
    "T1107": LineKind.REFUND,
    "T1108": LineKind.FEE,  # a fee that comes back
    "T1109": LineKind.FEE,
    "T1110": LineKind.RESERVE,
    "T1111": LineKind.RESERVE,
    "T1201": LineKind.CHARGEBACK,
    "T1202": LineKind.CHARGEBACK_REVERSAL,
    "T1500": LineKind.RESERVE,
    "T1501": LineKind.RESERVE,
    "T2103": LineKind.RESERVE,
    "T2104": LineKind.RESERVE,
}
_GROUPS: Mapping[str, LineKind] = {
    "T00": LineKind.SALE,
    "T01": LineKind.FEE,
    "T02": LineKind.ADJUSTMENT,  # one currency into another: two rows
    "T03": LineKind.ADJUSTMENT,  # from our bank
    "T04": LineKind.PAYOUT,
}
_NOT_MONEY = "T13"
"""Authorisations and voids: they hold, and move nothing."""


def kind_of(code: str, gross: int) -> LineKind | None:
    """None for what moves nothing on the balance. Raises BadCell for a code or a sign that makes no sense."""
    if len(code) != 5 or not code.isascii():
        raise BadCell("kind_unknown", f"{shown(code)} is no event code")
    if code.startswith(_NOT_MONEY):
        return None
    kind = _CODES.get(code) or _GROUPS.get(code[:3])
    if kind is None:
        raise BadCell("kind_unknown", f"what event code {shown(code)} moves is not known")
    if kind is LineKind.SALE and gross < 0:
        return LineKind.ADJUSTMENT  # a payment that we have made
    if gross * SIGNS.get(kind, 0) < 0:
        raise BadCell("sign_wrong", f"an amount with this sign does not suit event code {shown(code)}")
    return kind
