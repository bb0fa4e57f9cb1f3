from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from services.webhook_ingest.bootstrap import build
from services.webhook_ingest.main import create_application
from shared.db.migrations import upgrade
from shared.messaging.in_process import InProcessBus
from tests.integration.webhook_ingest.conftest import Ingest, a_stripe_event, settings_for_test
from tests.support.clock import FakeClock, fake_ports
from tests.support.postgres import ThrowawayPostgres


@pytest.fixture
async def fragile(own_postgres: ThrowawayPostgres) -> AsyncIterator[Ingest]:
    url = own_postgres.url("postgres")
    await upgrade("webhook_ingest", url)
    clock = FakeClock()
    ports = fake_ports(clock=clock)
    async with build(settings_for_test(url), ports=ports, bus=InProcessBus(clock)) as container:
        transport = httpx.ASGITransport(app=create_application(container))
        async with httpx.AsyncClient(transport=transport, base_url="http://ingest.test") as client:
            yield Ingest(container, client, clock, ports)


async def test_a_database_that_is_down_is_503_and_never_200_and_heals_by_itself(
    fragile: Ingest, own_postgres: ThrowawayPostgres
) -> None:
    assert (await fragile.post_stripe(a_stripe_event("evt_1"))).status_code == 200
    own_postgres.stop("immediate")
    refused = await fragile.post_stripe(a_stripe_event("evt_2"))
    assert refused.status_code == 503
    assert refused.headers["content-type"].startswith("application/problem+json")
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["retryable"] is True
    assert "RateLimit-Limit" in refused.headers
    forged = await fragile.client.post("/api/v1/webhooks/stripe", content=b"{}")
    assert forged.status_code == 401
    assert (await fragile.client.get("/readyz")).status_code == 503
    assert (await fragile.client.get("/healthz")).status_code == 200
    own_postgres.start()
    retried = await fragile.post_stripe(a_stripe_event("evt_2"))
    assert retried.json()["status"] == "accepted"
    assert await fragile.count("webhook_deliveries") == 2


async def test_what_was_acknowledged_before_a_crash_of_the_database_is_still_there(
    fragile: Ingest, own_postgres: ThrowawayPostgres
) -> None:
    answers = await asyncio.gather(*(fragile.post_stripe(a_stripe_event(f"evt_{number}")) for number in range(20)))
    acknowledged = {answer.json()["delivery_id"] for answer in answers}
    own_postgres.stop("immediate")
    own_postgres.start()
    again = await asyncio.gather(*(fragile.post_stripe(a_stripe_event(f"evt_{number}")) for number in range(20)))
    assert {answer.json()["delivery_id"] for answer in again} == acknowledged
    assert {answer.json()["status"] for answer in again} == {"duplicate"}
