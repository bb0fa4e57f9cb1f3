"""The relay over its table: each subject in its order, however many relays there are, and bodies that come later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import asyncpg
import pytest
from sqlalchemy import text

from shared.clock import Clock, SystemClock
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentCaptured, PaymentFailed
from shared.db.outbox import WaitingMessage, events_after, read_events
from shared.db.session import Database
from shared.errors import BusUnavailable
from shared.messaging import relay as relay_module
from shared.messaging.batches import Outcome, in_waves
from shared.messaging.bus import BusMessage, MessageNotAccepted
from shared.messaging.in_process import InProcessBus
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.relay import OutboxRelay
from tests.integration.messaging.test_both_buses import all_applied, outbox_is_empty
from tests.integration.messaging.tiny_service import SERVICE, TinyService, a_capture, running
from tests.support.statements import statements_of
from tests.support.waiting import until


class RecordingBus(InProcessBus):
    """Takes everything but what it refuses, a wave at a time, and says what was taken in which order."""

    def __init__(self, messages_at_once: int = 100) -> None:
        self.clock: Clock = SystemClock()
        super().__init__(self.clock)
        self.messages_at_once = messages_at_once
        self.taken: list[BusMessage] = []
        self.refuses: set[str] = set()
        self.is_away = False
        self.missed = 0

    @property
    def ids(self) -> list[str]:
        return [message.message_id for message in self.taken]

    def has_taken(self, message_id: str) -> bool:
        return message_id in self.ids

    async def publish_all(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        return await in_waves(messages, self._wave, self.clock)

    async def _wave(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        if self.is_away:
            self.missed += 1
            return [BusUnavailable()] * len(messages)
        outcomes: list[Outcome] = []
        for message in messages:
            refused = message.message_id in self.refuses
            outcomes.append(MessageNotAccepted("not this one") if refused else None)
            if not refused:
                self.taken.append(message)
        return outcomes


async def test_nothing_overtakes_an_event_that_another_relay_has_in_hand(service: TinyService) -> None:
    """Failure Q21."""
    bus = RecordingBus()
    ids = await service.announce(*(a_capture("pay_1", version=version) for version in (1, 2, 3)))
    (free,) = await service.announce(a_capture("pay_2"))
    async with AsyncExitStack() as another:
        connection = await another.enter_async_context(service.database.begin())
        lock = "SELECT position FROM outbox_messages WHERE message_id = :id FOR UPDATE"
        await connection.execute(text(lock), {"id": ids[0]})
        async with running(service.relay(bus).run):
            await until(lambda: bus.taken, what="the other subject")
            (later,) = await service.announce(a_capture("pay_3"))
            await until(lambda: later in bus.ids, what="another round")
            assert bus.ids == [free, later]
            await another.aclose()
            await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert bus.ids == [free, later, *ids]


async def test_an_event_that_the_bus_refuses_holds_back_those_behind_it_and_no_other_subject(
    service: TinyService,
) -> None:
    bus = RecordingBus()
    ids = await service.announce(*(a_capture("pay_1", version=version) for version in (1, 2, 3)))
    (free,) = await service.announce(a_capture("pay_2"))
    bus.refuses = {ids[1]}
    async with running(service.relay(bus, retry_wait_seconds=lambda _: 0.2).run):
        await until(lambda: len(bus.taken) == 2, what="what is not refused")
        assert bus.ids == [ids[0], free] or bus.ids == [free, ids[0]]

        async def was_tried_again() -> bool:
            return all(row.attempts >= 2 for row in await service.waiting())

        await until(was_tried_again, what="another try")
        assert [row.last_error for row in await service.waiting()] == ["not this one"] * 2
        bus.refuses = set()
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert bus.ids[2:] == ids[1:]


async def test_an_outage_uses_up_no_attempt(service: TinyService) -> None:
    bus = RecordingBus()
    bus.is_away = True
    ids = await service.announce_captures(3)
    async with running(service.relay(bus).run):
        await until(lambda: bus.missed, what="a round that comes to nothing")
        rows = await service.waiting()
        assert [(row.attempts, row.message_id) for row in rows] == [(0, each) for each in ids]
        bus.is_away = False
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert sorted(bus.ids) == sorted(ids)


async def test_a_round_is_three_statements_and_another_follows_only_where_more_may_be(service: TinyService) -> None:
    bus = RecordingBus(messages_at_once=2)
    relay = service.relay(bus)
    await service.announce_captures(1)
    with statements_of(service.database) as said:
        assert await relay._round() is False
        await until(lambda: len(said.queries) >= 3, what="hearing of all of them")
    assert sorted(query.split()[0] for query in said.queries) == ["BEGIN", "UPDATE", "WITH"], said.told()
    await service.announce_captures(3)
    assert await relay._round() is True, "the claim was full"
    assert await relay._round() is False
    bus.is_away = True
    await service.announce(a_capture())
    assert await relay._round() is True, "it is not published"
    assert len(bus.taken) == 4


class StuckBus(RecordingBus):
    """Confirms nothing of some subjects, as a queue without a majority does (M10), and takes the rest."""

    def __init__(self, stuck: str, messages_at_once: int = 100) -> None:
        super().__init__(messages_at_once)
        self.stuck = stuck

    async def _wave(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        going = [message for message in messages if not message.subject.startswith(self.stuck)]
        self.taken += going
        return [None if message in going else BusUnavailable() for message in messages]


async def test_what_is_never_confirmed_makes_room_for_the_others_and_keeps_its_order(service: TinyService) -> None:
    bus = StuckBus("stuck", messages_at_once=5)
    for number in range(6):
        await service.announce(a_capture(), a_capture(), subject=f"stuck_{number}")
    (healthy,) = await service.announce(a_capture(), subject="healthy")
    async with running(service.relay(bus).run):
        await until(lambda: healthy in bus.ids, what="the healthy one, behind more than two claims of stuck ones")
        rows = await service.waiting()
        assert {row.attempts for row in rows} == {0}
        await service.announce(a_capture(), subject="stuck_0")
        bus.stuck = "nothing"
        await until(lambda: outbox_is_empty(service), within_seconds=30, what="an empty outbox")
    sequences: dict[str, list[int]] = defaultdict(list)
    for message in bus.taken:
        sequences[message.subject].append(EventEnvelope.from_json(message.body).sequence)
    assert sequences.pop("stuck_0") == [1, 2, 3]
    assert sequences.pop("healthy") == [1]
    assert list(sequences.values()) == [[1, 2]] * 5


async def test_more_that_is_never_confirmed_than_can_be_tried_in_time_holds_up_nobody(
    service: TinyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M10: when the last one has been tried, which takes seconds a claim, it is the first one's turn again."""
    waits = ("STALLED_WAIT_SECONDS", "MAX_STALLED_WAIT_SECONDS", "MAX_OUTAGE_WAIT_SECONDS", "BUS_DOWN_WAIT_SECONDS")
    for name in waits:
        monkeypatch.setattr(relay_module, name, 0.001)
    bus = StuckBus("stuck", messages_at_once=5)
    for number in range(40):
        await service.announce(a_capture(), subject=f"stuck_{number}")
    relay = service.relay(bus)
    async with running(relay.run):
        for number in range(3):
            await service.announce(*(a_capture() for _ in range(7)), subject=f"stuck_too_{number}")
            (healthy,) = await service.announce(a_capture(), subject="healthy")
            await until(partial(bus.has_taken, healthy), what="the healthy one")
        assert len(await service.waiting()) == 40 + 21
        bus.stuck = "nothing"
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
        await service.announce(a_capture(), subject="healthy")
        await until(lambda: not relay._stalls._rounds, what="nothing being passed by any more")
    for subject in ("stuck_0", "stuck_too_1", "healthy"):
        sequences = [EventEnvelope.from_json(each.body).sequence for each in bus.taken if each.subject == subject]
        assert sequences == list(range(1, len(sequences) + 1))


