"""What the use cases need from outside: repositories in a transaction, payment_service, time, chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

from services.reconciler.domain.approval import SecondPersonRule
from services.reconciler.domain.models import (
    Counts,
    Moment,
    Run,
    RunKind,
    RunRequest,
    SeenPayment,
    SweepDay,
    WatchedPayment,
)
from services.reconciler.domain.schedule import JITTER_HIGH, JITTER_LOW, PaymentStatus, Timetable
from services.reconciler.domain.settlement_rules import SettlementRules
from services.reconciler.use_cases.case_ports import CaseRepository
from services.reconciler.use_cases.mirror_ports import ExportsClient, GatewayListsClient, MirrorRepository, OrderRules
from services.reconciler.use_cases.report_ports import ReportRepository
from services.reconciler.use_cases.settlement_ports import FileRepository, Intake, SettlementReader
from services.reconciler.use_cases.settling_ports import SettlementRepository
from shared.clock import Clock
from shared.ids import Ids
from shared.randomness import Randomness
from shared.unit_of_work import TransactionPort

SWEEP_CHANNEL = "sweep"
"""Hints that a run on demand waits."""

SWEEP_LEASE = "sweep"

RUNS_CHANNEL = "runs"
"""Hints that a settlement or orders run waits."""


@dataclass(frozen=True, slots=True)
class WatchFilter:
    gateway: str | None = None
    status: PaymentStatus | None = None
    due_before: datetime | None = None
    dropped: bool = False
    """Those that are not asked about any more, instead of those that are."""


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """Enough of a watched payment to see whether a page of the list says anything new about it."""

    version: int
    capture_before: datetime | None


class WatchedRepository(Protocol):
    async def versions(self, payment_ids: Sequence[str]) -> Mapping[str, KnownVersion]:
        """Of those that are known; takes no lock."""
        ...

    async def get_for_update(self, payment_id: str) -> WatchedPayment | None: ...

    async def lock(self, payment_ids: Sequence[str]) -> Mapping[str, WatchedPayment]:
        """Of those that are known, in the order of ids."""
        ...

    async def add(self, watched: Sequence[WatchedPayment]) -> set[str]:
        """In the order of ids. Returns those that were added; one that was added meanwhile is not changed."""
        ...

    async def save(self, watched: WatchedPayment) -> None: ...

    async def save_all(self, watched: Sequence[WatchedPayment]) -> None: ...

    async def due(
        self, now: datetime, *, per_gateway: int, by_gateway: Mapping[str, int], limit: int
    ) -> list[WatchedPayment]:
        """What is due at gateways that are not paused, most money at risk first, at most so many of each gateway:
        ``by_gateway`` names exceptions from ``per_gateway``."""
        ...

    async def ask_for(self, run_id: str, request: RunRequest, now: datetime) -> int:
        """Make what matches due now, on behalf of a run, but for what another run waits for. Returns how many."""
        ...

    async def search(self, filter_: WatchFilter, *, after: str | None, limit: int) -> list[WatchedPayment]: ...


class RunRepository(Protocol):
    async def add(self, run: Run) -> None: ...

    async def get(self, run_id: str) -> Run | None: ...

    async def find_running(self, kind: RunKind, request: RunRequest) -> Run | None:
        """A run on demand for the same request that has not ended; requests of the same shape are serialised here."""
        ...

    async def count(self, run: Run, counts: Counts) -> None:
        """Add to the run's counts; stores a scheduled run with its first count."""
        ...

    async def finish(self, run: Run, *, at: datetime) -> Run | None:
        """Write its status and end; None where it was never stored or has ended already. Returns it with its counts."""
        ...

    async def asked_and_done(self) -> list[Run]:
        """Runs on demand that wait for no payment any more."""
        ...

    async def abandoned(self) -> list[Run]:
        """Scheduled runs that are still marked running; the caller holds the lease, so their runner died."""
        ...

    async def take_up(self, kind: RunKind, *, holder: str) -> Run | None:
        """The oldest run of this kind that waits, or whose runner died; counts the attempt."""
        ...

    async def files_without_run(self, now: datetime) -> list[str]:
        """Received settlement files that no run reads, oldest first; after a failed reading only some minutes later."""
        ...

    async def failed_readings(self, file_id: str) -> int:
        """Runs in which the reader of this file died or was too slow, since the file was sent the last time."""
        ...

    async def save_progress(self, run_id: str, *, phase: str, done: int, total: int | None) -> None: ...

    async def last_of_schedule(self, kind: RunKind) -> Run | None: ...

    async def search(self, *, kind: RunKind | None = None, after: str | None, limit: int) -> list[Run]: ...


