"""An operator reads what a consumer gave up on, and has it applied again by the service's own handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import aio_pika
import pytest
from aio_pika.abc import HeadersType
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.local.postgres import run_psql
from shared.contracts.envelope import BATCH_CONTENT_TYPE, EventEnvelope
from shared.contracts.payment_events import PaymentCaptured
from shared.contracts.topology import ORDER_PAYMENTS
from shared.messaging.batches import COUNT_HEADER, join
from shared.messaging.rabbitmq import connect
from shared.messaging.topology import apply_topology

KEY = "a-shared-key-of-thirty-two-bytes!!"


def a_payment_event(event_id: str, **data: object) -> EventEnvelope:
    event = PaymentCaptured(
        payment_id="pay_x",
        order_id="ord_x",
        gateway="generic",
        status="captured",
        version=3,
        amount=100,
        currency="USD",
    )
    return EventEnvelope(
        id=event_id,
        type=PaymentCaptured.TYPE,
        source="/payrail/payment_service",
        subject="pay_x",
        time=datetime(2026, 1, 2, tzinfo=UTC),
        sequence=1,
        data=event.model_dump(mode="json") | data,
    )


def park(url: str, envelope: EventEnvelope) -> None:
    """What the consumer kit leaves after the last attempt."""
    body = envelope.to_json().hex()
    run_psql(
        url,
        "INSERT INTO order_service.inbox_messages (consumer, message_id, status, attempts, last_error, body) VALUES "
        f"('{ORDER_PAYMENTS.name}', '{envelope.id}', 'dead', 8, 'it failed', decode('{body}', 'hex'))",
    )


def status_of(url: str, message_id: str) -> str:
    return run_psql(url, f"SELECT status FROM order_service.inbox_messages WHERE message_id = '{message_id}'").strip()


@pytest.fixture
def database_url(service_database: Callable[[str], str]) -> str:
    return service_database("order_service")


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    environment = {
        "PAYRAIL_ENVIRONMENT": "development",
        "JWT_SHARED_KEY": KEY,
        "ORDER_SERVICE_DATABASE_URL": database_url,
        "COLUMNS": "200",
    }
    return CliRunner(env=environment)


def test_dead_messages_are_listed_with_what_went_wrong(run: CliRunner, database_url: str) -> None:
    park(database_url, a_payment_event("evt_dead"))
    answer = run.invoke(app, ["events", "dead", "order-service"])
    assert answer.exit_code == 0, answer.output
    for shown in ("evt_dead", "payment.captured.v1", "it failed"):
        assert shown in answer.output


def test_a_redriven_message_is_applied_once_and_is_dead_no_more(run: CliRunner, database_url: str) -> None:
    park(database_url, a_payment_event("evt_good"))
    answer = run.invoke(app, ["events", "redrive", "order-service"])
    assert answer.exit_code == 0, answer.output
    assert status_of(database_url, "evt_good") == "done"
    again = run.invoke(app, ["events", "redrive", "order-service"])
    assert "0 applied" in again.output


def test_a_batch_that_an_older_consumer_gave_up_on_as_one_message_is_taken_apart(
    run: CliRunner, database_url: str
) -> None:
    events = [a_payment_event(f"evt_{number}") for number in range(3)]
    body = join([event.to_json() for event in events]).hex()
    park(database_url, events[0])
    changes = f"message_id = 'batch:1', body = decode('{body}', 'hex')"
    run_psql(database_url, f"UPDATE order_service.inbox_messages SET {changes}")
    park(database_url, events[1])
    run_psql(database_url, "UPDATE order_service.inbox_messages SET status = 'done' WHERE message_id = 'evt_1'")
    listed = run.invoke(app, ["events", "dead", "order-service"])
    assert "several events" in listed.output, listed.output
    answer = run.invoke(app, ["events", "redrive", "order-service"])
    assert "2 applied, 0 failed again" in answer.output, answer.output
    assert [status_of(database_url, each) for each in ("batch:1", "evt_0", "evt_1", "evt_2")] == ["done"] * 4


def test_a_message_that_still_cannot_be_applied_stays_dead_and_the_command_says_so(
    run: CliRunner, database_url: str
) -> None:
    park(database_url, a_payment_event("evt_bad", amount="not a number"))
    park(database_url, a_payment_event("evt_other"))
    answer = run.invoke(app, ["events", "redrive", "order-service"])
    assert answer.exit_code == 1
    assert "1 applied, 1 failed again" in answer.output
    assert status_of(database_url, "evt_bad") == "dead"
    assert status_of(database_url, "evt_other") == "done"


def test_the_brokers_copies_of_what_is_applied_are_cleared(run: CliRunner, database_url: str, vhost_url: str) -> None:
    good, bad = a_payment_event("evt_good"), a_payment_event("evt_bad", amount="not a number")
    for envelope in (good, bad):
        park(database_url, envelope)
    asyncio.run(dead_letter(vhost_url, [good, bad]))
    answer = run.invoke(app, ["events", "redrive", "order-service"], env={"RABBITMQ_URL": vhost_url})
    assert "1 applied, 1 failed again" in answer.output, answer.output
    assert asyncio.run(dead_letters(vhost_url)) == ["evt_bad"]


def test_what_only_the_broker_gave_up_on_is_redriven_too(run: CliRunner, database_url: str, vhost_url: str) -> None:
    """Failure Q12: the inbox knows of a failing attempt, or of nothing; the batch lies in the dead-letter queue."""
    batch = [a_payment_event(f"evt_{number}") for number in range(3)]
    for envelope, status in ((batch[0], "failing"), (batch[1], "done")):
        park(database_url, envelope)
        changes = f"SET status = '{status}', body = NULL WHERE message_id = '{envelope.id}'"
        run_psql(database_url, f"UPDATE order_service.inbox_messages {changes}")
    asyncio.run(dead_letter_together(vhost_url, batch))
    answer = run.invoke(app, ["events", "redrive", "order-service"], env={"RABBITMQ_URL": vhost_url})
    assert "2 applied, 0 failed again" in answer.output, answer.output
    assert [status_of(database_url, envelope.id) for envelope in batch] == ["done"] * 3
    assert asyncio.run(dead_letters(vhost_url)) == []


def test_without_its_broker_what_the_inbox_keeps_is_redriven_all_the_same(run: CliRunner, database_url: str) -> None:
    park(database_url, a_payment_event("evt_good"))
    nowhere = "amqp://guest:guest@127.0.0.1:1/"
    answer = run.invoke(app, ["events", "redrive", "order-service"], env={"RABBITMQ_URL": nowhere})
    assert "cannot be read now" in answer.output
    assert status_of(database_url, "evt_good") == "done"


async def dead_letter_together(url: str, envelopes: list[EventEnvelope]) -> None:
    await apply_topology(url)
    connection = await connect(url, name="test")
    async with connection:
        channel = await connection.channel()
        body = join([envelope.to_json() for envelope in envelopes])
        headers: HeadersType = {COUNT_HEADER: len(envelopes)}
        message = aio_pika.Message(body, content_type=BATCH_CONTENT_TYPE, headers=headers)
        await channel.default_exchange.publish(message, routing_key=ORDER_PAYMENTS.dead_letter_queue)


async def dead_letter(url: str, envelopes: list[EventEnvelope]) -> None:
    await apply_topology(url)
    connection = await connect(url, name="test")
    async with connection:
        channel = await connection.channel()
        for envelope in envelopes:
            message = aio_pika.Message(envelope.to_json(), message_id=envelope.id)
            await channel.default_exchange.publish(message, routing_key=ORDER_PAYMENTS.dead_letter_queue)


async def dead_letters(url: str) -> list[str | None]:
    connection = await connect(url, name="test")
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(ORDER_PAYMENTS.dead_letter_queue, passive=True)
        found = []
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            found.append(message.message_id)
    return found
