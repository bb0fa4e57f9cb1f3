"""A consumer outside Payrail's services: keeps one row per payment, and prints a line for every change.

It uses the consumer kit and nothing else of Payrail; README.md beside it says how to run it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.payment_events import PaymentEventData
from shared.db.session import Database
from shared.http import HttpCaller, build_http_client
from shared.logging import configure_logging
from shared.messaging.kit import CatchUp, EventConsumer, Gap, consumer_queue, create_inbox
from shared.periodic import Periodic
from shared.ports import system_ports
from shared.tasks import supervise

NAME = "payment_log"
QUEUE = consumer_queue(NAME, ["payment.#"])
CATCH_UP_SECONDS = 10.0  # besides whenever a gap is noticed

CREATE_TABLE = text(
    """
    CREATE TABLE IF NOT EXISTS payment_log (
        payment_id text PRIMARY KEY, status text NOT NULL, amount_captured bigint NOT NULL, currency char(3) NOT NULL,
        version bigint NOT NULL)
    """
)
# An event says how the payment is after it, so an older one than the row has nothing to add.
KEEP_NEWEST = text(
    """
    INSERT INTO payment_log (payment_id, status, amount_captured, currency, version)
    VALUES (:payment_id, :status, :amount_captured, :currency, :version)
    ON CONFLICT (payment_id) DO UPDATE
    SET status = excluded.status, amount_captured = excluded.amount_captured, version = excluded.version
    WHERE payment_log.version < excluded.version
    RETURNING payment_id
    """
)


async def keep_row(event: EventData, _envelope: EventEnvelope, connection: AsyncConnection) -> None:
    """The handler: it runs in the transaction that also marks the event as handled."""
    if not isinstance(event, PaymentEventData):
        return
    values = event.model_dump(include={"payment_id", "status", "amount_captured", "currency", "version"})
    if (await connection.execute(KEEP_NEWEST, values)).scalar() is not None:
        captured = f"{event.amount_captured} {event.currency} (minor units)"
        say(f"payment {event.payment_id} is {event.status}, captured {captured}, version {event.version}")


async def run(arguments: argparse.Namespace) -> None:
    ports = system_ports()
    database = Database(arguments.database_url, schema=NAME, application_name=NAME)
    await create_inbox(database)
    async with database.begin() as connection:
        await connection.execute(CREATE_TABLE)

    async def tell(gap: Gap) -> None:
        say(f"gap in {gap.subject}: expected {gap.expected}, got {gap.got}")
        catching_up.wake()

    async def catch_up() -> bool:
        count = await missed.run()
        say(f"caught up: {count} events read, {len(await consumer.open_gaps())} payments with gaps")
        return False

    async def token() -> str:
        return str(arguments.token)

    consumer = EventConsumer(QUEUE, keep_row, database=database, ports=ports, on_gap=tell)
    catching_up = Periodic("catch-up", catch_up, interval_seconds=CATCH_UP_SECONDS, ports=ports)
    jobs = {"consume": lambda: consumer.run(arguments.rabbitmq_url)}
    async with build_http_client(ports) as client:
        if arguments.catch_up:
            missed = CatchUp(consumer, source_url=arguments.catch_up, http=HttpCaller(client, ports), token=token)
            jobs["catch-up"] = catching_up.run
        await supervise(jobs)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", required=True, help="this consumer's own PostgreSQL: postgresql://…")
    parser.add_argument("--rabbitmq-url", required=True, help="Payrail's broker: amqp://…")
    parser.add_argument("--catch-up", metavar="URL", help="…/api/v1/events/payment-service, to read what was missed")
    parser.add_argument("--token", help="a bearer token with the scope events:read, for --catch-up")
    configure_logging(level="warning", log_format="console", service=NAME)
    asyncio.run(run(parser.parse_args()))
