"""The CloudEvents 1.0 envelope (structured JSON mode) that carries every event, and the base of the event models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from shared.clock import to_rfc3339

CONTENT_TYPE = "application/cloudevents+json"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
"""Of a message that carries an array of envelopes."""

MAX_SUBJECT = 64

Rfc3339 = Annotated[datetime, PlainSerializer(to_rfc3339, return_type=str, when_used="json")]
"""A moment that is written as ``2026-01-02T03:04:05.678901Z``."""

MinorUnits = Annotated[int, Field(ge=-(10**18), le=10**18, strict=True)]
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class EventData(BaseModel):
    """The ``data`` of one event type. ``TYPE`` ends in its major version.

    Readers are tolerant: a field added later is ignored by an older consumer (failure Q20). No model carries personal
    data (SEC-25): names, addresses and e-mails stay in the database of the service that owns them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    TYPE: ClassVar[str]


class MoneyData(BaseModel):
    """Money on the wire: integer minor units and an ISO 4217 code."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    amount_minor: MinorUnits
    currency: CurrencyCode


class EventEnvelope(BaseModel):
    """One event on the wire.

    ``sequence`` counts from 1 without gaps per ``subject`` (the aggregate's id), so a consumer can tell that it missed
    one; ``correlationid`` is the order's id; ``causationid`` is the event or delivery that led to this one.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1, max_length=64)
    type: str = Field(min_length=1, max_length=100)
    source: str = Field(min_length=1, max_length=100)
    subject: str = Field(min_length=1, max_length=MAX_SUBJECT)
    time: Rfc3339
    datacontenttype: Literal["application/json"] = "application/json"
    sequence: int = Field(ge=1)
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    data: dict[str, Any]

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Raises pydantic.ValidationError (a ValueError) for anything that is not an envelope."""
        return cls.model_validate_json(body)
