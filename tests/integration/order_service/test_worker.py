"""The worker as it runs: relay, consumers, expiry, mails and cleaning under one supervisor."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.order_service.domain.models import PaymentStatus
from services.order_service.worker import run_worker
from shared.clock import SystemClock
from shared.db.retention import Pace
from shared.messaging.bus import BusMessage
from tests.integration.order_service.conftest import BuildWorld, World
from tests.integration.order_service.fakes import an_envelope, an_event
from tests.support.clock import FakeClock
from tests.support.waiting import until


async def test_the_worker_applies_payments_publishes_orders_sends_mails_and_expires(build_world: BuildWorld) -> None:
    world = await build_world(real_clock=SystemClock(), expiry_interval_seconds=0.2)
    await world.has_product()
    working = asyncio.create_task(run_worker(world.container))
    try:
        paid, left = await world.order(), await world.order()
        snapshot = world.payments.becomes(await world.open_session(paid), PaymentStatus.CAPTURED)
        envelope = an_envelope(world.container, an_event(snapshot))
        message = BusMessage(envelope.id, envelope.type, envelope.subject, envelope.to_json())
        await until(lambda: world.container.bus._consumers, what="the subscription")  # type: ignore[attr-defined]
        await world.container.bus.publish(message)
        assert (await world.see(paid))["status"] == "confirmed"
        await until(lambda: world.mailer.sent, what="the mail")

        await world.rows(
            "UPDATE orders SET expires_at = now(), next_expiry_attempt_at = now() WHERE id = :id RETURNING id",
            id=left.id,
        )

        async def is_expired() -> bool:
            return bool((await world.see(left))["status"] == "expired")

        await until(is_expired, what="expiry")

        async def everything_is_published() -> bool:
            return bool(await world.value("SELECT count(*) FROM outbox_messages WHERE published_at IS NULL") == 0)

        await until(everything_is_published, what="the relay")
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    assert await world.stock() == (9, 0)


async def test_cleaning_removes_tickets_that_ran_out(world: World, clock: FakeClock) -> None:
    order = await world.order()
    url = f"/api/v1/orders/{order.id}/stream-tickets"
    await world.http.post(url, headers=order.secret)
    clock.move(61)
    await world.http.post(url, headers=order.secret)
    await world.container.retention.run()
    assert await world.value("SELECT count(*) FROM stream_tickets") == 1


async def test_cleaning_goes_on_until_every_expired_answer_is_gone(world: World) -> None:
    many = """
        INSERT INTO idempotency_keys (caller, route, key_digest, fingerprint, expires_at)
        SELECT 'guest', 'r', decode(lpad(to_hex(n), 64, '0'), 'hex'), '\\x00', now() - interval '1 second'
        FROM generate_series(1, 2500) AS n RETURNING 1"""
    await world.rows(many)
    await world.container.retention.run(pace=Pace(rows=1000, least_rest_seconds=0))
    assert await world.value("SELECT count(*) FROM idempotency_keys") == 0
