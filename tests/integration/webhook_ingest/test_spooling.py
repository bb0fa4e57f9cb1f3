"""While PostgreSQL is away deliveries are acknowledged from the spool, and none is lost or doubled afterwards (W17)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.webhook_ingest.bootstrap import build
from services.webhook_ingest.db.delivery_rows import INSERT, columns_of
from services.webhook_ingest.db.spool import Spool
from services.webhook_ingest.db.spooling import Drain
from services.webhook_ingest.main import create_application
from shared.db.migrations import upgrade
from shared.messaging.in_process import InProcessBus
from tests.integration.webhook_ingest.conftest import Ingest, a_stripe_event, settings_for_test
from tests.support.clock import FakeClock, fake_ports
from tests.support.postgres import ThrowawayPostgres
from tests.support.waiting import until
from tests.unit.webhook_ingest.builders import a_row


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def fragile(own_postgres: ThrowawayPostgres, directory: Path) -> AsyncIterator[Ingest]:
    url = own_postgres.url("postgres")
    await upgrade("webhook_ingest", url)
    clock = FakeClock()
    ports = fake_ports(clock=clock)
    settings = settings_for_test(url, webhook_spool_directory=directory, webhook_spool_max_bytes=1 << 20)
    async with build(settings, ports=ports, bus=InProcessBus(clock)) as container:
        transport = httpx.ASGITransport(app=create_application(container))
        async with httpx.AsyncClient(transport=transport, base_url="http://ingest.test") as client:
            yield Ingest(container, client, clock, ports)


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def the_drain(ingest: Ingest) -> Drain:
    assert ingest.container.drain is not None
    return ingest.container.drain


async def the_outage_ends(ingest: Ingest) -> None:
    async def is_over() -> bool:
        await ingest.clock.advance(2)
        return not the_drain(ingest)._outage.is_on

    await until(is_over, what="the probe finding the database")


async def test_an_outage_is_bridged_and_everything_is_brought_in_once(
    fragile: Ingest, own_postgres: ThrowawayPostgres, directory: Path
) -> None:
    assert (await fragile.post_stripe(a_stripe_event("evt_before"))).json()["status"] == "accepted"
    assert (await fragile.client.get("/readyz")).json()["status"] == "ok"
    own_postgres.stop("immediate")
    answers = await asyncio.gather(*(fragile.post_stripe(a_stripe_event(f"evt_{number}")) for number in range(20)))
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "accepted")}
    ids = {answer.json()["delivery_id"] for answer in answers}
    assert len(ids) == 20
    again = (await fragile.post_stripe(a_stripe_event("evt_3"))).json()
    assert again == {"status": "duplicate", "delivery_id": answers[3].json()["delivery_id"]}
    # What the database would have called a duplicate is spooled for the time being.
    assert (await fragile.post_stripe(a_stripe_event("evt_before"))).json()["status"] == "accepted"
    ready = await fragile.client.get("/readyz")
    assert ready.status_code == 200, "deliveries are taken"
    assert ready.json()["components"]["spool"].startswith("spooling: ")
    own_postgres.start()
    await the_outage_ends(fragile)
    await the_drain(fragile).round()
    assert files_in(directory) == []
    assert await fragile.count("webhook_deliveries") == await fragile.count("outbox_messages") == 21
    assert {event["subject"] for event in await fragile.outbox()} >= ids, "with the ids that were answered"
    assert (await fragile.post_stripe(a_stripe_event("evt_3"))).json()["status"] == "duplicate"
    assert (await fragile.client.get("/readyz")).json()["components"]["spool"] == "ok"


async def test_a_full_spool_is_503_and_never_200(fragile: Ingest, own_postgres: ThrowawayPostgres) -> None:
    own_postgres.stop("immediate")
    statuses = []
    for number in range(7):
        body = a_stripe_event(f"evt_{number}", padding="x" * 200_000)
        statuses.append((await fragile.post_stripe(body)).status_code)
    assert statuses == [200, 200, 200, 200, 200, 503, 503]
    assert (await fragile.client.get("/readyz")).status_code == 503
    own_postgres.start()
    await the_outage_ends(fragile)
    await the_drain(fragile).round()
    assert await fragile.count("webhook_deliveries") == 5


async def test_what_a_dead_process_left_is_adopted_and_what_no_program_can_bring_in_is_kept(
    fragile: Ingest, directory: Path
) -> None:
    dead = Spool(directory, max_bytes=1 << 20, ports=fake_ports(seed=9))
    await dead.append([a_row("evt_1"), a_row("evt_damaged"), a_row("evt_2")])
    await dead.append([a_row("evt_3", event_type="a\x00b"), a_row("evt_4")])
    await dead.close()
    [segment] = files_in(directory)
    damaged = segment.read_bytes().replace(b'"id:evt_damaged"', b'"id:evt_dXmaged"')
    segment.write_bytes(damaged[:-7])  # and the last record was being written when it died
    await the_drain(fragile).round()
    assert await fragile.count("webhook_deliveries") == await fragile.count("outbox_messages") == 2
    [aside] = files_in(directory)
    assert aside.suffix == ".aside"
    kept = aside.read_bytes()
    assert b"evt_dXmaged" in kept
    assert b"evt_3" in kept
    assert b"evt_4" not in kept, "it was never acknowledged"


async def test_a_segment_with_a_row_that_somebody_holds_stays_until_it_is_stored(
    fragile: Ingest, directory: Path
) -> None:
    dead, twin = Spool(directory, max_bytes=1 << 20, ports=fake_ports(seed=9)), a_row("evt_1")
    await dead.append([a_row("evt_1"), a_row("evt_2")])
    await dead.close()
    async with fragile.container.database.driver() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.fetch(INSERT, *columns_of([twin]))
        await the_drain(fragile).round()
        assert len(files_in(directory)) == 1
        assert not the_drain(fragile)._outage.is_on, "the database is there"
        assert await fragile.count("webhook_deliveries") == 1
        await transaction.rollback()
    await the_drain(fragile).round()
    assert files_in(directory) == []
    assert await fragile.count("webhook_deliveries") == 2
