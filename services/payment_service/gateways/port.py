"""What every gateway adapter offers. An adapter returns what happened and decides nothing.

Adapters know no database, broker, framework, environment or clock: they translate. Their errors are those of
``shared.errors``: GatewayRejected (refused, nothing moved), GatewayUnavailable (never reached), GatewayOutcomeUnknown
(ask).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol

from services.payment_service.domain.models import CaptureMode, Customer, Item, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from shared.errors import GatewayOutcomeUnknown
from shared.money import Money


class Capability(StrEnum):
    """What a gateway can do. What is not listed is answered 422 `capability_not_supported`."""

    REDIRECT = "redirect"
    FORM_POST = "form_post"
    MANUAL_CAPTURE = "manual_capture"
    PARTIAL_CAPTURE = "partial_capture"
    SEVERAL_CAPTURES = "several_captures"
    VOID = "void"
    REFUND = "refund"
    PARTIAL_REFUND = "partial_refund"
    CLOSE_SESSION = "close_session"
    RETRIEVE = "retrieve"
    FIND_BY_REFERENCE = "find_by_reference"
    LIST_BY_WINDOW = "list_by_window"
    DISPUTES = "disputes"
    SETTLEMENT_REPORT = "settlement_report"


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
class Listed:
    """One payment in a gateway's list. ``our_references``: what it echoes of ours (attempt reference, payment id)."""

    references: tuple[str, ...]
    our_references: tuple[str, ...]
    observations: tuple[Observation, ...]
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ListPage:
    """``next_cursor`` is the gateway's business; None: this was the last page."""

    entries: tuple[Listed, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class SettlementReport:
    """The gateway's own report of a day. ``format`` names its shape for those who read it (the reconciler's
    settlement_formats); ``content`` is the gateway's own words, all pages in one document, without shoppers' data."""

    name: str
    format: str
    content_type: str
    content: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified webhook: its body as text, without personal data (shared/contracts/webhook_events.py).

    Of an encrypted or enveloped body it is the content, with the content's own type.
    """

    content_type: str
    payload: str
    event_type: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """A webhook's translation.

    ``references``: the gateway's ids of the payment; ``our_references``: what it echoes of ours (attempt reference,
    payment id, order id). ``must_ask``: the event does not say enough to be believed alone. ``asks_about``: names that
    the gateway is to be asked about although nobody vouches for them; ``retrieve`` gets them among its references, and
    believes of them only what the gateway itself says belongs to this payment. ``ignored`` says why an event is of no
    interest; it is counted and that is all.
    """

    event_type: str
    references: tuple[str, ...] = ()
    our_references: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = ()
    must_ask: bool = False
    asks_about: tuple[str, ...] = ()
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class MoneyCall:
    """One capture, void, refund or completion. Every field stays the same when the call is repeated.

    ``reference`` is ours (20 letters and digits) and is sent wherever the gateway echoes or searches by it.
    ``target`` is the gateway's object that it takes from: for a capture or void the object that AUTHORIZED named, for a
    refund the one that CAPTURED named, for a completion the one that APPROVED named. ``references`` are all ids of the
    payment at the gateway. ``is_whole``: the amount is all that the target still has. ``is_final``: a capture after
    which the rest of the hold is to be released.
    """

    kind: OperationKind
    reference: str
    idempotency_key: str
    amount: Money
    target: str
    is_whole: bool
    is_final: bool
    reason: str | None
    payment_id: str
    order_id: str
    our_reference: str
    """The attempt's reference, under which the session was opened."""
    capture: CaptureMode
    references: tuple[str, ...]
    first_sent_at: datetime
    """When it was first sent: where to begin looking."""


class KeyUsedUp(GatewayOutcomeUnknown):
    """The gateway replays a stored failure under this key, and a look has shown that nothing ran under it."""


