"""The double-entry sub-ledger: what a change of a payment's totals posts, and what a settlement posts: pure functions.

Postings of a payment follow from its totals, and totals from facts, so the ledger ties to the totals by construction:
the sum of every posting of a payment is ``postings(PaymentState(), state)``, whatever path led there. What a settlement
says beside payments (fees, reserves, payouts) is booked once per command and belongs to no payment.
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
    """What the gateway still owes us: captured, less refunds, disputes and what it took beyond, less what settlement
    brought: fees and their taxes, reserves, adjustments, payouts."""
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
    """Brought by settlement, like all that follow: what the gateway kept, its taxes not included."""
    GATEWAY_FEE_TAXES = "gateway_fee_taxes"
    """GST or VAT on those fees: a receivable from the tax office rather than a cost, where it can be deducted."""
    RESERVES_HELD = "reserves_held"
    """Ours, and kept back by the gateway for a while."""
    SETTLEMENT_ADJUSTMENTS = "settlement_adjustments"
    """Taken (or, in credit, given) by the gateway for reasons that no payment explains."""
    CURRENCY_CONVERSION = "currency_conversion"
    """What the gateway took over in one currency (debit) and gave us for it in another (credit)."""
    PAYOUTS = "payouts"
    """On its way to, or on, our bank account."""


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
    """One change of a payment's totals, or one settlement. ``cause`` is the source of the fact that changed the totals,
    or ``settlement``."""

    entry_id: int
    payment_id: str | None
    payment_version: int | None
    source_key: str | None
    """Of a settlement: the key of the command that booked it. Exactly one of this and the payment is there."""
    cause: str
    at: datetime
    lines: tuple[LedgerLine, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    gateway: str
    account: Account
    amount: Money


@dataclass(frozen=True, slots=True)
class SettlementTotals:
    """What a settlement says beside payments, in minor units. Positive is taken from what the gateway owes us."""

    fees_minor: int = 0
    tax_minor: int = 0
    reserve_minor: int = 0
    adjustment_minor: int = 0
    conversion_minor: int = 0
    payout_minor: int = 0


def settlement_postings(totals: SettlementTotals) -> tuple[Posting, ...]:
    """Sums to zero; no line for what is zero. What is given back (a negative amount) is posted the other way round."""
    taken = (
        (Account.GATEWAY_FEES, totals.fees_minor),
        (Account.GATEWAY_FEE_TAXES, totals.tax_minor),
        (Account.RESERVES_HELD, totals.reserve_minor),
        (Account.SETTLEMENT_ADJUSTMENTS, totals.adjustment_minor),
        (Account.CURRENCY_CONVERSION, totals.conversion_minor),
        (Account.PAYOUTS, totals.payout_minor),
    )
    owed_less = Posting(Account.GATEWAY_RECEIVABLE, -sum(amount for _, amount in taken))
    return tuple(line for line in (*(Posting(*each) for each in taken), owed_less) if line.amount_minor)


def postings(before: PaymentState, after: PaymentState) -> tuple[Posting, ...]:
    """What changes between two states; sums to zero; no line for what stays the same."""
    held = _held(after) - _held(before)
    captured = after.amount_captured - before.amount_captured
    pending = after.amount_refund_pending - before.amount_refund_pending
    refunded = after.amount_refunded - before.amount_refunded
    disputed = _disputed(after) - _disputed(before)
    lost = after.amount_dispute_lost - before.amount_dispute_lost
    excess = after.amount_excess - before.amount_excess
    # What was captured is owed to us by the gateway and was paid by a shopper; what goes back is taken off both. What
    # is disputed, lost or returned in excess is gone from what the gateway owes, whether or not it fits our totals:
    # settlement will say so too. What is reserved is still owed.
    changes = (
        (Account.AUTHORIZATIONS_HELD, held),
        (Account.AUTHORIZATIONS_DUE, -held),
        (Account.GATEWAY_RECEIVABLE, captured - refunded - disputed - lost - excess),
        (Account.CUSTOMER_PAYMENTS, pending + refunded - captured),
        (Account.REFUNDS_PENDING, -pending),
        (Account.DISPUTES_WITHHELD, disputed),
        (Account.DISPUTE_LOSSES, lost),
        (Account.RETURNED_IN_EXCESS, excess),
    )
    return tuple(Posting(account, amount) for account, amount in changes if amount)


def _held(state: PaymentState) -> int:
    return max(0, state.amount_authorized - state.amount_captured)


def _disputed(state: PaymentState) -> int:
    return state.amount_disputed - state.amount_dispute_lost
