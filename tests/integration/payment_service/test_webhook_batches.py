"""Webhooks applied together: the same as one by one, whatever they say and however they are cut into batches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from difflib import unified_diff
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.payment_service.db.batch import BatchTransaction, Names
from services.payment_service.db.batch_statements import BatchStatements, payment_row
from services.payment_service.domain.models import FactKind, FactSource, Payment, PaymentStatus
from services.payment_service.domain.operations import CallState, OperationKind
from services.payment_service.gateways.port import GatewayEvent
from services.payment_service.messaging.handlers import MAX_READ, WebhookBatchHandler, WebhookHandler
from services.payment_service.use_cases.record_facts import Learnt, settle
from services.payment_service.use_cases.recording_ports import NotTogether, Wanted
from services.payment_service.use_cases.wake_parked import apply_one_ready
from shared.contracts.topology import PAYMENT_WEBHOOKS
from shared.db.session import driver_of
from shared.errors import DatabaseUnavailable
from shared.messaging.bus import BusMessage, Subscription
from shared.messaging.consumer import Consumer, Handled
from shared.unit_of_work import outside_transaction
from tests.integration.payment_service.batches import (
    Chance,
    ClaimedEvent,
    Town,
    a_payment,
    about,
    an_operation,
    apply_batch,
    apply_one_by_one,
    captured,
    everything,
    observed,
    store,
)
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.support.clock import FakeClock
from tests.support.locks import patiently
from tests.support.postgres import ServiceDatabase
from tests.support.statements import statements_of
from tests.support.waiting import until

BuildTown = Callable[[], Awaitable[World]]


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def build(
    build_world: BuildWorld, service_database: ServiceDatabase, town: Town, monkeypatch: pytest.MonkeyPatch
) -> BuildTown:
    """A world with a database of its own, whose gateway says what the town says."""

    async def build_one() -> World:
        world = await build_world(clock=FakeClock(), database_url=service_database("payment_service"))
        monkeypatch.setattr(world.container.gateways.adapters["generic"], "translate_webhook", town.translate)
        return world

    return build_one


@pytest.fixture
async def world(build: BuildTown) -> World:
    return await build()


async def some_payments(world: World, count: int, *, first: int = 1, **how: Any) -> list[Payment]:
    payments = [a_payment(world, number) for number in range(first, first + count)]
    for payment in payments:
        await store(world, payment, **how)
    return payments


async def statuses(world: World) -> list[str]:
    return [row["status"] for row in await world.rows("SELECT status FROM payments ORDER BY payment_id")]


async def until_waiting(world: World, locktype: str) -> None:
    sql = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = :locktype"

    async def waits() -> bool:
        return bool(await world.rows(sql, locktype=locktype))

    await until(waits, what=f"somebody waiting for a lock of the type {locktype}")


# --- the same as one by one ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_batches_are_the_same_as_one_by_one(build: BuildTown, town: Town, seed: int) -> None:
    worlds = [await build(), await build()]
    payments = [a_payment(worlds[0], n, order=n // 2 if n < 16 else n, manual=n % 3 == 0) for n in range(10, 22)]
    calls = (CallState.ANSWERED, CallState.UNANSWERED, CallState.SENT)
    operations = [
        an_operation(payment, OperationKind.REFUND, 500, call, n)
        for n, (payment, call) in enumerate(zip(payments, calls * 2, strict=False), 1)
    ]
    for world in worlds:
        for payment in payments:
            await store(world, payment, *(each for each in operations if each.payment_id == payment.payment_id))
    chance = Chance(seed, payments, operations)
    messages: list[ClaimedEvent] = []
    for _ in range(100):
        if messages and chance.happens(0.1):
            messages.append(chance.chosen(messages))  # the same message once more
        elif messages and chance.happens(0.1):
            again = town.events[chance.chosen(messages)[0].subject]
            messages.append(town.message(worlds[0], again))  # the same news in another message
        else:
            gateway = "stripe" if chance.happens(0.02) else "generic"
            messages.append(town.message(worlds[0], chance.event(), gateway=gateway))

    await apply_one_by_one(worlds[0], messages)
    for batch in chance.split(messages):
        await apply_batch(worlds[1], batch)

    expected, found = [await everything(world) for world in worlds]
    for table, rows in expected.items():
        difference = "\n".join(unified_diff(rows, found[table], "one by one", "together", n=0))
        assert not difference, f"{table}\n{difference}"
    assert len(expected["ledger"]) > 20
    assert len(expected["parked"]) > 5


async def test_two_webhooks_of_one_payment_see_each_other(world: World, town: Town) -> None:
    """The second is found by a name that the first has brought, and its refund fits what the first has captured."""
    payment = (await some_payments(world, 1))[0]
    taken = observed(FactKind.CAPTURED, "pi_1", 1999)
    first = about(taken, refs=["pi_1"], ours=[payment.payment_id])
    second = about(observed(FactKind.REFUND_SUCCEEDED, "re_1", 500, about="pi_1"), refs=["pi_1"])
    await apply_batch(world, [town.message(world, first), town.message(world, second), town.message(world, first)])
    assert await world.parked() == []
    row = (await world.rows("SELECT status, version, amount_captured, amount_refunded FROM payments"))[0]
    assert list(row.values()) == ["captured", 4, 1999, 500]
    events = await world.events(payment.payment_id)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events[1:]] == [
        "payment.captured.v1",
        "refund.created.v1",
        "refund.succeeded.v1",
    ]


async def test_two_payments_of_one_order_in_one_batch_are_not_both_the_first(world: World, town: Town) -> None:
    """PY7"""
    payments = [a_payment(world, number, order=1) for number in (1, 2)]
    for payment in payments:
        await store(world, payment)
    await apply_batch(world, [town.message(world, captured(payment)) for payment in reversed(payments)])
    rows = await world.rows("SELECT duplicate_of FROM payments ORDER BY payment_id")
    assert [row["duplicate_of"] for row in rows] == [payments[1].payment_id, None]


async def test_what_was_claimed_before_is_left_out_and_the_rest_is_done(world: World, town: Town) -> None:
    """W1: and the same message twice in a batch is applied once."""
    first, second = await some_payments(world, 2)
    done = town.message(world, about(observed(FactKind.FAILED, "gp_1"), refs=["gp_1"]))
    await world.run("INSERT INTO inbox_messages VALUES (:c, :m, 'done', 1)", c=done[1].consumer, m=done[1].message_id)
    news = town.message(world, captured(second))
    await apply_batch(world, [done, news, news])
    assert await statuses(world) == ["requires_action", "captured"]
    assert len(await world.rows("SELECT * FROM payment_facts WHERE payment_id = :id", id=first.payment_id)) == 1


# --- what does not go together -------------------------------------------------------------------------------------


async def test_what_must_be_asked_about_is_not_taken(world: World, town: Town) -> None:
    handler = WebhookBatchHandler(world.container.context)
    payment = (await some_payments(world, 1))[0]
    hint, _ = town.message(world, captured(payment), trust="hint")
    unsure, _ = town.message(world, GatewayEvent("event", must_ask=True))
    garbled, _ = town.message(world, None)
    broken, _ = town.message(world, captured(payment))
    del town.events[broken.subject]  # reading it raises: the handler meets that too
    nonsense = hint.model_copy(update={"data": {"no": "webhook"}})
    taken = [handler.takes(envelope) for envelope in (hint, unsure, garbled, broken, nonsense)]
    assert taken == [False, False, True, False, False]


async def test_what_was_taken_and_never_handed_over_does_not_pile_up(world: World, town: Town) -> None:
    handler = WebhookBatchHandler(world.container.context)
    for _ in range(MAX_READ + 5):
        handler.takes(town.message(world, None)[0])
    assert len(handler._read) == MAX_READ


async def test_an_event_that_names_no_object_is_about_the_session_that_is_known(world: World, town: Town) -> None:
    (known,) = await some_payments(world, 1)
    (unopened,) = await some_payments(world, 1, first=2, opened=False)
    nameless = [about(observed(FactKind.CAPTURED, "", 1999), ours=[each.payment_id]) for each in (known, unopened)]
    await apply_batch(world, [town.message(world, nameless[0])])
    facts = await world.rows("SELECT object_reference FROM payment_facts WHERE kind = 'captured'")
    assert [fact["object_reference"] for fact in facts] == ["gp_1"]
    before = await everything(world)
    with pytest.raises(NotTogether, match="asked"):  # whoever has no session has to be asked about by the handler
        await apply_batch(world, [town.message(world, captured(known, 2500)), town.message(world, nameless[1])])
    assert await everything(world) == before


async def test_a_delivery_that_is_parked_already_is_left_to_the_handler(world: World, town: Town) -> None:
    unknown = town.message(world, about(refs=["gp_of_nobody"]))
    await apply_one_by_one(world, [unknown])
    again = (unknown[0].model_copy(update={"id": "evt_replayed"}), replace(unknown[1], message_id="evt_replayed"))
    before = await everything(world)
    with pytest.raises(NotTogether, match="parked already"):
        await apply_batch(world, [again])
    assert await everything(world) == before
    await apply_one_by_one(world, [again])
    assert len(await world.events()) == 1


async def test_one_that_breaks_takes_nothing_with_it_but_itself(world: World, town: Town) -> None:
    payments = await some_payments(world, 4)
    messages = [town.message(world, captured(payment)) for payment in payments]
    poison = about(observed(FactKind.FAILED, "gp_2", reason="nobody stores a \x00"), refs=["gp_2"])
    messages[1] = town.message(world, poison)
    before = await everything(world)
    with pytest.raises(Exception, match="unsupported Unicode"):
        await apply_batch(world, messages)
    assert await everything(world) == before

    for number, message in enumerate(messages):
        if number == 1:
            with pytest.raises(Exception, match="0x00"):
                await apply_one_by_one(world, [message])
        else:
            await apply_one_by_one(world, [message])
    assert await statuses(world) == ["captured", "requires_action", "captured", "captured"]


async def test_a_connection_that_dies_before_the_commit_leaves_nothing(
    world: World, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments = await some_payments(world, 3)
    messages = [town.message(world, captured(payment)) for payment in payments]
    before, write = await everything(world), BatchTransaction.write

    async def die(batch: BatchTransaction) -> None:
        await write(batch)
        monkeypatch.setattr(BatchTransaction, "write", write)
        with outside_transaction():
            await world.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' "
                "AND datname = current_database()"
            )

    monkeypatch.setattr(BatchTransaction, "write", die)
    with pytest.raises(DatabaseUnavailable):
        await apply_batch(world, messages)
    assert await everything(world) == before
    await apply_batch(world, messages)
    assert await statuses(world) == ["captured"] * 3


async def test_every_value_of_a_payment_is_written_to_its_own_column(world: World) -> None:
    """They travel by their places, and eight of them are amounts."""
    first, payment = await some_payments(world, 2)
    moments = [payment.created_at + timedelta(minutes=minute) for minute in range(4)]
    changed = replace(
        payment,
        version=9,
        state=replace(
            payment.state,
            status=PaymentStatus.CAPTURED,
            amount_authorized=2500,
            amount_capture_pending=100,
            amount_captured=1999,
            amount_refund_pending=40,
            amount_refunded=300,
            amount_disputed=50,
            amount_dispute_lost=30,
            amount_excess=7,
            has_unknown_operation=True,
            failure_code="why",
            conflict="what",
        ),
        session_unknown=False,
        capture_before=moments[0],
        capture_warned_at=moments[1],
        given_up_at=moments[2],
        updated_at=moments[3],
        gateway_reference="another",
        duplicate_of=first.payment_id,
    )
    other = replace(changed, session_unknown=True, state=replace(changed.state, has_unknown_operation=False))
    for written in (changed, other):
        async with world.container.database.begin_driver() as driver:
            await BatchStatements(driver).write({"payments": [payment_row(written)]}, ())
        async with world.container.context.uow() as tx:
            assert await tx.payments.get_for_update(payment.payment_id) == written


# --- beside others -------------------------------------------------------------------------------------------------


async def test_payments_are_locked_in_the_order_of_their_ids(world: World, town: Town) -> None:
    first, second, third = await some_payments(world, 3)
    messages = [town.message(world, captured(payment)) for payment in (third, second, first)]
    async with world.container.context.uow() as tx:
        await tx.payments.get_for_update(first.payment_id)
        with outside_transaction():
            batch = asyncio.create_task(patiently(lambda: apply_batch(world, messages)))
        await until_waiting(world, "transactionid")
        await tx.payments.get_for_update(second.payment_id)  # else both would wait for the other
        await tx.payments.get_for_update(third.payment_id)
    await batch
    assert await statuses(world) == ["captured"] * 3


async def test_a_batch_waits_two_seconds_for_a_lock_and_one_who_waits_by_himself_five(
    world: World, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    (payment,) = await some_payments(world, 1)
    claim_and_load, waits = BatchStatements.claim_and_load, []

    async def look(statements: BatchStatements, *given: Any) -> Any:
        waits.append(await statements._driver.fetchval("SHOW lock_timeout"))
        loaded = await claim_and_load(statements, *given)
        waits.append(await statements._driver.fetchval("SHOW lock_timeout"))
        return loaded

    monkeypatch.setattr(BatchStatements, "claim_and_load", look)
    await apply_batch(world, [town.message(world, captured(payment))])
    assert waits == ["5s", "2s"]


async def test_a_payment_that_somebody_holds_costs_its_neighbours_seconds_and_no_more(world: World, town: Town) -> None:
    payments = await some_payments(world, 4)
    messages = [
        BusMessage(event.id, event.type, "", event.to_json(), redelivered=number == 0, envelope=event)
        for number, (event, _) in enumerate(town.message(world, captured(payment)) for payment in payments)
    ]
    context, database = world.container.context, world.container.database
    subscription = Subscription(PAYMENT_WEBHOOKS, WebhookHandler(context), database, batch=WebhookBatchHandler(context))
    consumer = Consumer(subscription, world.clock)
    async with context.uow() as tx:
        await tx.payments.get_for_update(payments[3].payment_id)
        with outside_transaction():
            assert await consumer.handle_batch(messages) == [(None, 1), (None, 0), (None, 0), (None, 0)]
            assert [(await consumer.handle(each))[0] for each in messages[:3]] == [Handled.DONE] * 3
    assert await statuses(world) == ["captured"] * 3 + ["requires_action"]
    assert await consumer.handle_batch(messages) == [(Handled.DONE, 1)] * 4
    assert await statuses(world) == ["captured"] * 4


async def test_everybody_else_has_turns_while_a_batch_is_applied(world: World, town: Town) -> None:
    payments = await some_payments(world, 25)
    assert isinstance(world.clock, FakeClock)
    world.clock.sleeps.clear()
    await apply_batch(world, [town.message(world, captured(payment)) for payment in payments])
    assert world.clock.sleeps == [0, 0]


async def test_orders_are_locked_in_one_order(world: World, town: Town) -> None:
    """Two batches meet at the orders of different payments: each has its own payments locked by then."""
    payments = [a_payment(world, number, order=number % 5) for number in range(20)]
    for payment in payments:
        await store(world, payment)
    batches = [[town.message(world, captured(payment)) for payment in payments[start::4]] for start in (0, 1, 2, 3)]
    await asyncio.gather(*(patiently(partial(apply_batch, world, batch)) for batch in batches))
    assert await statuses(world) == ["captured"] * 20
    firsts = await world.rows("SELECT order_id FROM payments WHERE duplicate_of IS NULL")
    assert len(firsts) == len({row["order_id"] for row in firsts}) == 5


async def test_batches_webhooks_and_operations_at_once_over_the_same_payments(world: World, town: Town) -> None:
    payments = await some_payments(world, 12)
    taken = [town.message(world, captured(payment)) for payment in payments]
    await apply_batch(world, taken[:4])
    given_back = [
        town.message(world, about(observed(FactKind.REFUND_SUCCEEDED, f"re_{p.payment_id}_{n}", 100), refs=[f"gp_{i}"]))
        for n in range(4)
        for i, p in enumerate(payments, 1)
    ]
    messages = [*taken * 2, *given_back]
    random.Random(7).shuffle(messages)

    async def reserve(number: int, payment: Payment) -> None:
        async with world.container.context.uow() as tx:
            locked = await tx.payments.get_for_update(payment.payment_id)
            assert locked is not None
            operation = an_operation(locked, OperationKind.REFUND, 50, CallState.UNSENT, number)
            await settle(tx, locked, Learnt(FactSource.API, world.clock.now()), added=[operation])

    await asyncio.gather(
        *(patiently(partial(apply_batch, world, messages[start::5])) for start in range(5)),
        *(apply_one_by_one(world, messages[start::9]) for start in range(2)),
        *(reserve(number, payment) for number, payment in enumerate(payments, 1)),
    )
    totals = await world.rows("SELECT amount_captured, amount_refunded, amount_refund_pending FROM payments")
    assert [list(row.values()) for row in totals] == [[1999, 400, 50]] * 12
    async with world.container.context.uow() as tx:
        assert await tx.ledger.untied_payments([payment.payment_id for payment in payments], limit=5) == []
    for payment in payments:
        events = await world.events(payment.payment_id)
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))


async def test_a_payment_that_is_being_created_is_waited_for_and_not_parked(world: World, town: Town) -> None:
    """PY5: its creation has not been committed when the batch looks for it, and would wake nobody afterwards."""
    (known,) = await some_payments(world, 1)
    new = a_payment(world, 2)
    names = (new.payment_id, new.order_id)
    early = about(observed(FactKind.CAPTURED, "gp_2", 1999), refs=["gp_2"], ours=[new.payment_id])
    messages = [town.message(world, early), town.message(world, captured(known))]
    async with world.container.context.uow() as creating:
        await creating.payments.add(new)
        await creating.parked.lock_references("generic", names)
        assert not await creating.parked.wake("generic", None, names)
        with outside_transaction():
            batch = asyncio.create_task(patiently(lambda: apply_batch(world, messages)))
        await until_waiting(world, "advisory")
    await batch
    assert await statuses(world) == ["captured", "captured"]
    assert await world.parked() == []


async def test_batches_and_creations_at_once_lose_nothing(world: World, town: Town) -> None:
    """PY5"""
    for _ in range(6):
        bodies = [world.body() for _ in range(3)]
        events = [
            about(
                observed(FactKind.CAPTURED, f"gp_{body['payment_id']}", 1999),
                refs=[f"gp_{body['payment_id']}"],
                ours=[body["payment_id"]],
            )
            for body in bodies
        ]
        await asyncio.gather(
            *(world.post("", body) for body in bodies),
            patiently(partial(apply_batch, world, [town.message(world, event) for event in events])),
        )
        while await apply_one_ready(world.container.context):
            pass
    assert set(await statuses(world)) == {"captured"}
    assert set(await world.parked()) <= {"applied"}


# --- how many statements -------------------------------------------------------------------------------------------


async def test_a_batch_of_many_takes_as_many_statements_as_a_batch_of_two(world: World, town: Town) -> None:
    payments = await some_payments(world, 26)
    counts, told = [], ""
    for batch in (payments[:2], payments[2:]):
        messages = [town.message(world, captured(payment)) for payment in batch]
        messages += [town.message(world, about(refs=[f"of nobody {each.payment_id}"])) for each in batch]
        with statements_of(world.container.database) as statements:
            await apply_batch(world, messages)
        counts.append(len(statements.within))
        told = statements.told()
    assert counts == [2, 2], told  # between BEGIN and COMMIT: one that claims and loads, one that writes


async def test_what_moves_nothing_is_only_claimed(world: World, town: Town) -> None:
    ignored = [town.message(world, GatewayEvent("ping", ignored="of no interest")) for _ in range(5)]
    disabled = [town.message(world, None, gateway="stripe")]
    with statements_of(world.container.database) as statements, capture_logs() as lines:
        await apply_batch(world, [*ignored, *disabled])
    assert len(statements.within) == 1, statements.told()
    assert len(lines) == 6
    assert len(await world.rows("SELECT * FROM inbox_messages WHERE status = 'done'")) == 6


_MANY = """
    WITH many AS (
        INSERT INTO payments SELECT (jsonb_populate_record(p, jsonb_build_object('payment_id', 'pay_many_' || n,
            'order_id', 'ord_many_' || n))).*
        FROM payments p, generate_series(1, 4000) AS n WHERE p.payment_id LIKE '%40' RETURNING payment_id),
    facts AS (
        INSERT INTO payment_facts (payment_id, natural_key, kind, source, object_reference, received_at)
        SELECT payment_id, 'many', 'session_opened', 'api', payment_id, now() FROM many),
    attempts AS (
        INSERT INTO payment_attempts (attempt_id, payment_id, reference, idempotency_key, status, session_expires_at)
        SELECT 'att' || payment_id, payment_id, payment_id, payment_id, 'created', now() FROM many)
    INSERT INTO payment_references (gateway, account, reference, payment_id)
    SELECT 'generic', '', 'gp' || payment_id, payment_id FROM many
