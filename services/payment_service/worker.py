"""The worker process of payment_service: consumers, the outbox relay, and the parked events."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

from services.payment_service.bootstrap import Container
from services.payment_service.use_cases.breakers import BREAKERS_CHANNEL
from services.payment_service.use_cases.check_ledger import LedgerWatch, check_ledger
from services.payment_service.use_cases.ports import OPERATIONS_CHANNEL, PARKED_CHANNEL
from services.payment_service.use_cases.run_operations import count_operations, run_one_due
from services.payment_service.use_cases.wake_parked import apply_one_ready, look_after_parked
from services.payment_service.use_cases.watch_authorizations import watch_authorizations
from shared.db.outbox import OUTBOX_CHANNEL
from shared.periodic import Periodic
from shared.tasks import supervise

PARKED_POLL_SECONDS = 5.0
PARKED_REVIEW_SECONDS = 60.0
CHANNELS = (OUTBOX_CHANNEL, PARKED_CHANNEL, OPERATIONS_CHANNEL, BREAKERS_CHANNEL)
OPERATIONS_POLL_SECONDS = 1.0
RUNNERS = 4
"""A gateway that hangs holds one of them for as long as a call may take; the others go on."""
AUTHORIZATIONS_SECONDS = 60.0


async def run_worker(container: Container) -> None:
    """Runs until cancelled; a task that dies takes the process down (failure L14)."""
    deadline = timedelta(hours=container.settings.parked_deadline_hours)
    context, ports = container.context, container.ports

    async def apply_ready() -> bool:
        return await apply_one_ready(context)

    async def review() -> bool:
        await look_after_parked(context, deadline=deadline)
        return False

    watch = LedgerWatch()

    async def check() -> bool:
        return await check_ledger(watch, context)

    checking = Periodic("ledger-check", check, interval_seconds=container.settings.ledger_check_seconds, ports=ports)

    async def run_operation() -> bool:
        return await run_one_due(context)

    async def authorizations() -> bool:
        await count_operations(context)
        return await watch_authorizations(container.settings.authorization, context)

    runners = {
        f"operations-{n}": Periodic(
            f"operations-{n}", run_operation, interval_seconds=OPERATIONS_POLL_SECONDS, ports=ports
        )
        for n in range(1, RUNNERS + 1)
    }
    holds = Periodic("authorizations", authorizations, interval_seconds=AUTHORIZATIONS_SECONDS, ports=ports)
    ready = Periodic("parked-events", apply_ready, interval_seconds=PARKED_POLL_SECONDS, ports=ports)
    reviewing = Periodic("parked-review", review, interval_seconds=PARKED_REVIEW_SECONDS, ports=ports)
    with ExitStack() as hints:
        hints.enter_context(container.database.listener.subscribe(PARKED_CHANNEL, ready.wake))
        for runner in runners.values():
            hints.enter_context(container.database.listener.subscribe(OPERATIONS_CHANNEL, runner.wake))
        await supervise(
            {
                "listener": lambda: container.database.listener.run(CHANNELS),
                "relay": container.relay.run,
                "breakers": container.breakers.run,
                "consumers": container.bus.consume,
                "parked-events": ready.run,
                "parked-review": reviewing.run,
                "authorizations": holds.run,
                **{name: runner.run for name, runner in runners.items()},
                "ledger-check": checking.run,
            }
        )
