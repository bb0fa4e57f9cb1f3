"""Where the money of a file, or of an account, is: per gateway and currency, whole minor units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from services.reconciler.domain.settlement import ABOUT_A_PAYMENT, LineKind, SettlementFile
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.settling_ports import KindSum

Totals = Mapping[str, object]
_DISPUTED = (LineKind.CHARGEBACK, LineKind.CHARGEBACK_REVERSAL)


async def totals_of_file(
    tx: ReconcilerTransaction, file: SettlementFile, context: Context, *, now: datetime
) -> tuple[Totals, ...]:
    """Lines that an earlier file told count nothing here but their number."""
    payouts = await tx.settlement.unexplained(file.gateway, file.account, in_all=False)
    sums = await tx.settlement.sums_by_kind()
    return await _totals(tx, file.gateway, file.account, sums, payouts, context, now)


async def totals_of_account(
    tx: ReconcilerTransaction, gateway: str, account: str, context: Context, *, now: datetime
) -> tuple[Totals, ...]:
    """What is still on its way, and what payouts leave unexplained."""
    payouts = await tx.settlement.unexplained(gateway, account, in_all=True)
    return await _totals(tx, gateway, account, (), payouts, context, now)


async def _totals(
    tx: ReconcilerTransaction,
    gateway: str,
    account: str,
    sums: Iterable[KindSum],
    payouts: Mapping[str, int],
    context: Context,
    now: datetime,
) -> tuple[Totals, ...]:
    rules = context.settlement_rules
    transit = await tx.settlement.in_transit(gateway, account, since=now - rules.delay(gateway))
    by_currency: dict[str, list[KindSum]] = defaultdict(list)
    for each in sums:
        by_currency[each.currency].append(each)
    return tuple(
        _of_currency(
            by_currency[currency],
            {
                "gateway": gateway,
                "account": account,
                "currency": currency,
                "in_transit_minor": transit.get(currency, 0),
                "payouts_unexplained_minor": payouts.get(currency, 0),
                "fees_checked": gateway in rules.fees,
            },
        )
        for currency in sorted(by_currency.keys() | transit.keys() | payouts.keys())
    )


def _of_currency(sums: Iterable[KindSum], heading: Mapping[str, object]) -> Totals:
    kinds: dict[str, dict[str, int]] = {}
    amounts: dict[str, int] = defaultdict(int)
    counts = {"matched": 0, "in_transit": 0, "disputed": 0, "unexplained": 0}
    repeated = 0
    for each in sums:
        if each.repeats:
            repeated += each.lines
            continue
        _add_kind(kinds, each)
        amounts["fees_minor"] += each.fee_minor - (each.gross_minor if each.kind == LineKind.FEE else 0)
        amounts["tax_minor"] += each.tax_minor - (each.gross_minor if each.kind == LineKind.TAX else 0)
        if each.kind == LineKind.RESERVE:
            amounts["reserves_minor"] -= each.gross_minor
        elif each.kind == LineKind.ADJUSTMENT:
            amounts["adjustments_minor"] += each.gross_minor
        elif each.kind == LineKind.PAYOUT:
            amounts["payouts_minor"] -= each.net_minor
        elif each.kind in ABOUT_A_PAYMENT:
            place = _place(each)
            amounts[f"{place}_minor"] += each.gross_minor
            counts[place] += each.lines
    names = ("matched", "disputed", "unexplained", "fees", "tax", "reserves", "adjustments", "payouts")
    found: dict[str, Any] = {f"{name}_minor": amounts[f"{name}_minor"] for name in names}
    return {**heading, **found, "kinds": kinds, "repeated_lines": repeated, "counts": counts}


def _place(each: KindSum) -> str:
    if each.kind in _DISPUTED:
        return "disputed"
    return "matched" if each.matched else "unexplained"


def _add_kind(kinds: dict[str, dict[str, int]], each: KindSum) -> None:
    of = kinds.setdefault(each.kind, dict.fromkeys(("lines", "gross_minor", "fee_minor", "tax_minor", "net_minor"), 0))
    for name in of:
        of[name] += getattr(each, name)
