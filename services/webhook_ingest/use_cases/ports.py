"""What the use cases need from outside, as Protocols: db/ satisfies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.webhook_ingest.domain.models import (
    Announcement,
    Delivery,
    DeliveryFilter,
    DeliverySummary,
    Reject,
    Replay,
)
from shared.unit_of_work import TransactionPort


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Which delivery the gateway's message is: the new one, or the one that came first."""

    delivery_id: str
    is_duplicate: bool
    body_digest: bytes


class DeliveryStore(Protocol):
    async def append(self, delivery: Delivery) -> AppendResult:
        """Store a delivery and its event, unless the same delivery is there already.

        Returns after the commit that holds it, or after the fsync of the spool that does. Raises DatabaseUnavailable
        (it may or may not be stored, and sending it again is right), StoreFull or DeliveryNotStorable.
        """
        ...


class Deliveries(Protocol):
    async def find(self, delivery_id: str) -> Delivery | None: ...
    async def search(self, criteria: DeliveryFilter) -> list[DeliverySummary]: ...
    async def announcements_of(self, delivery_id: str) -> list[Announcement]: ...
    async def select_for_replay(
        self, *, gateway: str, since: datetime, until: datetime, after_id: str | None, limit: int
    ) -> list[Delivery]:
        """Oldest first, with those whose contents are gone."""
        ...


class Rejects(Protocol):
    async def keep(self, reject: Reject) -> None:
        """The newest of each gateway stay; an older one gives way when there are too many."""
        ...

    async def search(self, *, gateway: str | None, before_id: str | None, limit: int) -> list[Reject]: ...


class Replays(Protocol):
    async def add(self, replay: Replay) -> None: ...
    async def of_delivery(self, delivery_id: str) -> Sequence[Replay]: ...


class IngestTransactionPort(TransactionPort, Protocol):
    @property
    def deliveries(self) -> Deliveries: ...

    @property
    def rejects(self) -> Rejects: ...

    @property
    def replays(self) -> Replays: ...


UnitOfWorkPort = Callable[[], AbstractAsyncContextManager[IngestTransactionPort]]
