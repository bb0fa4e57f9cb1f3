"""What lies between two transactions: CPU of a relay's round and of a consumed message, and an event's way hop by hop.

``python -m tests.bench.micro_relay [events a round] [rounds]``. PostgreSQL is on the disk with fsync, RabbitMQ is real;
rounds of one event and of a hundred are interleaved. CPU is this process's and PostgreSQL's; what writing the rows
costs (and publishing, for the consumer) is measured by itself and taken off. The latencies are those of single events
at a steady rate, hinted from another connection as from another process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter, process_time

import asyncpg
import uvloop

from services.webhook_ingest.db.announcing import _rendered
from shared.clock import to_rfc3339
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentCaptured
from shared.db.outbox import OUTBOX_CHANNEL, WaitingMessage
from shared.db.session import Database
from shared.messaging.batches import Outcome
from shared.messaging.bus import BusMessage, ClaimedEvent
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.relay import OutboxRelay
from shared.messaging.topology import apply_topology
from tests.bench.measuring import Meter
from tests.bench.stack import DurablePostgres, on_disk
from tests.integration.messaging.tiny_service import QUEUE, SERVICE, TinyService, a_capture, create_schema, running
from tests.support.rabbitmq import LocalRabbitMQ, make_own_rabbitmq
from tests.support.waiting import until

RATE = 100
_INSERT = """
    INSERT INTO outbox_messages (message_id, type, subject, sequence, body)
    SELECT id, $2, id, 1, body FROM unnest($1::text[], $3::bytea[]) AS given (id, body)
