"""The consumer kit on a real database: sequences and gaps, effects that commit with their claim, catching up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.payment_events import PAYMENT_EVENTS, PaymentEventData
from shared.contracts.webhook_events import WebhookParked
from shared.db.session import Database
from shared.errors import InvalidRequest
from shared.http import HttpCaller, build_http_client
from shared.messaging.kit import (
    CatchUp,
    CatchUpInterrupted,
    EventConsumer,
    Gap,
    OpenGap,
    Seen,
    SequenceTracker,
    consumer_queue,
    create_inbox,
)
from shared.ports import Ports
from shared.unit_of_work import InboxClaim
from tests.integration.messaging.event_owner import EventOwner, an_event_owner
from tests.support.clock import A_MOMENT, FakeClock, fake_ports
from tests.support.postgres import CreateDatabase

NAME = "ledger"
SOURCE_URL = "http://payments.test/api/v1/events"


class LedgerIsClosed(Exception):
    """What the handler raises when a test wants it to fail."""


@dataclass
class Ledger:
    """A consumer that notes each event in a table of its own."""

    database: Database
    ports: Ports
    gaps: list[Gap] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)

    async def handle(self, event: EventData, envelope: EventEnvelope, connection: AsyncConnection) -> None:
        assert isinstance(event, PaymentEventData)
        await connection.execute(text("INSERT INTO notes VALUES (:id)"), {"id": envelope.id})
        if envelope.id in self.refuses:
            raise LedgerIsClosed(envelope.id)

    async def on_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    def consumer(self, *types: str) -> EventConsumer:
        queue = consumer_queue(NAME, types or ["payment.#"])
        return EventConsumer(queue, self.handle, database=self.database, ports=self.ports, on_gap=self.on_gap)

    async def notes(self) -> list[str]:
        async with self.database.begin() as connection:
            return [row[0] for row in await connection.execute(text("SELECT id FROM notes ORDER BY id"))]

    async def see(self, sequence: int, *, source: str = "/payrail/payment_service") -> tuple[Seen, Gap | None]:
        async with self.database.begin() as connection:
            return await SequenceTracker(connection, NAME).note(an_envelope(sequence, source=source))


def an_envelope(sequence: int, *, source: str) -> EventEnvelope:
    return EventEnvelope(
        id=f"evt_{sequence}",
        type="payment.captured.v1",
        source=source,
        subject="pay_a",
        time=A_MOMENT,
        sequence=sequence,
        data={},
    )


@pytest.fixture
async def ledger(create_database: CreateDatabase) -> AsyncIterator[Ledger]:
    database = Database(create_database(), schema=NAME, application_name=NAME)
    await create_inbox(database)
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE notes (id text PRIMARY KEY)"))
    yield Ledger(database, fake_ports(clock=FakeClock(auto_advance=True)))
    await database.dispose()


@pytest.fixture
async def owner(create_database: CreateDatabase, ledger: Ledger) -> AsyncIterator[EventOwner]:
    async with an_event_owner(create_database(), ports=ledger.ports) as owner:
        yield owner


def catching_up(ledger: Ledger, owner: EventOwner, *types: str, scope: str = "events:read") -> CatchUp:
    transport = httpx.ASGITransport(app=owner.application())
    return catching_up_over(transport, ledger, *types, token=owner.token(scope))


def catching_up_over(
    transport: httpx.AsyncBaseTransport, ledger: Ledger, *types: str, token: str = "a token"
) -> CatchUp:
    async def provide() -> str:
        return token

    caller = HttpCaller(build_http_client(ledger.ports, transport=transport), ledger.ports)
    return CatchUp(ledger.consumer(*types), source_url=SOURCE_URL, http=caller, token=provide, page_size=3)


# --- The tables -------------------------------------------------------------------------------------------------------


async def test_creating_the_inbox_again_changes_nothing(ledger: Ledger) -> None:
    await ledger.see(1)
    await create_inbox(ledger.database)
    assert await ledger.see(1) == (Seen.OLD, None)


# --- Sequences --------------------------------------------------------------------------------------------------------


async def test_events_in_order_leave_no_gap(ledger: Ledger) -> None:
    assert [await ledger.see(number) for number in (1, 2, 3)] == [(Seen.IN_ORDER, None)] * 3
    assert await ledger.consumer().open_gaps() == []


async def test_a_gap_is_recorded_until_every_missing_number_has_come(ledger: Ledger) -> None:
    source = "/payrail/payment_service"
    await ledger.see(1)
    assert await ledger.see(4) == (Seen.GAP, Gap(source, "pay_a", expected=2, got=4))
    assert await ledger.consumer().open_gaps() == [OpenGap(source, "pay_a", (2, 3))]
    assert await ledger.see(3) == (Seen.FILLED, None)
    assert await ledger.see(3) == (Seen.OLD, None)
    assert await ledger.consumer().open_gaps() == [OpenGap(source, "pay_a", (2,))]
    assert await ledger.see(2) == (Seen.FILLED, None)
    assert await ledger.see(5) == (Seen.IN_ORDER, None)
    assert await ledger.consumer().open_gaps() == []


async def test_two_services_that_publish_about_one_subject_are_counted_apart(ledger: Ledger) -> None:
    assert await ledger.see(1, source="/payrail/payment_service") == (Seen.IN_ORDER, None)
    assert await ledger.see(1, source="/payrail/reconciler") == (Seen.IN_ORDER, None)


async def test_a_huge_gap_is_remembered_by_its_newest_thousand(ledger: Ledger) -> None:
    await ledger.see(5001)
    (gap,) = await ledger.consumer().open_gaps()
    assert (gap.missing[0], gap.missing[-1], len(gap.missing)) == (4001, 5000, 1000)


# --- Applying ---------------------------------------------------------------------------------------------------------


async def test_an_event_whose_handler_fails_leaves_neither_effect_nor_claim_nor_sequence(
    ledger: Ledger, owner: EventOwner
) -> None:
    event = (await owner.add_payment("pay_a"))[2]
    ledger.refuses = {event.id}
    claim = InboxClaim(NAME, event.id)
    with pytest.raises(LedgerIsClosed):
        await ledger.consumer().apply(event, claim)
    assert (await ledger.notes(), ledger.gaps, await ledger.consumer().open_gaps()) == ([], [], [])

    ledger.refuses = set()
    await ledger.consumer().apply(event, claim)
    await ledger.consumer().apply(event, claim)
    assert await ledger.notes() == [event.id]
    assert [(gap.expected, gap.got) for gap in ledger.gaps] == [(1, 3)]


async def test_a_type_of_a_newer_version_only_counts_in_its_sequence(ledger: Ledger, owner: EventOwner) -> None:
    first, second, *_ = await owner.add_payment("pay_a")
    unknown = first.model_copy(update={"type": "payment.teleported.v1"})
    for event in (unknown, second):
        await ledger.consumer().apply(event, InboxClaim(NAME, event.id))
    assert await ledger.notes() == [second.id]
    assert ledger.gaps == []


# --- Catching up ------------------------------------------------------------------------------------------------------


async def test_catching_up_applies_what_was_missed_once_and_goes_on_from_there(
    ledger: Ledger, owner: EventOwner
) -> None:
    events = [*await owner.add_payment("pay_a"), *await owner.add_payment("pay_b")]
    live = events[2]
    await ledger.consumer().apply(live, InboxClaim(NAME, live.id))
    source = catching_up(ledger, owner)

    assert await source.run() == 8
    assert await ledger.notes() == sorted(event.id for event in events)
    assert await ledger.consumer().open_gaps() == []
    assert await source.run() == 0
    later = await owner.add_payment("pay_c")
    assert await catching_up(ledger, owner).run() == 4, "another process goes on from the stored cursor"
    assert len(await ledger.notes()) == len(events) + len(later)


async def test_events_that_the_consumer_did_not_ask_for_fill_gaps_and_are_not_handled(
    ledger: Ledger, owner: EventOwner
) -> None:
    events = await owner.add_payment("pay_a")
    parked = WebhookParked(delivery_id="whd_1", gateway="stripe", references=["cs_1"], received_at=A_MOMENT)
    await owner.add(parked, subject="pay_a")
    assert await catching_up(ledger, owner, "payment.captured.v1").run() == 5
    assert await ledger.notes() == [events[-1].id]
    assert await ledger.consumer().open_gaps() == []


async def test_an_event_that_cannot_be_applied_stops_catching_up_until_it_is_given_up_on(
    ledger: Ledger, owner: EventOwner
) -> None:
    events = await owner.add_payment("pay_a")
    poison = events[1]
    ledger.refuses = {poison.id}
    interruptions = 0
    while interruptions < 20:
        try:
            await catching_up(ledger, owner).run()
            break
        except CatchUpInterrupted:
            interruptions += 1
    assert interruptions == 7, "the eighth attempt is the last one"
    assert await ledger.notes() == sorted(event.id for event in events if event is not poison)
    assert [gap.missing for gap in await ledger.consumer().open_gaps()] == [(2,)]


async def test_a_source_that_refuses_the_token_interrupts_with_the_reason(ledger: Ledger, owner: EventOwner) -> None:
    await owner.add_payment("pay_a")
    with pytest.raises(CatchUpInterrupted, match="answered 403; a token needs events:read"):
        await catching_up(ledger, owner, scope="payments:read").run()
    assert await ledger.notes() == []


@pytest.mark.parametrize("body", [b'{"data": [{}], "next_cursor": "1.1"}', b'{"data": []}', b"<html>"])
async def test_a_source_that_answers_nonsense_interrupts(ledger: Ledger, body: bytes) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(body))

    with pytest.raises(CatchUpInterrupted, match="did not answer with a page of events"):
        await catching_up_over(httpx.MockTransport(answer), ledger).run()


async def test_a_source_that_cannot_be_reached_interrupts(ledger: Ledger) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(CatchUpInterrupted, match="cannot be read"):
        await catching_up_over(httpx.MockTransport(refuse), ledger).run()


# --- The queue --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("order_service.payments", ["payment.#"]),
        ("Billing", ["payment.#"]),
        ("billing", []),
        ("billing", ["payment.teleported.v1"]),
        ("billing", ["payments.#"]),
        ("billing", ["payment.*"]),
    ],
)
def test_a_queue_that_could_not_work_is_refused(name: str, types: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        consumer_queue(name, types)


@pytest.mark.parametrize("pattern", ["payment.#", "payment.*.v1", "#", "payment.captured.v1", "#.v1"])
def test_a_queue_takes_types_and_the_brokers_patterns(pattern: str) -> None:
    assert consumer_queue("billing.payments", [pattern]).types == (pattern,)


def test_a_queue_of_every_payment_event_can_be_spelled_out() -> None:
    types = [model.TYPE for model in PAYMENT_EVENTS]
    assert consumer_queue("billing", types).types == tuple(types)
