"""The worker as it runs: woken by a run on demand, jittered at its start, handing over when it stops."""

from __future__ import annotations

import asyncio

from services.reconciler.worker import run_worker
from tests.integration.reconciler.conftest import World
from tests.support.waiting import until


async def test_the_worker_sweeps_is_woken_by_a_run_on_demand_and_hands_over(world: World) -> None:
    payment_id = world.payments.opens()
    worker = asyncio.create_task(run_worker(world.container))
    await until(lambda: world.clock.sleeper_count, what="the worker's tasks")
    assert world.payments.pages_read == 0  # a start is jittered: no herd after a restart
    await world.clock.advance(15)
    await until(lambda: world.rows("SELECT 1 FROM watched_payments"), what="the pull")

    headers = world.token("recon:write")
    await world.http.post("/api/v1/reconciliation/runs", json={"kind": "sweep"}, headers=headers)
    await until(lambda: world.payments.synced == [payment_id], what="the check, with no time passing")
    await until(
        lambda: world.rows("SELECT 1 FROM outbox_messages WHERE published_at IS NOT NULL"),
        what="the announcement of the run",
    )

    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert await world.rows("SELECT 1 FROM leases WHERE expires_at <= now()")