"""
HOPS = ("committed → claimed", "claimed → confirmed", "confirmed → arrived", "arrived → handler", "handler → committed")


class Moments(dict[str, dict[str, float]]):
    """When each event reached each place, by its id."""

    def note(self, place: str, ids: Sequence[str]) -> None:
        now = perf_counter()
        for each in ids:
            self.setdefault(each, {})[place] = now


class WatchedBus(RabbitMQBus):
    moments: Moments
    published = 0

    async def publish_all(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        ids = [message.message_id for message in messages]
        self.moments.note("claimed", ids)
        outcomes = await super().publish_all(messages)
        self.moments.note("confirmed", ids)
        self.published += len(ids)
        return outcomes


class ClaimingBatch:
    """Claims its inbox and does nothing else."""

    def __init__(self, service: TinyService, moments: Moments) -> None:
        self._service = service
        self._moments = moments
        self.applied = 0
        self.waited_for = 0
        self.all_applied = asyncio.Event()

    def takes(self, envelope: EventEnvelope) -> bool:
        self._moments.note("arrived", [envelope.id])
        return True

    async def __call__(self, events: Sequence[ClaimedEvent]) -> None:
        ids = [envelope.id for envelope, _ in events]
        self._moments.note("handler", ids)
        async with self._service.uow() as tx:
            await tx.inbox.claim_all(QUEUE.name, [claim.message_id for _, claim in events])
        self._moments.note("done", ids)
        self.applied += len(ids)
        if self.applied >= self.waited_for:
            self.all_applied.set()

    async def wait_for(self, more: int, begin: Callable[[], Awaitable[object]]) -> None:
        self.waited_for = self.applied + more
        self.all_applied.clear()
        await begin()
        await self.all_applied.wait()


class IdleRelay(OutboxRelay):
    """Tells when there is nothing more to do."""

    idle: asyncio.Event

    async def _round(self) -> bool:
        self.idle.clear()
        more = await super()._round()
        if not more:
            self.idle.set()
        return more


class Bench:
    def __init__(self, service: TinyService, bus: WatchedBus, writer: asyncpg.Connection) -> None:
        self.service = service
        self.bus = bus
        self.writer = writer
        self.moments = bus.moments = Moments()
        self.batch = ClaimingBatch(service, self.moments)

    def events(self, count: int) -> tuple[list[str], list[bytes]]:
        ids = [self.service.ports.ids.new("evt") for _ in range(count)]
        data = a_capture().model_dump(mode="json") | {"padding": "x" * 200}
        now = self.service.ports.clock.now()
        envelopes = [
            EventEnvelope(
                id=each, type=PaymentCaptured.TYPE, source="/bench", subject=each, time=now, sequence=1, data=data
            )
            for each in ids
        ]
        return ids, [envelope.to_json() for envelope in envelopes]

    async def write(self, events: tuple[list[str], list[bytes]]) -> list[str]:
        await self.writer.execute(_INSERT, events[0], PaymentCaptured.TYPE, events[1])
        return events[0]

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[IdleRelay]:
        relay = IdleRelay(self.service.database, self.bus, service=SERVICE, ports=self.service.ports)
        relay.idle = asyncio.Event()
        async with running(relay.run):
            yield relay

    async def relay_rounds(self, size: int, count: int) -> None:
        async with self.relaying() as relay:
            for _ in range(count // size):
                await self.write(self.events(size))
                relay.idle.clear()
                self.service.database.listener.deliver(OUTBOX_CHANNEL, "")
                await relay.idle.wait()

    async def write_only(self, size: int, count: int) -> None:
        for _ in range(count // size):
            await self.write(self.events(size))
        await self.writer.execute("UPDATE outbox_messages SET published_at = now() WHERE published_at IS NULL")

    async def publish(self, size: int, count: int, *, consumed: bool) -> None:
        """A message of the broker for each ``size`` events; the next one follows when these have been applied."""
        for _ in range(count // size):
            ids, bodies = self.events(size)
            messages = [BusMessage(i, PaymentCaptured.TYPE, i, b) for i, b in zip(ids, bodies, strict=True)]
            if consumed:
                await self.batch.wait_for(size, lambda messages=messages: self.bus.publish_all(messages))  # type: ignore[misc]
            else:
                await self.bus.publish_all(messages)


async def _latencies(bench: Bench, url: str, count: int) -> None:
    bench.moments.clear()
    hinting = Database(url, schema=SERVICE, application_name="another process")
    listener = bench.service.database.listener
    hears = asyncio.Event()  # a listener calls everybody once when it listens
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bench.relaying())
        stack.enter_context(listener.subscribe(OUTBOX_CHANNEL, lambda _: hears.set()))
        await stack.enter_async_context(running(lambda: listener.run((OUTBOX_CHANNEL,))))
        await hears.wait()
        written = await _at_rate(bench, hinting, count)
        await until(lambda: all("done" in bench.moments[each] for each in written), what="applying all")
    await hinting.dispose()
    places = ("written", "claimed", "confirmed", "arrived", "handler", "done")
    rows = [[bench.moments[each][place] for place in places] for each in written]
    hops = [*zip(HOPS, places[:-1], places[1:], strict=True), ("committed → handler", "written", "handler")]
    for name, start, end in hops:
        took = sorted((row[places.index(end)] - row[places.index(start)]) * 1000 for row in rows)
        print(f"  {name:24} median {statistics.median(took):6.2f} ms  p90 {took[len(took) * 9 // 10]:6.2f} ms")


async def _at_rate(bench: Bench, hinting: Database, count: int) -> list[str]:
    began = perf_counter()
    written: list[str] = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / RATE - perf_counter()))
        ids = await bench.write(bench.events(1))
        bench.moments.note("written", ids)
        hinting.hint(OUTBOX_CHANNEL)
        written += ids
    return written


def _render_cost(count: int, service: TinyService) -> float:
    now = service.ports.clock.now()
    payload = (
        b'{"id": "evt_1", "type": "payment.completed", "amount": "19.99", "currency": "EUR", "data": {"object": {"id":'
    )
    payload += b' "gp_1", "email": "ada@example.com", "status": "completed", "padding": "' + b"x" * 600 + b'"}}}'
    record = {
        "id": "whd_1", "gateway": "generic", "account": "", "event_id": "evt_1", "event_type": "payment.completed",
        "trust": "full", "received_at": now, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "fits": True, "content_type": "application/json", "body": payload,
    }  # fmt: skip
    message = WaitingMessage(1, "evt_1", "webhook.received.v1", "whd_1", 1, b"", 0, now, False)
    assert to_rfc3339(now).encode() in (_rendered(message, record) or b"")
    began = process_time()
    for _ in range(count):
        _rendered(message, dict(record))
    return (process_time() - began) / count * 1e6


async def measure(count: int, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        postgres, broker = DurablePostgres(), make_own_rabbitmq()
        stack.callback(broker.close)
        stack.callback(postgres.remove)
        postgres.start()
        broker.start()
        url, vhost = postgres.url("postgres"), broker.url(broker.create_vhost())
        await create_schema(url)
        await apply_topology(vhost, [QUEUE])
        service = TinyService(url)
        bus = WatchedBus(vhost, name="bench", ports=service.ports)
        writer = await asyncpg.connect(url.replace("+asyncpg", ""), server_settings={"search_path": SERVICE})
        bench = Bench(service, bus, writer)
        assert isinstance(broker, LocalRabbitMQ)
        groups = {"PostgreSQL": [postgres.pid or 0], "RabbitMQ": [broker.pid or 0]}
        bus.subscribe(service.subscription(batch=bench.batch))
        await _costs(bench, groups, count, rounds)
        print("latency at 100/s:")
        async with running(bus.consume):
            await _latencies(bench, url, min(count, 400))
        await bus.close()
        await writer.close()
        await service.database.dispose()


async def _costs(bench: Bench, groups: dict[str, list[int]], count: int, rounds: int) -> None:
    found: dict[str, list[tuple[float, float, float]]] = {}

    async def spend(name: str, work: Callable[[], Awaitable[None]], number: int) -> None:
        meter, cpu = Meter(groups), process_time()
        await work()
        cpu = process_time() - cpu
        theirs = meter.cost().microseconds_each(number)
        found.setdefault(name, []).append((cpu / number * 1e6, theirs["PostgreSQL"], theirs["RabbitMQ"]))

    for turn in range(rounds + 1):
        if turn == 1:
            found.clear()  # the first warms up
        for size in (1, 100):
            number = count if size == 1 else count * 10
            await spend(f"write {size}", lambda s=size, n=number: bench.write_only(s, n), number)  # type: ignore[misc]
            await spend(f"relay {size}", lambda s=size, n=number: bench.relay_rounds(s, n), number)  # type: ignore[misc]
            await spend(f"publish {size}", lambda s=size, n=number: bench.publish(s, n, consumed=False), number)  # type: ignore[misc]
        async with running(bench.bus.consume):
            left = bench.bus.published - bench.batch.applied
            await until(lambda: bench.batch.applied == bench.bus.published, what=f"applying the {left} in the queue")
            for size in (1, 100):
                number = count if size == 1 else count * 10
                await spend(f"consume {size}", lambda s=size, n=number: bench.publish(s, n, consumed=True), number)  # type: ignore[misc]
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    for size in (1, 100):
        for name, without in (("relay", "write"), ("publish", ""), ("consume", "publish")):
            rest = medians.get(f"{without} {size}", [0.0, 0.0, 0.0])
            ours, sql, rabbit = (a - b for a, b in zip(medians[f"{name} {size}"], rest, strict=True))
            costs = f"{ours:7.1f} µs ours {sql:7.1f} µs PostgreSQL {rabbit:7.1f} µs RabbitMQ"
            print(f"{name:8} {size:4} at once: {costs}, an event")
    print(f"rendering: {statistics.median(_render_cost(1000, bench.service) for _ in range(5)):.1f} µs an event")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=int, nargs="?", default=300)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    arguments = parser.parse_args()
    with on_disk():
        uvloop.run(measure(arguments.events, arguments.rounds))


if __name__ == "__main__":
    main()
