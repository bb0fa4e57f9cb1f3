"""What the comparison of orders with payments needs from outside: exports, gateways' lists, and the mirror of both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from services.reconciler.domain.decisions import OrphanPolicy
from services.reconciler.domain.mirror import KnownOrder, KnownPayment
from shared.money import Money


class Source(StrEnum):
    """What is pulled; each has a mark of its own."""

    PAYMENTS = "payments"
    ORDERS = "orders"
    PARKED_EVENTS = "parked_events"


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    parked_id: str
    gateway: str
    account: str
    delivery_id: str
    event_type: str | None
    status: str
    references: tuple[str, ...]
    received_at: datetime


class ExportsClient(Protocol):
    """The owners' exports in batches, oldest change first. ``since`` None: all there is.

    Each raises ServiceUnavailable (its owner cannot be reached, or takes no token of ours) or ExportBroken (what came
    is not a whole export). Batches that were handed out before are good; only what follows is missing.
    """

    def payments(self, since: datetime | None) -> AsyncGenerator[Sequence[KnownPayment], None]: ...

    def orders(self, since: datetime | None) -> AsyncGenerator[Sequence[KnownOrder], None]: ...

    def parked_events(self) -> AsyncGenerator[Sequence[ParkedEvent], None]: ...


@dataclass(frozen=True, slots=True)
class ListedAtGateway:
    """A payment as its gateway lists it."""

    payment_id: str | None
    """Ours; None: the gateway has it and payment_service does not."""
    references: tuple[str, ...]
    """The gateway's ids."""
    our_references: tuple[str, ...]
    money: Money | None
    """What it took or holds; None: nothing."""
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class GatewayPage:
    entries: tuple[ListedAtGateway, ...]
    next_cursor: str | None


class GatewayListsClient(Protocol):
    async def gateways_with_lists(self) -> tuple[str, ...]:
        """Raises ServiceUnavailable or GatewayOutcomeUnknown."""
        ...

    async def page(
        self, gateway: str, account: str, since: datetime, until: datetime, cursor: str | None
    ) -> GatewayPage:
        """Raises GatewayUnavailable (this gateway cannot be asked now), GatewayOutcomeUnknown or ServiceUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class PairKey:
    """One order and one of its payments, whether or not both sides know it."""

    order_id: str
    payment_id: str


@dataclass(frozen=True, slots=True)
class Pair:
    key: PairKey
    order: KnownOrder | None
    payment: KnownPayment | None
    others: tuple[KnownPayment, ...] = ()
    """The order's other payments, as payment_service knows them."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which pairs are compared: of this gateway, created in the window, and at rest since ``settled_before``."""

    settled_before: datetime | None
    gateway: str | None = None
    window_from: datetime | None = None
    window_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice of the comparison found. ``next_after`` None: it was the last."""

    scanned: int
    """Pairs of the slice that lie in the scope."""
    suspects: tuple[PairKey, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A payment of ours that might be one that a gateway lists and nobody knows."""

    payment_id: str
    order_id: str
    status: str
    created_at: datetime


class MirrorRepository(Protocol):
    async def put_payments(self, payments: Sequence[KnownPayment]) -> int:
        """Those that are newer than what is known, with their references and movements. Returns how many were."""
        ...

    async def put_orders(self, orders: Sequence[KnownOrder]) -> int: ...

    async def put_parked_events(self, events: Sequence[ParkedEvent], *, seen_at: datetime) -> None: ...

    async def forget_parked_events(self, *, not_seen_since: datetime) -> int: ...

    async def marks(self) -> Mapping[Source, datetime]:
        """Until when each source has been read; absent: it never was, to its end."""
        ...

    async def whole_pulls(self) -> Mapping[Source, datetime]:
        """When each source was last begun to be read whole."""
        ...

    async def move_mark(self, source: Source, until: datetime, *, is_whole: bool, now: datetime) -> None:
        """Forwards only: a slower pull of another run does not take it back. But a mark that lies in the future, by a
        clock that was wrong, is corrected."""
        ...

    async def changed_between(self, source: Source, since: datetime, until: datetime) -> set[str]:
        """Ids of what is known of a source with a last change then."""
        ...

    async def versions(self, source: Source, ids: Sequence[str], *, before: datetime) -> Mapping[str, int]:
        """Of those that are known with a last change before then."""
        ...

    async def count(self, source: Source, *, before: datetime) -> int:
        """How many are known with a last change before then."""
        ...

    async def ids(self, source: Source, *, before: datetime, after: str, limit: int) -> list[str]:
        """Of what is known with a last change before then, in order."""
        ...

    async def forget(self, source: Source, ids: Sequence[str]) -> None:
        """Its owner has it no more, or has an older version of it, which may be put then."""
        ...

    async def payment(self, payment_id: str) -> KnownPayment | None: ...

    async def order(self, order_id: str) -> KnownOrder | None: ...

    async def knows_orders(self) -> bool: ...

    async def count_orders(self) -> int: ...

    async def slice(self, scope: Scope, *, after: str, limit: int) -> Slice:
        """Compares the next ``limit`` payments by id. Gives whatever may disagree; the rest stays in the database."""
        ...

    async def orders_of_nothing(self, scope: Scope, *, after: str, limit: int) -> list[PairKey]:
        """Confirmed orders whose payment neither side lists, by order id."""
        ...

    async def pairs(self, keys: Sequence[PairKey]) -> list[Pair]:
        """As they are known now, without references and movements."""
        ...

    async def unanswered(self, *, before: datetime, gateway: str | None, after: str, limit: int) -> list[KnownPayment]:
        """Payments with a call to the gateway that is unanswered since before then, by id."""
        ...

    async def parked_events(self, *, gateway: str | None, after: str, limit: int) -> list[ParkedEvent]:
        """By id."""
        ...

    async def parked_event(self, parked_id: str) -> ParkedEvent | None: ...

    async def known_by(self, gateway: str, account: str, references: Collection[str]) -> Mapping[str, str]:
        """Which of our payments these references name."""
        ...

    async def candidates(
        self, gateway: str, money: Money, *, near: datetime, within: timedelta, limit: int
    ) -> list[Candidate]:
        """Payments of this amount made about then, nearest first."""
        ...

    async def accounts(self, gateway: str) -> list[str]:
        """Those that payments are known of."""
        ...

    async def totals(self, scope: Scope) -> list[Mapping[str, object]]:
        """Per gateway and currency: where the money is, in minor units, and how many payments each counts."""
        ...

    async def without_effect(self, keys: Sequence[str], *, before: datetime) -> Mapping[str, datetime]:
        """Of unresolved cases with these keys: when the first command that changed nothing was sent, if before then."""
        ...


@dataclass(frozen=True, slots=True)
class OrderRules:
    """Limits of the comparison."""

    pull_overlap: timedelta
    """Owners set ``updated_at`` before they commit: what was committed late lies before the mark."""
    pull_whole_every: timedelta
    """How often everything is read, not only what has changed: what went back, is gone or was overlooked shows so."""
    accept_restored: bool
    """What an owner exports is taken, however much of what was there before it lacks."""
    grace: timedelta
    """A difference that is younger is no disagreement: its event is on its way."""
    unknown_outcome_after: timedelta
    unverified_after: timedelta
    orphan_policy: OrphanPolicy
    list_window: timedelta
    list_lag: timedelta
    cancel_limit: int
    """Orders canceled and payments refunded by policy in a day: more than that is no lost event but a lost database,
    and a person's to judge."""
