"""The worker process of payment_service: consumers, the outbox relay, and the parked events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial

from services.payment_service.bootstrap import Container
from services.payment_service.use_cases.breakers import BREAKERS_CHANNEL
from services.payment_service.use_cases.check_ledger import LedgerWatch, check_ledger
from services.payment_service.use_cases.ports import OPERATIONS_CHANNEL, PARKED_CHANNEL
from services.payment_service.use_cases.run_operations import count_operations, run_one_due
from services.payment_service.use_cases.wake_parked import apply_one_ready, look_after_parked
from services.payment_service.use_cases.watch_authorizations import watch_authorizations
from shared.db.outbox import OUTBOX_CHANNEL
from shared.periodic import Periodic
from shared.ports import Ports
from shared.tasks import Job, supervise

PARKED_POLL_SECONDS = 5.0
PARKED_REVIEW_SECONDS = 60.0
CHANNELS = (OUTBOX_CHANNEL, PARKED_CHANNEL, OPERATIONS_CHANNEL, BREAKERS_CHANNEL)
OPERATIONS_POLL_SECONDS = 1.0
RUNNERS_POLL_SECONDS = 15.0
RUNNERS = 4
"""A gateway that hangs holds one of them for as long as a call may take; the others go on."""
AUTHORIZATIONS_SECONDS = 60.0


class Runners:
    """Take up operations side by side. What becomes due without a hint is found within a second, whoever waits for a
    gateway: each second one that is free looks, and one that has taken something calls the next before it goes on."""

    def __init__(self, run_one: Callable[[Callable[[], None]], Awaitable[bool]], ports: Ports) -> None:
        """``run_one`` calls what it is given when it has taken something, and returns whether it has."""
        self._run_one = run_one
        self._busy: set[int] = set()
        self._next = 0
        self._looking = Periodic("operations-look", self._look, interval_seconds=OPERATIONS_POLL_SECONDS, ports=ports)
        self._runners = [
            Periodic(f"operations-{n}", partial(self._run, n), interval_seconds=RUNNERS_POLL_SECONDS, ports=ports)
            for n in range(RUNNERS)
        ]

    def jobs(self) -> dict[str, Job]:
        runners = {f"operations-{n}": runner.run for n, runner in enumerate(self._runners)}
        return {"operations-look": self._looking.run, **runners}

    def wake(self, _payload: str = "") -> None:
        for runner in self._runners:
            runner.wake()

    async def _run(self, number: int) -> bool:
        self._busy.add(number)
        try:
            return await self._run_one(self._call_next)
        finally:
            self._busy.discard(number)

    async def _look(self) -> bool:
        self._call_next()
        return False

    def _call_next(self) -> None:
        """In turns, because one that waits after a failure does not hear it."""
        for _ in range(RUNNERS):
            number, self._next = self._next, (self._next + 1) % RUNNERS
            if number not in self._busy:
                self._runners[number].wake()
                return


async def run_worker(container: Container) -> None:
    """Runs until cancelled; a task that dies takes the process down (failure L14)."""
    deadline = timedelta(hours=container.settings.parked_deadline_hours)
    context, ports = container.context, container.ports

    async def apply_ready() -> bool:
        return await apply_one_ready(context)

    async def review() -> bool:
        await look_after_parked(context, deadline=deadline)
        return False

    seconds = container.settings.retention_interval_seconds
    watch = LedgerWatch()

    async def check() -> bool:
        return await check_ledger(watch, context)

    checking = Periodic("ledger-check", check, interval_seconds=container.settings.ledger_check_seconds, ports=ports)

    async def authorizations() -> bool:
        await count_operations(context)
        return await watch_authorizations(container.settings.authorization, context)

    runners = Runners(lambda taken: run_one_due(context, taken=taken), ports)
    holds = Periodic("authorizations", authorizations, interval_seconds=AUTHORIZATIONS_SECONDS, ports=ports)
    ready = Periodic("parked-events", apply_ready, interval_seconds=PARKED_POLL_SECONDS, ports=ports)
    reviewing = Periodic("parked-review", review, interval_seconds=PARKED_REVIEW_SECONDS, ports=ports)
    with ExitStack() as hints:
        hints.enter_context(container.database.listener.subscribe(PARKED_CHANNEL, ready.wake))
        hints.enter_context(container.database.listener.subscribe(OPERATIONS_CHANNEL, runners.wake))
        await supervise(
            {
                "listener": lambda: container.database.listener.run(CHANNELS),
                "relay": container.relay.run,
                "breakers": container.breakers.run,
                "consumers": container.bus.consume,
                "parked-events": ready.run,
                "parked-review": reviewing.run,
                "authorizations": holds.run,
                **runners.jobs(),
                "ledger-check": checking.run,
                "retention": lambda: container.retention.watch(interval_seconds=seconds),
            }
        )
