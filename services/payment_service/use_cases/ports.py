"""What the use cases need from outside: repositories in a transaction, adapters, time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.ledger import Account, Balance, LedgerEntry, Posting
from services.payment_service.domain.models import Attempt, Fact, ParkedEvent, ParkedStatus, Payment, PaymentStatus
from services.payment_service.domain.operations import Operation, OperationStatus
from services.payment_service.domain.snapshots import PaymentSnapshot
from services.payment_service.domain.timeline import TimelineEntry
from services.payment_service.gateways.port import GatewayAdapter
from services.payment_service.use_cases.recording_ports import (
    RecordingDisputes,
    RecordingFacts,
    RecordingLedger,
    RecordingOperations,
    RecordingParked,
    RecordingPayments,
    RecordingTimeline,
    TogetherTransaction,
    Wanted,
)
from services.payment_service.use_cases.turns import Turns
from shared.clock import Clock
from shared.ids import Ids
from shared.unit_of_work import TransactionPort

PARKED_CHANNEL = "parked"
OPERATIONS_CHANNEL = "operations"
"""Wakes the runner of operations."""


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    """``final`` False: payments of which the gateway may still say something new."""

    order_id: str | None = None
    status: PaymentStatus | None = None
    gateway: str | None = None
    gateway_reference: str | None = None
    final: bool | None = None


class PaymentRepository(RecordingPayments, Protocol):
    async def add(self, payment: Payment) -> bool:
        """False where the id exists already; nothing is changed then."""
        ...

    async def get(self, payment_id: str) -> Payment | None: ...

    async def references(self, payment_id: str) -> tuple[str, ...]:
        """The gateway's references of a payment, in the order in which they were learnt."""
        ...

    async def search(self, filter_: PaymentFilter, *, after: str | None, limit: int) -> list[Payment]: ...

    async def holds_to_warn(self, until: datetime, *, limit: int) -> list[str]:
        """Payments whose hold ends by then and of which nobody was warned."""
        ...

    async def holds_to_decide(
        self, until: datetime, request_key: str, *, gateways: Collection[str], only_wanted: bool, limit: int
    ) -> list[str]:
        """Payments at these gateways whose hold ends by then and that have no operation with this request key.
        ``only_wanted``: not those that were given up, or are their order's second."""
        ...

    async def holds_to_take(self, since: datetime, request_key: str, *, even_of_ended: bool, limit: int) -> list[str]:
        """Payments that the gateway was to capture by itself, held unchanged since then, that nobody gave up on, that
        are no order's second, and that have no operation with this request key. ``even_of_ended``: also those whose
        payment was said to be canceled before the money came."""
        ...

    async def holds_over(self, now: datetime, *, asked_before: datetime, limit: int) -> list[str]:
        """Payments whose hold should have ended, and that were not asked about since."""
        ...

    async def mark_asked(self, payment_id: str, at: datetime) -> None: ...


class AttemptRepository(Protocol):
    async def add(self, attempt: Attempt, *, leased_seconds: float | None = None) -> None:
        """With ``leased_seconds`` the attempt's own lease token holds the right to call the gateway from the start."""
        ...

    async def latest(self, payment_id: str) -> Attempt | None: ...

    async def lease(self, attempt: Attempt, *, token: str, seconds: float) -> bool:
        """Take the right to call the gateway for this attempt, and write the status that it has meanwhile. False, and
        nothing written, while another holder's lease lasts (database time)."""
        ...

    async def end_call(self, attempt: Attempt, *, token: str, even_if_overtaken: bool = False) -> bool:
        """Give the lease back and write what became of the call. False where the lease has passed to somebody else:
        then what was learnt is written only if it is the same whoever learns it (``even_if_overtaken``)."""
        ...


class OperationRepository(RecordingOperations, Protocol):
    async def get(self, operation_id: str) -> Operation | None: ...

    async def lease(self, operation_id: str, *, token: str, seconds: float) -> bool:
        """Take the right to call the gateway for it; False while another holder's lease lasts (database time)."""
        ...

    async def release(self, operation_id: str, *, token: str) -> bool:
        """False where the lease has passed to somebody else: then nothing about the call may be written."""
        ...

    async def holds(self, operation_id: str, *, token: str) -> bool:
        """Whether this lease still lasts (database time)."""
        ...

    async def take_due(self, now: datetime, *, token: str, seconds: float) -> Operation | None:
        """Lease one operation whose next look is due and which nobody holds; others' locks are skipped."""
        ...

    async def put_off(self, operation_id: str, until: datetime) -> None: ...

    async def count_unsettled(self) -> Mapping[OperationStatus, int]: ...


class TimelineRepository(RecordingTimeline, Protocol):
    async def of_payment(self, payment_id: str, *, limit: int | None = None) -> list[TimelineEntry]:
        """In the order in which they were written; of more than ``limit`` the newest."""
        ...

    async def facts_of(self, payment_id: str, *, limit: int) -> list[tuple[Fact, str | None]]:
        """The facts with what brought them, in the order in which they were learnt; of more than ``limit`` the
        newest."""
        ...


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    payment_id: str | None = None
    account: Account | None = None
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerMarks:
    """How far the tables that grow with every change of a payment have been looked at: the last row's number."""

    entry: int = 0
    fact: int = 0
    timeline: int = 0


