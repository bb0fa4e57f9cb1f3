"""What the use cases need from a database: the repositories of one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from services.gateway_sandbox.domain.deliveries import Delivery
from services.gateway_sandbox.domain.faults import Fault
from services.gateway_sandbox.domain.models import BookCapture, BookDispute, BookEntry, BookRefund, Operation
from services.gateway_sandbox.gateways.port import EntryFilter, WireAnswer


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a gateway answered the first time an idempotency key was seen."""

    fingerprint: bytes
    answer: WireAnswer


class Entries(Protocol):
    async def find(self, gateway: str, reference: str, *, for_update: bool = False) -> BookEntry | None:
        """By the gateway's session or payment id, or by any other id that it gave this payment."""
        ...

    async def add_alias(self, entry: BookEntry, alias: str) -> None: ...

    async def find_newest_by_reference(self, gateway: str, reference: str) -> BookEntry | None: ...

    async def search(self, gateway: str, wanted: EntryFilter) -> list[BookEntry]:
        """Newest first."""
        ...

    async def add(self, entry: BookEntry) -> None: ...

    async def save(self, entry: BookEntry) -> None: ...

    async def gateways_with_expired(self, now: datetime) -> set[str]:
        """Where ``lock_expired`` would find something: one look instead of one at each gateway."""
        ...

    async def lock_expired(self, now: datetime, *, gateway: str | None, limit: int) -> list[BookEntry]:
        """Open sessions and holds whose time is over, locked; those that another transaction works on are left out."""
        ...


class Operations(Protocol):
    async def add(self, entry: BookEntry, operation: Operation) -> None: ...

    async def of(self, gateway: str, references: Sequence[str]) -> dict[str, list[Operation]]:
        """By gateway reference, in the order in which they happened."""
        ...


Record = TypeVar("Record", BookRefund, BookCapture, BookDispute)


class Records(Protocol[Record]):
    """Refunds, captures or disputes."""

    async def add(self, record: Record) -> None: ...

    async def save(self, record: Record) -> None: ...

    async def find(self, gateway: str, identifier: str) -> Record | None: ...

    async def of(self, gateway: str, references: Sequence[str]) -> dict[str, list[Record]]:
        """By gateway reference, newest first."""
        ...


class StoredAnswers(Protocol):
    async def lock(self, gateway: str, key: str) -> bool:
        """False when another transaction holds the key; the lock ends with the transaction, so a kill frees it."""
        ...

    async def find(self, gateway: str, key: str) -> StoredAnswer | None: ...

    async def add(self, gateway: str, key: str, stored: StoredAnswer, now: datetime) -> None: ...

    async def forget_before(self, moment: datetime) -> int: ...


class Faults(Protocol):
    async def take(self, gateway: str, operations: Sequence[str]) -> Fault | None:
        """Use up one hit of the first fault in the list that applies to one of the operations and lets it not pass."""
        ...

    async def replace(self, gateway: str, faults: Sequence[Fault]) -> None: ...

    async def of(self, gateway: str) -> list[Fault]: ...


class Deliveries(Protocol):
    async def add(self, deliveries: Sequence[Delivery]) -> None: ...

    async def claim(self, now: datetime, lease_until: datetime, limit: int) -> list[Delivery]:
        """Due deliveries with their try counted and their next one moved to the lease's end (kill -9 loses none)."""
        ...

    async def save_result(self, delivery: Delivery) -> None: ...

    async def release_held_before(self, delivery: Delivery, now: datetime) -> int: ...

    async def of(self, gateway: str, gateway_references: Sequence[str] | None = None) -> list[Delivery]: ...


class SandboxTransaction(Protocol):
    entries: Entries
    operations: Operations
    refunds: Records[BookRefund]
    captures: Records[BookCapture]
    disputes: Records[BookDispute]
    answers: StoredAnswers
    faults: Faults
    deliveries: Deliveries

    def savepoint(self) -> AbstractAsyncContextManager[object]: ...

    async def forget_everything(self, gateway: str) -> None:
        """Empty a gateway's books: payments with all that belongs to them, stored answers, deliveries."""
        ...


UnitOfWork = Callable[[], AbstractAsyncContextManager[SandboxTransaction]]
