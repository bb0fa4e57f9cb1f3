"""Commands: events that ask another service to move money or goods. They are signed by their sender (XS25).

Write access to the broker is not power to refund: the receiver checks ``signature`` against the sender's key before it
does anything. What is signed is the command's canonical JSON without the signature, with its type; it names all that it
is about itself, so the envelope around it needs no trust.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from shared.contracts.envelope import CurrencyCode, EventData, MinorUnits, Rfc3339
from shared.contracts.payment_events import PaymentEventData


class Command(EventData):
    """``command_key`` is what makes it the same command for ever: repeated, it does nothing more."""

    sender: str = Field(min_length=1, max_length=40)
    command_key: str = Field(min_length=1, max_length=100)
    signature: str = ""

    def signed(self, key: bytes) -> Self:
        """A copy with its signature. ``key`` is the sender's own, at least 32 bytes."""
        return self.model_copy(update={"signature": _sign(self, key)})

    def is_signed_by(self, keys: Sequence[bytes]) -> bool:
        """Whether one of the sender's keys (several while they are rotated) signed exactly this."""
        return any(hmac.compare_digest(self.signature.encode(), _sign(self, key).encode()) for key in keys)


class RefundRequested(Command):
    """Give back all that this payment still has: captured money is refunded, held money is released."""

    TYPE: ClassVar[str] = "refund.requested.v1"

    payment_id: str
    order_id: str
    reason: Literal["late_payment", "duplicate_payment", "order_canceled", "reconciliation"]


class PaymentSyncRequested(Command):
    """Ask the gateway about this payment now."""

    TYPE: ClassVar[str] = "payment.sync_requested.v1"

    payment_id: str


class OrderConfirmRequested(Command):
    """The payment's true state, for an order that does not know it: the order settles by it and by its policies.

    ``command_key`` is a case's id. Nothing here says what the order should become: that stays order_service's decision.
    """

    TYPE: ClassVar[str] = "order.confirm_requested.v1"

    order_id: str
    payment: PaymentEventData


class OrderCancelRequested(Command):
    """What confirmed this order is not there: cancel it and restore its stock; what was charged is given back.

    ``payment`` is that payment's true state; None: payment_service does not know it, which order_service asks it again
    before it believes so. Obeyed only while the order is confirmed by this payment, the payment's newest state shows no
    money, payment_service never told of it if it is absent, and no other payment of the order has money.
    """

    TYPE: ClassVar[str] = "order.cancel_requested.v1"

    order_id: str
    payment_id: str
    payment: PaymentEventData | None = None


class SettlementBooked(Command):
    """What a settlement file says beside payments, for the ledger: totals per payout and currency, in minor units.

    ``command_key`` names the file, payout and currency: booked once. Costs are positive; an amount given back negative.
    """

    TYPE: ClassVar[str] = "settlement.booked.v1"

    gateway: str
    account: str = ""
    file_id: str
    payout_reference: str | None = None
    currency: CurrencyCode
    fees_minor: MinorUnits = Field(0, description="fees that the gateway kept, tax not included")
    tax_minor: MinorUnits = Field(0, description="tax on those fees")
    reserve_minor: MinorUnits = Field(0, description="kept back in reserve; negative: let go")
    adjustment_minor: MinorUnits = Field(0, description="taken by other adjustments; negative: credited")
    conversion_minor: MinorUnits = Field(
        0, description="settled in another currency; negative: what came of another currency's payments"
    )
    payout_minor: MinorUnits = Field(0, description="paid out to our bank; negative: a payout came back")
    settled_at: Rfc3339 | None = None


def _sign(command: Command, key: bytes) -> str:
    content = command.model_dump(mode="json", exclude={"signature"})
    canonical = json.dumps([command.TYPE, content], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()