async def test_an_outage_in_one_wave_ends_all_of_it(service: TinyService) -> None:
    bus = StuckBus("pay_1")
    await service.announce(*(a_capture(payment) for payment in ("pay_1", "pay_2", "pay_2", "pay_2")))
    messages = [BusMessage(row.message_id, row.type, row.subject, bytes(row.body)) for row in await service.waiting()]
    outcomes = await bus.publish_all(messages)
    assert [outcome is None for outcome in outcomes] == [False, True, False, False]


class LeapingClock(SystemClock):
    """Nine seconds go by between any two looks at it."""

    looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return super().monotonic() + self.looks * 9


async def test_a_claim_that_takes_too_long_marks_what_is_safe_and_leaves_the_rest_for_the_next(
    service: TinyService,
) -> None:
    bus = RecordingBus()
    bus.clock = LeapingClock()
    await service.announce(*(a_capture("pay_1", version=version) for version in range(1, 7)))
    relay = service.relay(bus)
    await relay._round()
    assert [(row.attempts, row.sequence) for row in await service.waiting()] == [(0, number) for number in (3, 4, 5, 6)]
    await relay._round()
    await relay._round()
    assert await service.waiting() == []
    assert len(bus.taken) == 6


async def test_in_process_nothing_is_begun_behind_a_handler_that_took_too_long(service: TinyService) -> None:
    bus = InProcessBus(LeapingClock())
    bus.subscribe(service.subscription())
    await service.announce(*(a_capture("pay_1", version=version) for version in range(1, 7)))
    await service.relay(bus)._round()
    left = [(row.attempts, row.sequence) for row in await service.waiting()]
    assert 0 < len(left) < 6
    assert {attempts for attempts, _ in left} == {0}


