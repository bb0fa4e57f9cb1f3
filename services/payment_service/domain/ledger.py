"""The double-entry sub-ledger: what a change of a payment's totals posts, as a pure function.

Postings follow from totals, and totals from facts, so the ledger ties to the totals by construction: the sum of every
posting of a payment is ``postings(PaymentState(), state)``, whatever path led there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.payment_service.domain.models import PaymentState
from shared.money import Money


class Account(StrEnum):
    """Per gateway and currency. Debits are positive, credits negative."""

    AUTHORIZATIONS_HELD = "authorizations_held"
    """Memo: funds held for us, not captured yet."""
    AUTHORIZATIONS_DUE = "authorizations_due"
    """Memo: the other side of it."""
    GATEWAY_RECEIVABLE = "gateway_receivable"
    """What the gateway owes us before fees: captured, less refunds, disputes and what it took beyond, less payouts."""
    CUSTOMER_PAYMENTS = "customer_payments"
    """What shoppers paid for orders, less what is going back to them."""
    REFUNDS_PENDING = "refunds_pending"
    """Reserved for refunds that are not confirmed yet."""
    DISPUTES_WITHHELD = "disputes_withheld"
    """Taken by the gateway while a dispute is open."""
    DISPUTE_LOSSES = "dispute_losses"
    RETURNED_IN_EXCESS = "returned_in_excess"
    """What refunds and disputes took beyond what was captured: the gateway has it, and a person has to look."""
    GATEWAY_FEES = "gateway_fees"
    """Brought by settlement."""
    PAYOUTS = "payouts"
    """Brought by settlement: on its way to, or on, our bank account."""


@dataclass(frozen=True, slots=True)
class Posting:
    account: Account
    amount_minor: int


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """A posting as it was booked."""

    account: Account
    gateway: str
    amount: Money


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One change of a payment's totals. ``cause`` is the source of the fact that changed them."""

    entry_id: int
    payment_id: str
    payment_version: int
    cause: str
    at: datetime
    lines: tuple[LedgerLine, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    gateway: str
    account: Account
    amount: Money


def postings(before: PaymentState, after: PaymentState) -> tuple[Posting, ...]:
    """What changes between two states; sums to zero; no line for what stays the same."""
    pairs = (
        (Account.AUTHORIZATIONS_HELD, Account.AUTHORIZATIONS_DUE, _held(after) - _held(before)),
        (Account.GATEWAY_RECEIVABLE, Account.CUSTOMER_PAYMENTS, after.amount_captured - before.amount_captured),
        (
            Account.CUSTOMER_PAYMENTS,
            Account.REFUNDS_PENDING,
            after.amount_refund_pending - before.amount_refund_pending,
        ),
        (Account.CUSTOMER_PAYMENTS, Account.GATEWAY_RECEIVABLE, after.amount_refunded - before.amount_refunded),
        (Account.DISPUTES_WITHHELD, Account.GATEWAY_RECEIVABLE, _disputed(after) - _disputed(before)),
        (
            Account.DISPUTE_LOSSES,
            Account.GATEWAY_RECEIVABLE,
            after.amount_dispute_lost - before.amount_dispute_lost,
        ),
        # It is gone from what the gateway owes us, whether or not it fits our totals: settlement will say so too.
        (Account.RETURNED_IN_EXCESS, Account.GATEWAY_RECEIVABLE, after.amount_excess - before.amount_excess),
    )
    sums: dict[Account, int] = {}
    for debit, credit, amount in pairs:
        sums[debit] = sums.get(debit, 0) + amount
        sums[credit] = sums.get(credit, 0) - amount
    return tuple(Posting(account, amount) for account, amount in sums.items() if amount)


def _held(state: PaymentState) -> int:
    return max(0, state.amount_authorized - state.amount_captured)


def _disputed(state: PaymentState) -> int:
    return state.amount_disputed - state.amount_dispute_lost