class SweepDayRepository(Protocol):
    async def count(self, gateway: str, day: date, counts: Counts) -> None: ...

    async def between(self, first: date, last: date) -> list[SweepDay]:
        """Newest first, both days included."""
        ...


class PauseRepository(Protocol):
    """Gateways that are left alone for a while, because they did not answer."""

    async def pause(self, gateway: str, *, until: datetime) -> None: ...

    async def lengths(self) -> Mapping[str, int]:
        """How many times in a row each gateway was paused; absent: it answers."""
        ...

    async def clear(self, gateway: str) -> None: ...


class LeasePort(Protocol):
    async def acquire(self, name: str, *, holder: str, seconds: float) -> int | None:
        """The fencing token, or None while another holder's lease lasts. Renews one's own."""
        ...

    async def release(self, name: str, *, holder: str) -> None: ...


class ReconcilerTransaction(TransactionPort, Protocol):
    @property
    def watched(self) -> WatchedRepository: ...

    @property
    def runs(self) -> RunRepository: ...

    @property
    def pauses(self) -> PauseRepository: ...

    @property
    def sweep_days(self) -> SweepDayRepository: ...

    @property
    def leases(self) -> LeasePort: ...

    @property
    def mirror(self) -> MirrorRepository: ...

    @property
    def files(self) -> FileRepository: ...

    @property
    def cases(self) -> CaseRepository: ...

    @property
    def settlement(self) -> SettlementRepository: ...

    @property
    def reports(self) -> ReportRepository: ...


UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[ReconcilerTransaction]]


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    payment: SeenPayment
    changed: bool
    """The gateway said something that payment_service did not know: a webhook was missed, or is late."""


@dataclass(frozen=True, slots=True)
class PaymentsPage:
    payments: tuple[SeenPayment, ...]
    next_cursor: str | None


class PaymentsClient(Protocol):
    async def sync(self, payment_id: str) -> SyncAnswer:
        """Have the gateway asked now.

        Raises SyncRefused (an answer that hurrying will not change), GatewayOutcomeUnknown (no usable answer for this
        payment), GatewayUnavailable (the gateway itself cannot be asked now; says for how long) or ServiceUnavailable
        (payment_service itself is away: nothing can be asked about).
        """
        ...

    async def not_final(self, cursor: str | None) -> PaymentsPage:
        """A page of payments that are not final. Raises GatewayOutcomeUnknown or ServiceUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class SweepRules:
    """Limits of a round."""

    calls_per_gateway: int
    calls_by_gateway: Mapping[str, int]
    """Exceptions from it."""
    concurrency_per_gateway: int
    batch_size: int
    gateway_pause_seconds: float
    lease_seconds: float
    pull_interval_seconds: float


@dataclass(frozen=True, slots=True)
class Context:
    """What every use case of this service gets."""

    uow: UnitOfWorkFactory
    settlement_uow: UnitOfWorkFactory
    """For work on whole files: few connections, and statements that may take minutes."""
    reader: SettlementReader
    intake: Intake
    payments: PaymentsClient
    clock: Clock
    ids: Ids
    randomness: Randomness
    timetable: Timetable
    rules: SweepRules
    exports: ExportsClient
    gateway_lists: GatewayListsClient
    order_rules: OrderRules
    command_key: bytes | None = None
    """What this service's commands are signed with. None: none are sent, and cases wait for a person."""
    second_person: SecondPersonRule = field(default_factory=SecondPersonRule)
    settlement_rules: SettlementRules = field(default_factory=SettlementRules)

    def moment(self) -> Moment:
        return Moment(self.clock.now(), self.randomness.uniform(JITTER_LOW, JITTER_HIGH))
