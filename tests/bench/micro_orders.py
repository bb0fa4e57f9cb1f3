"""What a payment event costs the order worker, in sets and alone: ``python -m tests.bench.micro_orders [events]``.

Orders are made in the database beforehand. Rounds of both ways alternate on one throwaway PostgreSQL; CPU is counted,
not time, because it is the same on a busy machine: of this process, and of PostgreSQL's backends.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from services.order_service.bootstrap import Container, build
from services.order_service.db.payment_batch import BatchUnitOfWork
from services.order_service.messaging.handlers import PaymentEventsBatch, PaymentEventsHandler
from services.order_service.settings import OrderSettings
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentCaptured
from shared.db.migrations import upgrade
from shared.messaging.in_process import InProcessBus
from shared.ports import system_ports
from shared.unit_of_work import InboxClaim
from tests.bench.measuring import family
from tests.support.postgres import ThrowawayPostgres

ROUNDS = 5
PRODUCTS = 50
CONSUMER = "order_service.payments"

_PRODUCTS = """
    INSERT INTO products (sku, name, description, price_minor, currency, on_hand, reserved, reconcile_policy)
    SELECT 'sku-' || n, 'Thing ' || n, '', 1000, 'EUR', 10000000, 0, 'fulfil' FROM generate_series(1, $1) AS n
    ON CONFLICT DO NOTHING
    """
_ORDERS = """
    INSERT INTO orders (id, status, payment_status, total_minor, currency, secret_digest, customer_email, customer_name,
        metadata, expires_at, next_expiry_attempt_at, created_at, updated_at, version)
    SELECT id, 'open', 'unpaid', 2000, 'EUR', sha256('x'), 'ada@example.com', 'Ada', '{}', now() + interval '1 hour',
        now() + interval '1 hour', now(), now(), 1 FROM unnest($1::text[]) AS id
    """
_ITEMS = """
    INSERT INTO order_items (order_id, position, sku, name, quantity, unit_price_minor)
    SELECT id, line, 'sku-' || 1 + (place * 7 + line) % $2, 'Thing', 1, 1000
    FROM unnest($1::text[]) WITH ORDINALITY AS given (id, place), generate_series(0, 1) AS line
    """
_HELD = """
    INSERT INTO stock_reservations (order_id, sku, quantity, status, reserved_at)
    SELECT order_id, sku, quantity, 'reserved', now() FROM order_items WHERE order_id = ANY($1::text[])
    """
_RESERVED = """
    UPDATE products SET reserved = held.pieces FROM (
        SELECT sku, sum(quantity) AS pieces FROM stock_reservations WHERE status = 'reserved' GROUP BY sku) AS held
    WHERE products.sku = held.sku
    """
_PAYMENTS = """
    INSERT INTO order_payments (payment_id, order_id, gateway, status, version, amount_minor, currency, created_at,
        updated_at)
    SELECT 'pay_' || substr(id, 5), id, 'stripe', 'requires_action', 2, 2000, 'EUR', now(), now()
    FROM unnest($1::text[]) AS id
    """


async def bench(events: int) -> None:
    postgres = ThrowawayPostgres()
    postgres.start()
    try:
        await upgrade("order_service", postgres.url())
        settings = OrderSettings.load(
            environment="development",
            database_url=postgres.url(),
            jwt_shared_key="a-development-key-of-more-than-32-bytes",
            command_signing_key="00" * 32,
        )
        ports = system_ports()
        async with build(settings, ports=ports, bus=InProcessBus(ports.clock)) as container:
            assert postgres.pid is not None
            await _rounds(container, postgres.pid, events)
    finally:
        postgres.remove()


async def _rounds(container: Container, postgres: int, events: int) -> None:
    ways = (("one by one", 0), ("batches of 1", 1), ("batches of 3", 3), ("batches of 10", 10), ("batches of 100", 100))
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name, _ in ways}
    await _apply(container, await _paid(container, 200), 100)  # connections, plans, types
    await _apply(container, await _paid(container, 50), 0)
    for _ in range(ROUNDS):
        for name, size in ways:
            bodies = await _paid(container, events)
            with _measured(postgres) as cost:
                await _apply(container, bodies, size)
            micros = 1e6 / events
            measured[name].append((events / cost["seconds"], cost["ours"] * micros, cost["theirs"] * micros))
    print(f"{'payment captured, order paid':30} {'events/s':>9} {'CPU µs here':>12} {'PostgreSQL':>11}")
    for name, figures in measured.items():
        rate, ours, theirs = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:30} {rate:9.0f} {ours:12.0f} {theirs:11.0f}")


async def _paid(container: Container, count: int) -> list[bytes]:
    """The bodies of events of so many new orders; making them is not measured."""
    ids = [container.ports.ids.new("ord") for _ in range(count)]
    async with container.database.driver() as driver:
        await driver.execute(_PRODUCTS, PRODUCTS)
        for statement, arguments in ((_ORDERS, ()), (_ITEMS, (PRODUCTS,)), (_HELD, ()), (_PAYMENTS, ())):
            await driver.execute(statement, ids, *arguments)
        await driver.execute(_RESERVED)
    return [_event(container, order_id) for order_id in ids]


def _event(container: Container, order_id: str) -> bytes:
    payment_id = f"pay_{order_id[4:]}"
    data = PaymentCaptured(
        payment_id=payment_id,
        order_id=order_id,
        gateway="stripe",
        gateway_reference="cs_test_1",
        status="captured",
        previous_status="requires_action",
        version=3,
        amount=2000,
        currency="EUR",
        amount_authorized=2000,
        amount_captured=2000,
        learnt_from="webhook",
    )
    return EventEnvelope(
        id=container.ports.ids.new("evt"),
        type=data.TYPE,
        source="/payrail/payment_service",
        subject=payment_id,
        time=container.ports.clock.now(),
        sequence=3,
        correlationid=order_id,
        traceparent=f"00-{1:032x}-{1:016x}-01",
        data=data.model_dump(mode="json"),
    ).to_json()


async def _apply(container: Container, bodies: Sequence[bytes], size: int) -> None:
    """As the consumer does: from the bytes on, eight at a time where they come alone."""
    if size:
        batch = PaymentEventsBatch(container.deps, BatchUnitOfWork(container.uow))
        for start in range(0, len(bodies), size):
            envelopes = [EventEnvelope.from_json(body) for body in bodies[start : start + size]]
            await batch([(each, InboxClaim(CONSUMER, each.id)) for each in envelopes if batch.takes(each)])
        return
    handler, waiting = PaymentEventsHandler(container.deps), iter(bodies)

    async def worker() -> None:
        for body in waiting:
            envelope = EventEnvelope.from_json(body)
            await handler(envelope, InboxClaim(CONSUMER, envelope.id))

    await asyncio.gather(*(worker() for _ in range(8)))


@contextmanager
def _measured(postgres: int) -> Iterator[dict[str, float]]:
    cost: dict[str, float] = {}
    theirs, ours, start = _family_cpu(postgres), _own_cpu(), time.perf_counter()
    yield cost
    cost["seconds"] = time.perf_counter() - start
    cost["ours"], cost["theirs"] = _own_cpu() - ours, _family_cpu(postgres) - theirs


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _family_cpu(pid: int) -> float:
    """To the nanosecond: a batch costs less than the tick that /proc/PID/stat counts."""
    nanoseconds = 0
    for each in family(pid):
        with suppress(OSError):  # a vacuum that has just ended
            nanoseconds += int(Path(f"/proc/{each}/schedstat").read_text().split()[0])
    return nanoseconds / 1e9


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(bench(int(sys.argv[1]) if len(sys.argv) > 1 else 400))
