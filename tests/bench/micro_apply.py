"""What applying webhooks costs one process, without a broker: batches of 1, 10 and 100 beside a bare loop over Core.

``python -m tests.bench.micro_apply [webhooks a round] [rounds] [--profile SIZE]``. Rounds are interleaved, so that a
noisy neighbour meets all of them; CPU is counted, of this process and of PostgreSQL's.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from time import perf_counter, process_time

import uvloop
from sqlalchemy import text

from deploy.local.postgres import EmbeddedPostgres
from services.payment_service.bootstrap import Container, build
from services.payment_service.messaging.handlers import WebhookBatchHandler, WebhookHandler
from services.payment_service.settings import PaymentSettings
from shared.clock import SystemClock, to_rfc3339
from shared.contracts.envelope import EventEnvelope
from shared.contracts.webhook_events import WebhookReceived
from shared.db.migrations import upgrade
from shared.ids import TimeOrderedIds
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports
from shared.randomness import SystemRandomness
from shared.unit_of_work import InboxClaim
from tests.bench.measuring import Meter

Message = tuple[EventEnvelope, InboxClaim]
Apply = Callable[[Sequence[Message]], Awaitable[None]]

_PAYMENTS = text(
    """
    INSERT INTO payments (payment_id, order_id, gateway, amount_minor, currency, capture, status, version, description,
        customer, items, success_url, failure_url, cancel_url, request_digest, created_at, updated_at, expires_at,
        gateway_reference)
    SELECT id, replace(id, 'pay_', 'ord_'), 'generic', 1999, 'EUR', 'automatic', 'requires_action', 2, 'Order',
        '{"email": "ada@example.com", "name": "Ada", "phone": null}',
        '[{"name": "Tea", "quantity": 1, "unit_amount_minor": 1999}]',
        'https://shop.example/a', 'https://shop.example/b', 'https://shop.example/c', 'digest', now(), now(),
        now() + interval '1 hour', replace(id, 'pay_', 'gp_')
    FROM unnest(CAST(:ids AS text[])) AS id
    """
)
_BELONGINGS = (
    """
    INSERT INTO payment_attempts (attempt_id, payment_id, reference, idempotency_key, status, session_expires_at,
        gateway_reference)
    SELECT replace(id, 'pay_', 'att_'), id, right(id, 20), id, 'open', now(), replace(id, 'pay_', 'gp_')
    FROM unnest(CAST(:ids AS text[])) AS id
    """,
    """
    INSERT INTO payment_references (gateway, reference, payment_id)
    SELECT 'generic', replace(id, 'pay_', 'gp_'), id FROM unnest(CAST(:ids AS text[])) AS id
    """,
    """
    INSERT INTO payment_facts (payment_id, natural_key, kind, source, object_reference, received_at)
    SELECT id, 'session_opened:' || replace(id, 'pay_', 'gp_'), 'session_opened', 'api', replace(id, 'pay_', 'gp_'),
        now() FROM unnest(CAST(:ids AS text[])) AS id
    """,
    "INSERT INTO outbox_sequences (subject, last_sequence) SELECT id, 2 FROM unnest(CAST(:ids AS text[])) AS id",
)
_CLAIM = text(
    "INSERT INTO inbox_messages (consumer, message_id, status, attempts, handled_at) "
    "VALUES ('bare', :id, 'done', 1, now()) ON CONFLICT DO NOTHING RETURNING message_id"
)
_UPDATE = text("UPDATE payments SET status = 'captured', amount_captured = 1999, amount_authorized = 1999, "
               "version = version + 1, updated_at = now() WHERE payment_id = :id")  # fmt: skip
_EVENT = text(
    "INSERT INTO outbox_messages (message_id, type, subject, sequence, body) "
    "VALUES (:message, 'payment.captured.v1', :id, 3, :body)"
)


class Bench:
    def __init__(self, container: Container) -> None:
        self.container = container
        self.handler = WebhookHandler(container.context)
        self.batch = WebhookBatchHandler(container.context)
        self.ids = container.ports.ids
        self.about: dict[str, str] = {}

    async def stock(self, count: int) -> list[Message]:
        """That many open payments, and the webhook that each is paid by, as it comes off the wire."""
        ids = [self.ids.new("pay") for _ in range(count)]
        async with self.container.database.begin() as connection:
            for statement in (_PAYMENTS, *map(text, _BELONGINGS)):
                await connection.execute(statement, {"ids": ids})
        messages = [self.message(each) for each in ids]
        self.about = {envelope.id: payment_id for (envelope, _), payment_id in zip(messages, ids, strict=True)}
        return messages

    def message(self, payment_id: str) -> Message:
        now, delivery_id = self.container.ports.clock.now(), self.ids.new("whd")
        body = {
            "payment_id": payment_id.replace("pay_", "gp_"),
            "transaction_id": payment_id,
            "status": "completed",
            "amount": "19.99",
            "currency": "EUR",
            "padding": "x" * 600,
        }
        data = {
            "delivery_id": delivery_id,
            "gateway": "generic",
            "trust": "full",
            "received_at": to_rfc3339(now - timedelta(milliseconds=5)),
            "content_type": "application/json",
            "payload": json.dumps(body),
        }
        envelope = EventEnvelope(
            id=self.ids.new("evt"),
            type=WebhookReceived.TYPE,
            source="/payrail/webhook_ingest",
            subject=delivery_id,
            time=now,
            sequence=1,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            data=data,
        )
        return envelope, InboxClaim("payment.webhooks", envelope.id)

    async def bare(self, messages: Sequence[Message]) -> None:
        body = b"x" * 600
        for payment_id in (self.about[envelope.id] for envelope, _ in messages):
            async with self.container.database.engine.begin() as connection:
                if (await connection.execute(_CLAIM, {"id": payment_id})).scalar() is not None:
                    await connection.execute(_UPDATE, {"id": payment_id})
                    await connection.execute(_EVENT, {"message": payment_id, "id": payment_id, "body": body})

    async def one_by_one(self, messages: Sequence[Message]) -> None:
        for envelope, claim in messages:
            await self.handler(envelope, claim)

    def batches_of(self, size: int) -> Apply:
        async def apply(messages: Sequence[Message]) -> None:
            for start in range(0, len(messages), size):
                batch = messages[start : start + size]
                assert all(self.batch.takes(envelope) for envelope, _ in batch)
                await self.batch(batch)

        return apply


async def _open(stack: AsyncExitStack, directory: Path) -> tuple[Bench, EmbeddedPostgres]:
    postgres = EmbeddedPostgres(directory)
    postgres.start()
    stack.callback(postgres.stop)
    url = postgres.url("postgres")
    await upgrade("payment_service", url)
    clock, randomness = SystemClock(), SystemRandomness()
    ports = Ports(clock, TimeOrderedIds(clock, randomness), randomness, None)
    settings = PaymentSettings.load(
        gateway_variables={"GENERIC_API_BASE": "https://gateway.test", "GENERIC_API_KEY": "gk"},
        environment="development",
        database_url=url,
        jwt_shared_key="a-development-key-of-more-than-32-bytes",
        public_base_url="https://pay.example",
    )
    return Bench(await stack.enter_async_context(build(settings, ports=ports, bus=InProcessBus(clock)))), postgres


async def measure(count: int, rounds: int, directory: Path) -> None:
    async with AsyncExitStack() as stack:
        bench, postgres = await _open(stack, directory)
        ways: dict[str, Apply] = {
            "bare SQLAlchemy Core loop": bench.bare,
            "one by one": bench.one_by_one,
            "batches of 1": bench.batches_of(1),
            "batches of 10": bench.batches_of(10),
            "batches of 100": bench.batches_of(100),
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for n in range(rounds + 1):
            for name, apply in ways.items():
                messages = await bench.stock(count)
                meter, cpu, began = Meter({"PostgreSQL": [postgres.pid or 0]}), process_time(), perf_counter()
                await apply(messages)
                took, cpu = perf_counter() - began, process_time() - cpu
                if n:  # the first warms up
                    theirs = meter.cost().microseconds_each(count)["PostgreSQL"]
                    found[name].append((count / took, cpu / count * 1e6, theirs))
        for name, rows in found.items():
            rate, ours, theirs = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{name:28}{rate:8.0f}/s {ours:8.0f} µs CPU here {theirs:8.0f} µs CPU in PostgreSQL")


async def profile(count: int, size: int, directory: Path) -> None:
    async with AsyncExitStack() as stack:
        bench, _ = await _open(stack, directory)
        apply = bench.batches_of(size)
        await apply(await bench.stock(count))
        messages = await bench.stock(count)
        profiler = cProfile.Profile(process_time)  # other processes are busy, too
        profiler.enable()
        await apply(messages)
        profiler.disable()
        stats = pstats.Stats(profiler)
        stats.sort_stats("tottime").print_stats(45)
        stats.sort_stats("cumulative").print_stats(70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=500)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--profile", type=int, metavar="SIZE", help="where the time of batches of SIZE goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="payrail-micro-") as directory:
        if arguments.profile:
            uvloop.run(profile(arguments.count, arguments.profile, Path(directory)))
        else:
            uvloop.run(measure(arguments.count, arguments.rounds, Path(directory)))


if __name__ == "__main__":
    main()
