"""The ledger for people and reports: balances with their trial balance, and entries with their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.payment_service.domain.ledger import Balance, LedgerEntry
from services.payment_service.use_cases.ports import Context, LedgerFilter
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Balances:
    balances: Sequence[Balance]
    trial_balance: Sequence[Money]
    """The sum of all balances of a currency: zero, or the ledger is broken."""
    at: datetime


async def read_balances(
    context: Context, *, gateway: str | None = None, currency: str | None = None, at: datetime | None = None
) -> Balances:
    """The balance of every account that was ever posted to, now or as it was at a moment."""
    async with context.uow() as tx:
        balances = await tx.ledger.balances(gateway=gateway, currency=currency, at=at)
    return Balances(balances, _trial_balance(balances), at or context.clock.now())


def _trial_balance(balances: Sequence[Balance]) -> list[Money]:
    sums: dict[str, Money] = {}
    for balance in balances:
        sums[balance.amount.currency] = sums.get(balance.amount.currency, Money(0, balance.amount.currency)) + (
            balance.amount
        )
    return [sums[currency] for currency in sorted(sums)]


async def read_entries(
    context: Context, filter_: LedgerFilter, *, before: int | None, limit: int
) -> tuple[list[LedgerEntry], int | None]:
    """A page of entries, newest first, and where the next one begins."""
    async with context.uow() as tx:
        found = await tx.ledger.entries(filter_, before=before, limit=limit + 1)
    page = found[:limit]
    return page, page[-1].entry_id if len(found) > limit else None