async def test_a_claim_outlives_the_limit_of_idle_transactions(
    service: TinyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In process one handler may take as long as that limit."""
    monkeypatch.setattr("shared.messaging.relay.SIGN_OF_LIFE_SECONDS", 0.1)
    bus = InProcessBus(SystemClock())
    bus.subscribe(service.subscription())
    own = Database(service.database.url, schema=SERVICE, application_name="hanging")

    async def takes_its_time(_event: EventEnvelope) -> None:
        async with own.begin() as connection:
            await connection.execute(text("SELECT pg_sleep(0.8)"))

    service.before_commit = takes_its_time
    await service.announce(a_capture())
    monkeypatch.setattr("shared.db.session.IDLE_IN_TRANSACTION_TIMEOUT_SECONDS", 0.4)
    relays = Database(service.database.url, schema=SERVICE, application_name="relay")
    await OutboxRelay(relays, bus, service=SERVICE, ports=service.ports)._round()
    assert await service.waiting() == []
    await own.dispose()
    await relays.dispose()


def _failed(capture: PaymentCaptured) -> PaymentFailed:
    return PaymentFailed.model_validate(capture.model_dump() | {"status": "failed"})


async def test_several_relays_that_are_killed_now_and_then_keep_every_subjects_order(
    service: TinyService, rabbitmq_bus: RabbitMQBus
) -> None:
    """Failure Q21: first deliveries of a subject come by its sequence, whoever published them."""
    rabbitmq_bus.messages_at_once = 9
    seen: list[EventEnvelope] = []

    async def notes(event: EventEnvelope) -> None:
        seen.append(event)

    service.before_commit = notes
    rabbitmq_bus.subscribe(service.subscription_in_batches(concurrency=1))
    ids: list[str] = []
    for number in range(20):  # two types, so that no order of theirs is kept by chance
        captures = [a_capture(f"pay_{number}", version=version) for version in range(1, 9)]
        ids += await service.announce(*(_failed(each) if each.version % 3 == 0 else each for each in captures))
    async with running(rabbitmq_bus.consume, service.relay(rabbitmq_bus).run):
        for killed_at in (60, 110):
            async with running(service.relay(rabbitmq_bus).run, service.relay(rabbitmq_bus).run):
                await until(lambda killed_at=killed_at: len(seen) >= killed_at, what="some of them")  # type: ignore[misc]
        await until(lambda: all_applied(service, ids), what="applying every event")
    sequences: dict[str, list[int]] = defaultdict(list)
    for event in seen:
        if event.sequence not in sequences[event.subject]:
            sequences[event.subject].append(event.sequence)
    assert sequences == {f"pay_{number}": list(range(1, 9)) for number in range(20)}


# --- Bodies that are rendered by the relay ----------------------------------------------------------------------------


class Rendering:
    """Keeps the bodies of events away from the outbox, and renders them when it is asked."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.unknown: set[str] = set()
        self.stumbles_over: set[str] = set()
        self.put_off: set[str] = set()

    async def empty(self, service: TinyService) -> None:
        for row in await service.waiting():
            self.bodies[row.message_id] = bytes(row.body)
        await service.rows("UPDATE outbox_messages SET body = ''")

    async def __call__(self, _driver: asyncpg.Connection, rows: Sequence[WaitingMessage]) -> Mapping[int, bytes]:
        if any(row.message_id in self.stumbles_over for row in rows):
            raise KeyError("a column that is not there")
        put_off, self.put_off = self.put_off, set()
        known = [row for row in rows if row.message_id not in self.unknown]
        return {row.position: b"" if row.message_id in put_off else self.bodies[row.message_id] for row in known}


async def stored(service: TinyService) -> dict[str, bytes]:
    return {row.message_id: bytes(row.body) for row in await service.rows("SELECT * FROM outbox_messages")}


async def test_a_body_that_is_missing_is_rendered_published_and_kept(service: TinyService) -> None:
    bus, rendering = RecordingBus(), Rendering()
    ids = await service.announce_captures(3)
    await rendering.empty(service)
    whole = await service.announce(a_capture("pay_whole"))
    rendering.bodies[whole[0]] = (await stored(service))[whole[0]]
    async with running(service.relay(bus, render=rendering).run):
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert {message.message_id: message.body for message in bus.taken} == rendering.bodies
    assert await stored(service) == rendering.bodies
    assert set(rendering.bodies) == {*ids, *whole}


@pytest.mark.parametrize("trouble", ["unknown", "stumbles_over"])
async def test_what_cannot_be_rendered_waits_and_holds_up_nobody(service: TinyService, trouble: str) -> None:
    bus, rendering = RecordingBus(), Rendering()
    ids = await service.announce_captures(4)
    await rendering.empty(service)
    setattr(rendering, trouble, {ids[1]})
    async with running(service.relay(bus, render=rendering).run):
        await until(lambda: len(bus.taken) == 3, what="the others")
        await until(lambda: is_put_back(service, ids[1]), what="putting it back")
        (row,) = await service.waiting()
        assert "could not be rendered" in row.last_error
        setattr(rendering, trouble, set())
        await until(lambda: outbox_is_empty(service), what="an empty outbox")


async def test_what_is_put_off_goes_with_the_next_claim_behind_it_its_subject(service: TinyService) -> None:
    bus, rendering = RecordingBus(), Rendering()
    ids = await service.announce(*(a_capture("pay_1", version=version) for version in (1, 2, 3)))
    (free,) = await service.announce(a_capture("pay_2"))
    await rendering.empty(service)
    rendering.put_off = {ids[1]}
    async with running(service.relay(bus, render=rendering).run):
        await until(lambda: len(bus.taken) >= 4, what="all of them")
    assert bus.ids == [ids[0], free, *ids[1:]]
    assert {row.attempts for row in await service.rows("SELECT attempts FROM outbox_messages")} == {0}


@pytest.mark.parametrize("statement", ["SELECT 1 / 0", "SELECT * FROM nowhere"])
async def test_a_database_error_in_the_renderer_is_not_tried_again_in_the_transaction_that_it_has_ended(
    service: TinyService, statement: str
) -> None:
    bus, rendering = RecordingBus(), Rendering()
    await service.announce_captures(3)
    await rendering.empty(service)
    asked: list[int] = []

    async def failing(driver: asyncpg.Connection, rows: Sequence[WaitingMessage]) -> Mapping[int, bytes]:
        asked.append(len(rows))
        await driver.execute(statement)
        return {}

    with pytest.raises(asyncpg.PostgresError):
        await service.relay(bus, render=failing)._round()
    assert asked == [3]
    assert [row.attempts for row in await service.waiting()] == [0] * 3


async def is_put_back(service: TinyService, message_id: str) -> bool:
    return [(row.message_id, row.attempts > 0) for row in await service.waiting()] == [(message_id, True)]


async def test_who_catches_up_waits_for_a_body_that_is_not_rendered_yet(service: TinyService) -> None:
    bus, rendering = RecordingBus(), Rendering()
    ids = [(await service.announce(a_capture(f"pay_{number}")))[0] for number in range(3)]
    bodies = await stored(service)
    await rendering.empty(service)
    for each in (ids[0], ids[2]):
        await service.rows("UPDATE outbox_messages SET body = :body WHERE message_id = :id", body=bodies[each], id=each)

    async def page(after: tuple[int, int] = (0, 0)) -> list[tuple[int, int, bytes]]:
        async with service.database.begin() as connection:
            rows = await events_after(connection, transaction_id=after[0], position=after[1], types=None, limit=10)
            return list(rows)

    first = await page()
    assert [body for *_, body in first] == [bodies[ids[0]]]
    async with running(service.relay(bus, render=rendering).run):
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert [body for *_, body in await page(first[-1][:2])] == [bodies[each] for each in ids[1:]]


async def test_a_page_of_a_rare_type_looks_at_so_many_rows_and_goes_on_from_there(
    service: TinyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.outbox.WINDOW_ROWS", 4)
    for number in range(10):
        await service.announce(_failed(a_capture()) if number == 5 else a_capture(f"pay_{number}"))
    found, cursors = [], [(0, 0)]
    while len(cursors) < 2 or cursors[-1] != cursors[-2]:
        async with service.database.begin() as connection:
            read = await read_events(connection, cursor=cursors[-1], types=[PaymentFailed.TYPE], limit=10)
        found.append(len(read.events))
        cursors.append(read.cursor)
    assert found == [0, 1, 0, 0]
