"""Hot statements run on the driver's connection, beside SQLAlchemy or inside its transaction (ADR 0019)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from shared.clock import to_rfc3339
from shared.contracts.envelope import EventData, EventEnvelope
from shared.db.inbox import Inbox
from shared.db.outbox import Outbox, envelope_around_sequence
from shared.db.session import Database, driver_of
from shared.ports import system_ports
from shared.unit_of_work import InboxClaim, NewEvent
from tests.integration.messaging.tiny_service import SERVICE, a_capture, create_schema
from tests.support.postgres import CreateDatabase

COUNT = "SELECT count(*) FROM inbox_messages"
INSERT = "INSERT INTO inbox_messages (consumer, message_id, status) VALUES ('hot', $1, 'done')"


@pytest.fixture
async def database(create_database: CreateDatabase) -> AsyncIterator[Database]:
    url = create_database()
    await create_schema(url)
    database = Database(url, schema=SERVICE, application_name=SERVICE)
    yield database
    await database.dispose()


async def test_a_statement_by_itself_commits_by_itself(database: Database) -> None:
    async with database.driver() as driver:
        await driver.execute(INSERT, "one")
    async with database.begin() as connection:
        assert (await connection.execute(text(COUNT))).scalar() == 1


async def test_inside_a_transaction_both_write_or_neither(database: Database) -> None:
    async def write_and_fail() -> None:
        async with database.begin() as connection:
            await Inbox(connection).claim(InboxClaim("cold", "one"))
            await (await driver_of(connection)).execute(INSERT, "one")
            raise RuntimeError("after both")

    with pytest.raises(RuntimeError, match="after both"):
        await write_and_fail()
    async with database.begin() as connection:
        assert (await connection.execute(text(COUNT))).scalar() == 0


async def test_without_a_transaction_the_driver_is_refused(database: Database) -> None:
    """Else what was meant to be undone with the rest would be there for ever."""
    async with database.engine.connect() as connection:
        with pytest.raises(AssertionError, match="commit by itself"):
            await driver_of(connection)


async def test_messages_are_claimed_together_each_once(database: Database) -> None:
    async with database.begin() as connection:
        assert await Inbox(connection).claim(InboxClaim("tiny", "two"))
    async with database.begin() as connection:
        assert await Inbox(connection).claim_all("tiny", ["one", "two", "three", "one"]) == {"one", "three"}
    async with database.begin() as connection:
        assert await Inbox(connection).claim_all("tiny", ["one", "two", "three"]) == set()
        assert await Inbox(connection).claim_all("other", ["one"]) == {"one"}


async def test_two_claims_of_the_same_messages_never_deadlock(database: Database) -> None:
    numbers = [f"m{number:03}" for number in range(200)]

    async def claim(ids: list[str]) -> set[str]:
        async with database.begin() as connection:
            return await Inbox(connection).claim_all("tiny", ids)

    claimed = await asyncio.gather(*(claim(numbers[:: 1 if turn % 2 else -1]) for turn in range(8)))
    assert sorted(id_ for ids in claimed for id_ in ids) == numbers


async def test_events_of_many_subjects_are_numbered_in_their_order(database: Database) -> None:
    ports = system_ports()
    subjects = ["pay_b", "pay_a", "pay_b", "pay_b", "pay_c"]
    for _ in range(2):
        async with database.begin() as connection:
            outbox = Outbox(connection, service=SERVICE, ports=ports)
            events = [
                NewEvent(a_capture(), subject, correlation_id=f"ord_{place}", traceparent=f"trace-{place}")
                for place, subject in enumerate(subjects)
            ]
            await outbox.add_many(events)
            assert outbox.added == 5
    async with database.begin() as connection:
        rows = await connection.execute(text("SELECT subject, sequence, body FROM outbox_messages ORDER BY position"))
        written = [(row.subject, row.sequence, EventEnvelope.from_json(row.body)) for row in rows]
    assert [(subject, sequence) for subject, sequence, _ in written] == [
        ("pay_b", 1), ("pay_a", 1), ("pay_b", 2), ("pay_b", 3), ("pay_c", 1),
        ("pay_b", 4), ("pay_a", 2), ("pay_b", 5), ("pay_b", 6), ("pay_c", 2),
    ]  # fmt: skip
    assert all((each.subject, each.sequence) == (subject, sequence) for subject, sequence, each in written)
    assert [each.correlationid for _, _, each in written[:5]] == [f"ord_{place}" for place in range(5)]
    assert [each.traceparent for _, _, each in written[:5]] == [f"trace-{place}" for place in range(5)]


async def test_writers_of_the_same_subjects_neither_deadlock_nor_skip_a_number(database: Database) -> None:
    ports, subjects = system_ports(), [f"pay_{number}" for number in range(12)]

    async def write(turn: int) -> None:
        async with database.begin() as connection:
            outbox = Outbox(connection, service=SERVICE, ports=ports)
            events = [NewEvent(a_capture(), subject) for subject in subjects[:: 1 if turn % 2 else -1] * 3]
            await outbox.add_many(events)

    await asyncio.gather(*(write(turn) for turn in range(6)))
    async with database.begin() as connection:
        rows = await connection.execute(text("SELECT subject, sequence, body FROM outbox_messages ORDER BY position"))
        of_subject: dict[str, list[int]] = {}
        for row in rows:
            assert EventEnvelope.from_json(row.body).sequence == row.sequence
            of_subject.setdefault(row.subject, []).append(row.sequence)
    assert of_subject == {subject: list(range(1, 19)) for subject in of_subject}
    assert len(of_subject) == len(subjects)


class _Odd(EventData):
    TYPE = "odd.v1"
    text: str | None
    more: dict[str, Any]


@pytest.mark.parametrize("value", ['a "sequence":1, in \\ quotes', "tab\t, nul \x00, del \x7f, é, \u2028, 😀"])
@pytest.mark.parametrize("causation", [None, 'ca"use'])
def test_an_envelope_is_written_as_its_model_would_write_it(value: str, causation: str | None) -> None:
    moment, data = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), _Odd(text=None, more={"a": None, "b": value})
    event = NewEvent(data, value, "ord_1", causation, value)
    head, tail = envelope_around_sequence(event, "evt_1", source="/payrail/x", time=to_rfc3339(moment))
    envelope = EventEnvelope(
        id="evt_1",
        type="odd.v1",
        source="/payrail/x",
        subject=value,
        time=moment,
        sequence=17,
        correlationid="ord_1",
        causationid=causation,
        traceparent=value,
        data=data.model_dump(mode="json"),
    )
    assert head + b"17" + tail == envelope.to_json()


@pytest.mark.parametrize("subject", ["", "x" * 65])
def test_an_event_that_nobody_could_read_is_not_written(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        envelope_around_sequence(NewEvent(a_capture(), subject), "evt_1", source="/payrail/x", time="now")


async def test_a_value_that_cannot_be_sent_is_no_trouble_of_the_database(database: Database) -> None:
    """Else whoever tries again what the database refused would try it for ever."""

    async def claim() -> None:
        async with database.begin() as connection:
            await Inbox(connection).claim_all("tiny", ["half of a \ud83d pair"])

    with pytest.raises(asyncpg.DataError, match="surrogates"):
        await claim()
    async with database.begin() as connection:  # and the connection is as good as before
        assert (await connection.execute(text(COUNT))).scalar() == 0