"""


async def test_no_statement_of_a_batch_reads_a_whole_table(
    world: World, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statements are planned once, and the first time while there is next to nothing: at ten million rows it would be
    too late to notice."""
    payments = await some_payments(world, 40)
    read: list[dict[str, int]] = []
    claim_and_load, write = BatchStatements.claim_and_load, BatchTransaction.write

    async def look(statements: BatchStatements) -> None:
        sql = """
            SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows
            FROM pg_stat_xact_user_tables WHERE seq_tup_read > 0 OR idx_tup_fetch > 0
        """
        read.append(dict(await statements._driver.fetch(sql)))

    async def look_and_load(statements: BatchStatements, *given: Any) -> Any:
        await look(statements)  # a connection has not told yet of what it did shortly before
        return await claim_and_load(statements, *given)

    async def write_and_look(batch: BatchTransaction) -> None:
        await write(batch)
        await look(batch._statements)

    monkeypatch.setattr(BatchStatements, "claim_and_load", look_and_load)
    monkeypatch.setattr(BatchTransaction, "write", write_and_look)
    for number, batch in enumerate((payments[:10], payments[10:20], payments[20:])):
        if number == 1:
            await world.run(_MANY)
        if number == 2:
            await world.run("ANALYZE")
        strangers = [about(refs=[f"nobody's_{p.payment_id}"], ours=[f"nobody_{p.payment_id}"]) for p in batch]
        await apply_batch(world, [town.message(world, event) for event in (*map(captured, batch), *strangers)])
        earlier, rows = read[-2:]
        assert max(rows[table] - earlier.get(table, 0) for table in rows) <= 15 * len(batch), (earlier, rows)
    assert (await statuses(world)).count("captured") == 40


