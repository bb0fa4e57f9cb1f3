"""What the owners of payments and orders export for the reconciler: a JSON document a line (``application/x-ndjson``).

Each line is an object with one key that says what it is: ``payment``, ``order`` or ``parked_event``. The last line is
``{"end": {"count": n}}``; a stream without it broke off, and only what came before it may be kept. Documents come in
the order of ``updated_at``, oldest first. Nothing here is personal data.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.envelope import CurrencyCode, MinorUnits, MoneyData, Rfc3339
from shared.contracts.order_events import AttentionName, OrderPaymentStatusName, OrderStatusName
from shared.contracts.payment_documents import ObjectId, PaymentDocument
from shared.contracts.payment_events import PaymentStatusName

NDJSON = "application/x-ndjson"


class _Exported(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ExportedMovement(_Exported):
    """A capture, a refund or a chargeback that succeeded, with the gateway's id of it.

    ``withheld``: a dispute that is open, of which gateways may hold the money back until it is decided; it counts in no
    total but ``amount_disputed``.
    """

    kind: Literal["sale", "refund", "chargeback", "withheld"]
    reference: str = Field(min_length=1, max_length=255)
    our_reference: str | None = Field(None, max_length=255)
    amount_minor: MinorUnits = Field(description="positive")
    currency: CurrencyCode
    occurred_at: Rfc3339


class ExportedPayment(PaymentDocument):
    """A payment with every id that it is known by, and the money that moved at the gateway."""

    account: str | None = Field(None, max_length=64)
    gateway_reference: str | None = None
    conflict: str | None = None
    duplicate_of: str | None = None
    unknown_since: Rfc3339 | None = Field(None, description="when the oldest call still unanswered was sent")
    created_at: Rfc3339
    updated_at: Rfc3339
    references: list[str] = Field(description="the gateway's ids of it, and ours at the gateway")
    movements: list[ExportedMovement]


class ExportedOrderPayment(_Exported):
    """A payment as the order knows it."""

    payment_id: ObjectId
    status: PaymentStatusName
    version: int = Field(ge=0, strict=True, description="0: the payment service has not spoken yet")
    amount_captured: MinorUnits = 0
    amount_refunded: MinorUnits = 0
    resolution: str | None = None


class ExportedOrder(_Exported):
    order_id: ObjectId
    status: OrderStatusName
    payment_status: OrderPaymentStatusName
    attention: AttentionName | None = None
    total: MoneyData
    confirmed_by: str | None = None
    version: int = Field(ge=1, strict=True)
    created_at: Rfc3339
    updated_at: Rfc3339
    payments: list[ExportedOrderPayment]


class ExportedParkedEvent(_Exported):
    """A verified webhook that no payment claimed in time, or that could not be read."""

    parked_id: ObjectId
    gateway: ObjectId
    account: str | None = None
    delivery_id: ObjectId
    event_type: str | None = None
    status: Literal["unclaimed", "unreadable"]
    references: list[str]
    received_at: Rfc3339


class EndOfExport(_Exported):
    count: int = Field(ge=0, strict=True)
