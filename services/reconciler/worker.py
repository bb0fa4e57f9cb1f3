"""The worker process of the reconciler: consumer, relay, sweep, runs, where files come from, measuring, cleaning up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress

from services.reconciler.bootstrap import Container
from services.reconciler.use_cases.measure_cases import measure_cases
from services.reconciler.use_cases.ports import RUNS_CHANNEL, SWEEP_CHANNEL
from services.reconciler.use_cases.settlement_ports import SETTLEMENT_CHANNEL
from shared.db.outbox import OUTBOX_CHANNEL
from shared.errors import PayrailError
from shared.periodic import Periodic
from shared.tasks import supervise

MEASURING_INTERVAL_SECONDS = 60.0
RUNS_INTERVAL_SECONDS = 15.0
STEP_DOWN_SECONDS = 2.0

CHANNELS = (OUTBOX_CHANNEL, SWEEP_CHANNEL, RUNS_CHANNEL, SETTLEMENT_CHANNEL)


async def run_worker(container: Container) -> None:
    """Runs until cancelled, in any number of replicas: one of them sweeps, and one does the runs of each kind. A task
    that dies takes the process down."""
    settings, listener = container.settings, container.database.listener
    sweep = _periodic(container, "sweep", container.sweeper.round, settings.sweep_interval_seconds)
    runs = {
        kind: _periodic(container, f"{kind.value}-runs", runner.round, RUNS_INTERVAL_SECONDS)
        for kind, runner in container.runners.items()
    }
    with ExitStack() as stack:
        stack.enter_context(listener.subscribe(SWEEP_CHANNEL, sweep.wake))
        for channel in (RUNS_CHANNEL, SETTLEMENT_CHANNEL):
            for waiting in runs.values():
                stack.enter_context(listener.subscribe(channel, waiting.wake))
        await supervise(
            {
                "reconciler-listener": lambda: listener.run(CHANNELS),
                "reconciler-relay": container.relay.run,
                "reconciler-consumers": container.bus.consume,
                "reconciler-sweep": lambda: _sweep(container, sweep),
                **{
                    f"reconciler-{kind.value}-runs": _led(runs[kind].run, runner.step_down)
                    for kind, runner in container.runners.items()
                },
                "reconciler-folder": _periodic(
                    container,
                    "settlement-folder",
                    container.folder_watch.round,
                    settings.settlement_folder_interval_seconds,
                ).run,
                "reconciler-reports": _led(
                    _periodic(
                        container,
                        "settlement-reports",
                        container.report_fetcher.round,
                        settings.settlement_report_interval_seconds,
                    ).run,
                    container.report_fetcher.step_down,
                ),
                "reconciler-measuring": _periodic(
                    container, "cases-measuring", lambda: _measured(container), MEASURING_INTERVAL_SECONDS
                ).run,
                "reconciler-retention": lambda: container.retention.watch(
                    interval_seconds=settings.retention_interval_seconds
                ),
            }
        )


def _periodic(container: Container, name: str, round_: Callable[[], Awaitable[bool]], seconds: float) -> Periodic:
    return Periodic(name, round_, interval_seconds=seconds, ports=container.ports)


async def _measured(container: Container) -> bool:
    await measure_cases(container.context)
    return False


async def _sweep(container: Container, sweep: Periodic) -> None:
    # Everything that was restarted together must not ask the gateways together (failure L17).
    delay = container.ports.randomness.uniform(0, container.settings.sweep_interval_seconds)
    await container.ports.clock.sleep(delay)
    await _led(sweep.run, container.sweeper.step_down)()


def _led(run: Callable[[], Awaitable[None]], step_down: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Work under a lease, which is given back when the process ends in good order."""

    async def led() -> None:
        try:
            await run()
        finally:
            with suppress(PayrailError, TimeoutError):  # else the lease runs out by itself
                async with asyncio.timeout(STEP_DOWN_SECONDS):
                    await step_down()

    return led