class OutcomeStatus(StrEnum):
    SUCCEEDED = "succeeded"
    PENDING = "pending"
    FAILED = "failed"
    """The gateway has a record of it, and that record says it failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a gateway made of a money call. ``gateway_reference`` is its own id for it (a refund's id, a capture's id).

    ``observations`` are the facts about the payment that come with the answer (CAPTURED, AUTHORIZED, CANCELED, RELEASED
    and so on); the operation's own fact is made from ``status`` by the caller.
    """

    status: OutcomeStatus
    gateway_reference: str
    failure_code: str | None = None
    references: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = ()


class UnreadableWebhook(Exception):
    """A verified delivery whose content is not what the gateway documents."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A gateway's standing facts. ``currencies`` None: any ISO 4217 currency.

    ``authorization_valid_for``: how long funds stay held. ``key_valid_for``: how long a money call may be repeated
    under its key without running again (None: it has no such key, and the call is never repeated blindly).
    ``absence_proves_after``: how long after the last call "the gateway knows nothing of it" proves that it never ran
    (None: never). ``unknown_horizon``: after this long without an answer a person is called. ``not_offered``: for each
    capability that is missing, the reason in a few words (tests hold the two complete). ``blurb``: what a shopper reads
    under the name.
    """

    name: str
    display_name: str
    capabilities: frozenset[Capability]
    currencies: frozenset[str] | None
    authorization_valid_for: timedelta | None = None
    key_valid_for: timedelta | None = None
    completion_key_valid_for: timedelta | None = None
    """Where completions' keys live shorter than those of other money calls. None: as long as they do."""
    absence_proves_after: timedelta | None = None
    unknown_horizon: timedelta = timedelta(hours=24)
    not_offered: Mapping[Capability, str] = field(default_factory=dict)
    blurb: str = "You pay on their secure page"
    expires_silently: str | None = None
    """The reason, where nothing is told or can be asked about a page whose time is over and that nobody paid."""
    refunds_are_final: str | None = None
    """The reason, where the answer to a refund is the last word: none is pending, and none fails later."""


class GatewayAdapter(Protocol):
    facts: Facts

    def check(self, amount: Money, capture: CaptureMode) -> None:
        """Raises CurrencyNotSupported or CapabilityNotSupported, before any call and any row."""
        ...

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        """Raises CurrencyNotSupported for an amount that this gateway cannot express in a capture or refund.

        What a gateway cannot do at all is read from its capabilities by the caller.
        """
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

    async def capture(self, call: MoneyCall) -> Outcome:
        """Take held money. Errors as the module says: GatewayRejected proves that nothing moved by this call.

        A refusal that only says "that is done already" is not a rejection: look, and answer with what is there, or
        raise GatewayOutcomeUnknown. A stored 5xx that the key replays for ever raises KeyUsedUp once a look has shown
        that nothing ran.
        """
        ...

    async def void(self, call: MoneyCall) -> Outcome:
        """Release held money. As ``capture``."""
        ...

    async def refund(self, call: MoneyCall) -> Outcome:
        """Give captured money back. As ``capture``."""
        ...

    async def complete(self, call: MoneyCall) -> Outcome:
        """Take (or hold, by ``call.capture``) the money of an approved session. Only where approval moves nothing."""
        ...

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        """What the gateway knows of this call, asked by our reference; None: it knows nothing of it (yet).

        The unknown-outcome protocol (use_cases/resolve_operations.py) decides what None means.
        """
        ...

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        """Payments that the gateway made in ``[since, until)``, for finding those that nobody told us of.

        Only where LIST_BY_WINDOW is offered; else raises GatewayRejected. May contain more than the window, never less.
        """
        ...

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        """What the gateway says moved, or was paid out, on a day of its own calendar; empty where nothing did.

        Only where SETTLEMENT_REPORT is offered; else raises GatewayRejected. Raises ReportTooLarge.
        """
        ...

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        """Raises UnreadableWebhook; no other exception, for any bytes."""
        ...