class LedgerRepository(RecordingLedger, Protocol):
    async def book(
        self, source_key: str, gateway: str, currency: str, lines: Sequence[Posting], *, cause: str, at: datetime
    ) -> bool:
        """One entry that belongs to no payment. False, and nothing is done, where that key has booked before or there
        are no lines."""
        ...

    async def balances(
        self, *, gateway: str | None = None, currency: str | None = None, at: datetime | None = None
    ) -> list[Balance]: ...

    async def entries(self, filter_: LedgerFilter, *, before: int | None, limit: int) -> list[LedgerEntry]:
        """Newest first, each with all its lines; ``before`` is the last id of the page before."""
        ...

    async def marks(self) -> LedgerMarks:
        """The last row of each table now."""
        ...

    async def changed_payments(self, after: LedgerMarks, until: LedgerMarks) -> list[str]: ...

    async def some_payments(self, *, after: str, limit: int) -> list[str]:
        """The next ids in their order."""
        ...

    async def untied_payments(self, payment_ids: Sequence[str], *, limit: int) -> list[str]:
        """Those whose lines are not what their totals say, by account, gateway and currency."""
        ...

    async def unbalanced_entries(self, *, after: int, until: int, known: Sequence[int], limit: int) -> list[int]:
        """Entries, of these numbers or known ones, that do not sum to zero for each gateway and currency."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page of an export begins: behind this time and id."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class ParkedForAPerson:
    """A parked event that is unclaimed or unreadable, without its payload."""

    parked_id: str
    gateway: str
    account: str | None
    delivery_id: str
    event_type: str | None
    status: str
    references: tuple[str, ...]
    received_at: datetime


class ExportRepository(Protocol):
    async def payments(self, *, after: Position, before: datetime | None, limit: int) -> list[PaymentSnapshot]:
        """The next ones by time of change and id. Must be the first call of its transaction: all that it reads is of
        one moment."""
        ...

    async def parked(self, *, after: Position, limit: int) -> list[ParkedForAPerson]:
        """The next ones for a person, by time of receipt and id."""
        ...


class ParkedRepository(RecordingParked, Protocol):
    async def wake(self, gateway: str, account: str | None, references: Sequence[str]) -> int:
        """Mark what waits for any of these references as ready; returns how many."""
        ...

    async def take(self, status: ParkedStatus) -> ParkedEvent | None:
        """Lock one parked event of that status; others' locks are skipped."""
        ...

    async def set_status(self, parked_id: str, status: ParkedStatus) -> None: ...

    async def expire_waiting(self, older_than: datetime) -> list[ParkedEvent]: ...

    async def waiting_with_known_payment(self) -> int:
        """Mark as ready what waits though its payment is known (a second look, should a wake-up ever be missed)."""
        ...

    async def count_waiting(self) -> int: ...


class PaymentTransaction(TransactionPort, Protocol):
    def new_id(self, prefix: str) -> str: ...

    def new_reference(self) -> str: ...

    @property
    def payments(self) -> PaymentRepository: ...

    @property
    def attempts(self) -> AttemptRepository: ...

    @property
    def facts(self) -> RecordingFacts: ...

    @property
    def operations(self) -> OperationRepository: ...

    @property
    def disputes(self) -> RecordingDisputes: ...

    @property
    def timeline(self) -> TimelineRepository: ...

    @property
    def ledger(self) -> LedgerRepository: ...

    @property
    def parked(self) -> ParkedRepository: ...

    @property
    def exports(self) -> ExportRepository: ...

    def together(
        self, consumer: str, message_ids: Sequence[str], wanted: Mapping[str, Wanted]
    ) -> AbstractAsyncContextManager[TogetherTransaction]:
        """This transaction for many messages at once: they are claimed, and what is wanted (by message id) of those
        that were not claimed before is found, locked and loaded when it is entered, and what was written is written
        when it is left, each in one statement, however many they are. Raises NotTogether then for what has to be done
        one by one."""
        ...


UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[PaymentTransaction]]


class GatewaysPort(Protocol):
    @property
    def adapters(self) -> Mapping[str, GatewayAdapter]:
        """The enabled ones, by name."""
        ...

    def get(self, name: str, account: str | None = None) -> GatewayAdapter: ...

    def has(self, name: str, account: str | None) -> bool: ...

    def reader_of(self, name: str, label: str | None) -> GatewayAdapter:
        """What translates a webhook: the adapter of the account it came for, since gateways name their merchant in it;
        for a label that is nobody's any of the gateway's."""
        ...

    def account_for(self, name: str, currency: str) -> str | None:
        """Which of our accounts takes a new payment."""
        ...

    def account_of(self, name: str, label: str | None) -> str | None:
        """Which of our accounts a webhook came for, by the label in its address."""
        ...

    def require_available(self, name: str, operation_class: OperationClass, account: str | None = None) -> None:
        """Raises GatewayUnavailable, with no query, where a call of that class would be refused now: its breaker is
        open, or the gateway limits our rate. Ask before a row says that money may move (failure PY16).
        """
        ...

    def __contains__(self, name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class OperationRules:
    """``lease_seconds``: how long one driver holds an operation; what a kill leaves behind is taken up after it."""

    lease_seconds: float = 60.0
    give_up_after: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Context:
    """What every use case of this service gets."""

    uow: UnitOfWorkFactory
    gateways: GatewaysPort
    clock: Clock
    ids: Ids
    public_base_url: str
    tolerance_minor: int = 0
    operations: OperationRules = OperationRules()
    turns: Turns = field(default_factory=Turns)
