"""The double-entry sub-ledger: what a change of a payment's totals posts, as a pure function.

Postings follow from totals, and totals from facts, so the ledger ties to the totals by construction: the sum of every
posting of a payment is ``postings(PaymentState(), state)``, whatever path led there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.payment_service.domain.models import PaymentState


class Account(StrEnum):
    """Per gateway and currency. Debits are positive, credits negative."""

    AUTHORIZATIONS_HELD = "authorizations_held"
    """Memo: funds held for us, not captured yet."""
    AUTHORIZATIONS_DUE = "authorizations_due"
    """Memo: the other side of it."""
    GATEWAY_RECEIVABLE = "gateway_receivable"
    """What the gateway owes us before fees: captured, less refunds and disputes, less payouts."""
    CUSTOMER_PAYMENTS = "customer_payments"
    """What shoppers paid for orders, less what is going back to them."""
    REFUNDS_PENDING = "refunds_pending"
    """Reserved for refunds that are not confirmed yet."""
    DISPUTES_WITHHELD = "disputes_withheld"
    """Taken by the gateway while a dispute is open."""
    DISPUTE_LOSSES = "dispute_losses"
    GATEWAY_FEES = "gateway_fees"
    """Brought by settlement."""
    PAYOUTS = "payouts"
    """Brought by settlement: on its way to, or on, our bank account."""


@dataclass(frozen=True, slots=True)
class Posting:
    account: Account
    amount_minor: int


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