async def test_finding_one_payment_reads_no_whole_table_either(world: World) -> None:
    """Its statement is prepared on a connection while there is next to nothing, and the plan is kept."""
    [payment] = await some_payments(world, 1)
    names = ((f"gp_{payment.payment_id}", "nobody's"), (payment.order_id,))

    async def find() -> int:
        """How many rows it reads."""
        async with world.container.context.uow() as tx:
            driver = await driver_of(tx.connection)  # type: ignore[attr-defined]
            before = await driver.fetchval(_ROWS_READ)
            assert await tx.payments.find("generic", *names) == payment.payment_id
            return int(await driver.fetchval(_ROWS_READ) - before)

    for _ in range(12):  # any connection of the pool, often enough for a plan that is kept
        await find()
    await world.run(_MANY.replace("%40", "%"))
    assert max([await find() for _ in range(3)]) <= 10


_ROWS_READ = """
    SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables
"""


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "expected"),
    [(None, "pay_2"), ("eu", "pay_3"), ("us", None)],
)
def test_the_best_rank_counts_and_of_it_the_newest_payment_of_that_account(account: str, expected: str | None) -> None:
    names = Names()
    names.learn(
        [
            (4, "ord_1", "generic", None, "pay_9"),
            (3, "gp_1", "generic", None, "pay_1"),
            (3, "gp_2", "generic", None, "pay_2"),
            (3, "gp_1", "generic", "eu", "pay_3"),
            (1, "pay_4", "another", None, "pay_4"),
        ]
    )
    assert names.find(Wanted("generic", account, ("gp_1", "gp_2"), ("ord_1", "pay_4"))) == expected
