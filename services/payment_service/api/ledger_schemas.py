"""The JSON of the ledger. Debits are positive, credits negative."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from services.payment_service.api.fields import MoneyOut
from services.payment_service.domain.ledger import Account, Balance, LedgerEntry, LedgerLine
from services.payment_service.use_cases.read_ledger import Balances
from shared.contracts.envelope import Rfc3339
from shared.money import Money

CurrencyIn = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
EntryCursor = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")]
"""A number of at most 18 digits: every BIGINT of the column fits, and nothing larger reaches the database."""


def _money(amount: Money) -> MoneyOut:
    return MoneyOut(amount_minor=amount.amount_minor, currency=amount.currency)


class BalanceOut(BaseModel):
    gateway: str
    account: Account
    balance: MoneyOut = Field(description="debits less credits")

    @classmethod
    def of(cls, balance: Balance) -> BalanceOut:
        return cls(gateway=balance.gateway, account=balance.account, balance=_money(balance.amount))


class BalancesOut(BaseModel):
    """The balance of every account, per gateway and currency."""

    at: Rfc3339
    data: list[BalanceOut]
    trial_balance: list[MoneyOut] = Field(description="the sum of all balances of a currency: always 0")

    @classmethod
    def of(cls, read: Balances) -> BalancesOut:
        return cls(
            at=read.at,
            data=[BalanceOut.of(balance) for balance in read.balances],
            trial_balance=[_money(amount) for amount in read.trial_balance],
        )


class LineOut(BaseModel):
    account: Account
    gateway: str
    amount: MoneyOut = Field(description="a debit is positive, a credit negative")

    @classmethod
    def of(cls, line: LedgerLine) -> LineOut:
        return cls(account=line.account, gateway=line.gateway, amount=_money(line.amount))


class EntryOut(BaseModel):
    """One change of a payment's totals, or one settlement; its postings sum to zero."""

    entry_id: str
    payment_id: str | None = Field(description="null: a settlement")
    payment_version: int | None = Field(description="the version that the change made; null: a settlement")
    source_key: str | None = Field(description="of a settlement: names its file, payout and currency")
    cause: str = Field(
        description="where it was learnt: webhook, return, sweep, api, operator, resolver; or settlement"
    )
    at: Rfc3339
    postings: list[LineOut]

    @classmethod
    def of(cls, entry: LedgerEntry) -> EntryOut:
        return cls(
            entry_id=str(entry.entry_id),
            payment_id=entry.payment_id,
            payment_version=entry.payment_version,
            source_key=entry.source_key,
            cause=entry.cause,
            at=entry.at,
            postings=[LineOut.of(line) for line in entry.lines],
        )


class EntryPage(BaseModel):
    data: list[EntryOut]
    next_cursor: str | None
