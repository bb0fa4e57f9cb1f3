"""What every gateway adapter offers. An adapter returns what happened and decides nothing.

Adapters know no database, broker, framework, environment or clock: they translate. Their errors are those of
``shared.errors``: GatewayRejected (refused, nothing moved), GatewayUnavailable (never reached), GatewayOutcomeUnknown
(ask).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from services.payment_service.domain.models import CaptureMode, Customer, Item, NextAction, Observation
from shared.money import Money


class Capability(StrEnum):
    """What a gateway can do. What is not listed is answered 422 `capability_not_supported`."""

    REDIRECT = "redirect"
    FORM_POST = "form_post"
    MANUAL_CAPTURE = "manual_capture"
    CLOSE_SESSION = "close_session"
    RETRIEVE = "retrieve"
    FIND_BY_REFERENCE = "find_by_reference"


@dataclass(frozen=True, slots=True)
class CreateSession:
    """``idempotency_key`` and every field stay the same when the call is repeated after an unknown outcome."""

    reference: str
    idempotency_key: str
    payment_id: str
    order_id: str
    amount: Money
    capture: CaptureMode
    description: str
    customer: Customer
    items: tuple[Item, ...]
    return_url: str
    cancel_url: str
    expires_at: datetime
    attempted_at: datetime
    """When this was first asked for: where to begin looking for what an unanswered call left."""


@dataclass(frozen=True, slots=True)
class Session:
    """An open hosted page. ``references`` is every id the gateway may later call it by."""

    gateway_reference: str
    next_action: NextAction
    expires_at: datetime | None
    references: tuple[str, ...]
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the gateway says about a payment when asked."""

    references: tuple[str, ...]
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified webhook: its body as text, without personal data (shared/contracts/webhook_events.py)."""

    content_type: str
    payload: str
    event_type: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """A webhook's translation.

    ``references``: the gateway's ids of the payment; ``our_references``: what it echoes of ours (attempt reference,
    payment id, order id). ``must_ask``: the event does not say enough to be believed alone. ``ignored`` says why an
    event is of no interest; it is counted and that is all.
    """

    event_type: str
    references: tuple[str, ...] = ()
    our_references: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = ()
    must_ask: bool = False
    ignored: str | None = None


class UnreadableWebhook(Exception):
    """A verified delivery whose content is not what the gateway documents."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A gateway's standing facts, for GET /api/v1/gateways. ``currencies`` None: any ISO 4217 currency."""

    name: str
    display_name: str
    capabilities: frozenset[Capability]
    currencies: frozenset[str] | None


class GatewayAdapter(Protocol):
    facts: Facts

    def check(self, amount: Money, capture: CaptureMode) -> None:
        """Raises CurrencyNotSupported or CapabilityNotSupported, before any call and any row."""
        ...

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """Open a hosted page. ``repeated``: an earlier call with this key was not answered, so one may exist
        already."""
        ...

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """Ask about a payment by any of its references. Raises GatewayObjectNotFound where the gateway knows none."""
        ...

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """End an open session so that it cannot be paid any more; where it is no longer open, say what became of it."""
        ...

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        """Raises UnreadableWebhook; no other exception, for any bytes."""
        ...
