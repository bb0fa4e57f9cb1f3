"""The first event of a delivery is rendered when it is published, and is the same as if it had been written with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.webhook_ingest.db import announcing
from services.webhook_ingest.db.announcing import render_announcements
from services.webhook_ingest.domain.models import EventContents
from services.webhook_ingest.use_cases.announce import first_announcement
from shared.contracts.envelope import EventEnvelope
from shared.db.outbox import Refusal, claim_waiting, postpone, put_back
from shared.db.session import driver_of
from shared.messaging.relay import OutboxRelay
from tests.integration.messaging.test_relay import RecordingBus
from tests.integration.messaging.tiny_service import running
from tests.integration.webhook_ingest.conftest import Ingest, a_stripe_event
from tests.support.waiting import until

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

OLD_CLAIM = """
    SELECT position FROM outbox_messages WHERE published_at IS NULL AND available_at <= now()
    ORDER BY position LIMIT 100 FOR UPDATE SKIP LOCKED
"""
"""What a relay asks for that was there before bodies were rendered later: it would publish what is empty as it is."""


async def rendered_of(ingest: Ingest, connection: AsyncConnection, **limits: int) -> Mapping[int, bytes]:
    driver = await driver_of(connection)
    messages = await claim_waiting(driver, limit=10, renders=True)
    return await render_announcements(driver, messages, clock=ingest.clock, **limits)


async def test_the_event_has_the_rows_id_and_time_and_the_requests_trace(ingest: Ingest) -> None:
    await ingest.post_stripe(a_stripe_event(), traceparent=PARENT)
    async with ingest.container.database.begin() as connection:
        [row] = await connection.execute(text("SELECT position, message_id, created_at, body FROM outbox_messages"))
        assert row.body == b""
        bodies = await rendered_of(ingest, connection)
        again = await rendered_of(ingest, connection)
    event = EventEnvelope.from_json(bodies[row.position])
    assert (event.id, event.time, event.sequence) == (row.message_id, row.created_at, 1)
    assert event.traceparent is not None
    assert event.traceparent[3:35] == PARENT[3:35]
    assert again == bodies, "whenever it is rendered"


async def test_one_that_cannot_be_rendered_is_left_out_and_the_others_go_on(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await ingest.post_stripe(a_stripe_event(f"evt_{number}"))

    def stumbling(contents: EventContents, **others: object) -> EventEnvelope:
        if contents.event_id == "evt_1":
            raise RecursionError
        return first_announcement(contents, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(announcing, "first_announcement", stumbling)
    async with ingest.container.database.begin() as connection:
        driver = await driver_of(connection)
        messages = await claim_waiting(driver, limit=10, renders=True)
        bodies = await render_announcements(driver, messages, clock=ingest.clock)
    assert sorted(bodies) == [messages[0].position, messages[2].position]


async def test_a_body_that_cannot_be_rendered_is_announced_without_it_and_nobody_waits(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await ingest.post_stripe(a_stripe_event(f"evt_{number}"))

    def stumbling(contents: EventContents, **others: object) -> EventEnvelope:
        if contents.event_id == "evt_1" and contents.body:
            raise RecursionError
        return first_announcement(contents, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(announcing, "first_announcement", stumbling)
    async with ingest.container.database.begin() as connection:
        bodies = await rendered_of(ingest, connection)
    events = [EventEnvelope.from_json(bodies[position]).data for position in sorted(bodies)]
    assert [(event["event_id"], bool(event["payload"])) for event in events] == [
        ("evt_0", True),
        ("evt_1", False),
        ("evt_2", True),
    ]


async def test_a_relay_of_the_release_before_never_sees_a_row_without_a_body(ingest: Ingest) -> None:
    """During a rolling upgrade, and after a rollback; also once such a row was put back."""
    await ingest.post_stripe(a_stripe_event())
    for _ in range(2):
        async with ingest.container.database.begin() as connection:
            assert (await connection.execute(text(OLD_CLAIM))).all() == []
            assert await claim_waiting(await driver_of(connection), limit=10) == []
            [message] = await claim_waiting(await driver_of(connection), limit=10, renders=True)
            await put_back(await driver_of(connection), [Refusal(message.position, 0, "the bus did not take it")])
    async with ingest.container.database.begin() as connection:
        [message] = await claim_waiting(await driver_of(connection), limit=10, renders=True)
        await postpone(await driver_of(connection), [message.position], 0)
    async with ingest.container.database.begin() as connection:
        assert (await connection.execute(text(OLD_CLAIM))).all() == []
        [message] = await claim_waiting(await driver_of(connection), limit=10, renders=True)
        await put_back(await driver_of(connection), [Refusal(message.position, 60, "nor now")])
    async with ingest.container.database.begin() as connection:
        driver = await driver_of(connection)
        assert await claim_waiting(driver, limit=10, renders=True) == [], "it waits as long as it was told to"


async def test_what_is_too_much_at_once_waits_for_the_next_claim_and_costs_no_attempt(ingest: Ingest) -> None:
    for number in range(5):
        await ingest.post_stripe(a_stripe_event(f"evt_{number}", padding="x" * 40_000))
    async with ingest.container.database.begin() as connection:
        bodies = await rendered_of(ingest, connection, bytes_at_once=100_000)
        assert [bool(bodies[position]) for position in sorted(bodies)] == [True, True, False, False, False]
        bodies = await rendered_of(ingest, connection, bytes_at_once=10)
        assert [bool(bodies[position]) for position in sorted(bodies)] == [True, False, False, False, False]
    bus = RecordingBus()
    render = partial(render_announcements, clock=ingest.clock, bytes_at_once=100_000)
    database = ingest.container.database
    relay = OutboxRelay(database, bus, service="webhook_ingest", ports=ingest.ports, render=render)
    async with running(relay.run):
        await until(lambda: len(bus.taken) == 5, what="all of them, with nobody waiting for a clock")
    async with database.begin() as connection:
        attempts = await connection.execute(text("SELECT attempts FROM outbox_messages"))
        assert {row.attempts for row in attempts} == {0}


async def test_everything_else_in_the_process_has_its_turns_meanwhile(ingest: Ingest) -> None:
    for number in range(5):
        await ingest.post_stripe(a_stripe_event(f"evt_{number}", padding="x" * 65_000))
    ingest.clock.sleeps.clear()
    async with ingest.container.database.begin() as connection:
        assert all((await rendered_of(ingest, connection)).values())
    assert ingest.clock.sleeps == [0] * 5
