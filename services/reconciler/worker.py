"""The worker process of the reconciler: the consumer, the outbox relay, the sweep, cleaning up."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.reconciler.bootstrap import Container
from services.reconciler.use_cases.forget_old import forget_old
from services.reconciler.use_cases.ports import SWEEP_CHANNEL
from shared.db.outbox import OUTBOX_CHANNEL
from shared.errors import PayrailError
from shared.periodic import Periodic
from shared.tasks import supervise

CLEANING_INTERVAL_SECONDS = 3600.0
STEP_DOWN_SECONDS = 2.0


async def run_worker(container: Container) -> None:
    """Runs until cancelled, in any number of replicas: one of them sweeps. A task that dies takes the process down."""
    settings, ports = container.settings, container.ports
    sweep = Periodic("sweep", container.sweeper.round, interval_seconds=settings.sweep_interval_seconds, ports=ports)
    cleaning = Periodic(
        "reconciler-cleaning",
        lambda: forget_old(container.context, keep_days=settings.reconciler_keep_days),
        interval_seconds=CLEANING_INTERVAL_SECONDS,
        ports=ports,
    )
    with container.database.listener.subscribe(SWEEP_CHANNEL, sweep.wake):
        await supervise(
            {
                "reconciler-listener": lambda: container.database.listener.run((OUTBOX_CHANNEL, SWEEP_CHANNEL)),
                "reconciler-relay": container.relay.run,
                "reconciler-consumers": container.bus.consume,
                "reconciler-sweep": lambda: _sweep(container, sweep),
                "reconciler-cleaning": cleaning.run,
            }
        )


async def _sweep(container: Container, sweep: Periodic) -> None:
    # Everything that was restarted together must not ask the gateways together (failure L17).
    delay = container.ports.randomness.uniform(0, container.settings.sweep_interval_seconds)
    await container.ports.clock.sleep(delay)
    try:
        await sweep.run()
    finally:
        with suppress(PayrailError, TimeoutError):  # else the lease runs out by itself
            async with asyncio.timeout(STEP_DOWN_SECONDS):
                await container.sweeper.step_down()
