"""What other services read of payment_service's payment document (``GET`` and ``POST /api/v1/payments/…``).

Lenient where it can be: what is added there later is left alone. Strict where money is decided by it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.contracts.envelope import MinorUnits, MoneyData
from shared.contracts.payment_events import PaymentStatusName
from shared.errors import InvalidAmount
from shared.money import Money

ObjectId = Annotated[str, Field(min_length=1, max_length=64)]


class PaymentDocument(BaseModel):
    """The payment as a whole; each reader adds what else it needs. Totals are minor units of ``amount.currency``."""

    model_config = ConfigDict(extra="ignore")

    payment_id: ObjectId
    order_id: ObjectId
    gateway: ObjectId
    status: PaymentStatusName
    version: int = Field(ge=1, strict=True)
    amount: MoneyData
    amount_authorized: MinorUnits = 0
    amount_captured: MinorUnits = 0
    amount_refund_pending: MinorUnits = 0
    amount_refunded: MinorUnits = 0
    amount_disputed: MinorUnits = 0
    amount_dispute_lost: MinorUnits = 0
    amount_excess: MinorUnits = 0
    outcome_unknown: bool = Field(False, strict=True)
    method: str | None = Field(None, max_length=40)

    @field_validator("amount")
    @classmethod
    def _is_money(cls, amount: MoneyData) -> MoneyData:
        """A currency that this release does not know makes the answer unreadable; it is nobody's mistake."""
        try:
            Money(amount.amount_minor, amount.currency)
        except InvalidAmount as error:
            raise ValueError(error.detail) from error
        return amount

    @property
    def money(self) -> Money:
        return Money(self.amount.amount_minor, self.amount.currency)
