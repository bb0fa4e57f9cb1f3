"""A million settlement lines and as many payments: written by COPY, read by the service's own reader."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from deploy.local.processes import children
from services.reconciler.bootstrap import Container, build
from services.reconciler.settings import ReconcilerSettings
from services.reconciler.use_cases.receive_file import Arrival, receive_file
from services.reconciler.use_cases.running import RunOutcome
from services.reconciler.use_cases.settle_file import settle_file
from shared.messaging.in_process import InProcessBus
from shared.ports import system_ports
from tests.bench.measuring import pss_megabytes

START = datetime(2026, 1, 1, tzinfo=UTC)
GATEWAY = "stripe"
PAYOUTS = 50
SHUFFLED = 1_000
"""Lines that come in another order than their payments; 617 and it have no divisor in common."""
PARSED = """file_id, position, gateway, account, kind, currency, gross_minor, fee_minor, tax_minor, net_minor,
    occurred_at, reference, parent_reference, our_reference, line_reference, payout_reference, source_type"""
"""The columns that the file itself fills."""
HEADER = (
    "automatic_payout_id,automatic_payout_effective_at_utc,balance_transaction_id,created_utc,available_on_utc,currency,"
    "gross,fee,net,reporting_category,source_id,description,customer_facing_amount,customer_facing_currency,charge_id,"
    "payment_intent_id,order_id"
)


@dataclass(frozen=True)
class Sale:
    """The nth payment."""

    number: int

    @property
    def token(self) -> str:
        return hashlib.blake2b(str(self.number).encode(), digest_size=12).hexdigest()

    @property
    def at(self) -> datetime:
        return START + timedelta(seconds=self.number % 2_000_000)

    @property
    def gross(self) -> int:
        return 1_000 + self.number % 9_000

    @property
    def fee(self) -> int:
        return 30 + self.gross * 29 // 1_000

    @property
    def payment_id(self) -> str:
        return f"pay_01jf{self.number:022}"


def write_file(path: Path, count: int) -> None:
    """As Stripe writes its itemized payout reconciliation: by time, but not in the order in which we know them."""
    assert count % SHUFFLED == 0
    with path.open("w") as file:
        file.write(HEADER + "\n")
        for place in range(count):
            block, within = divmod(place, SHUFFLED)
            sale = Sale(block * SHUFFLED + within * 617 % SHUFFLED)
            at, gross, fee, net = f"{sale.at:%Y-%m-%d %H:%M:%S}", sale.gross, sale.fee, sale.gross - sale.fee
            file.write(
                f"po_{place * PAYOUTS // count:03},{at},txn_{sale.token},{at},{at},usd,{gross // 100}.{gross % 100:02},"
                f"{fee // 100}.{fee % 100:02},{net // 100}.{net % 100:02},charge,ch_{sale.token},,,,ch_{sale.token},"
                f"pi_{sale.token},\n"
            )


async def write_books(connection: asyncpg.Connection, count: int) -> None:
    """The mirror as pulling leaves it: a payment, its sale, and two of its references."""
    at = START

    def payments() -> Iterator[tuple[object, ...]]:
        for number in range(count):
            sale = Sale(number)
            yield sale.payment_id, f"ord_01jf{number:022}", GATEWAY, "captured", 2, sale.gross, "USD", at, at

    def movements() -> Iterator[tuple[object, ...]]:
        for number in range(count):
            sale = Sale(number)
            yield sale.payment_id, "sale", f"ch_{sale.token}", GATEWAY, sale.gross, "USD", sale.at

    def references() -> Iterator[tuple[object, ...]]:
        for number in range(count):
            sale = Sale(number)
            for prefix in ("ch", "pi"):
                yield GATEWAY, f"{prefix}_{sale.token}", sale.payment_id

    names = "payment_id,order_id,gateway,status,version,amount_minor,currency,created_at,updated_at"
    await connection.copy_records_to_table("known_payments", records=payments(), columns=names.split(","))
    names = "payment_id,kind,reference,gateway,amount_minor,currency,occurred_at"
    await connection.copy_records_to_table("known_movements", records=movements(), columns=names.split(","))
    names = "gateway,reference,payment_id"
    await connection.copy_records_to_table("known_references", records=references(), columns=names.split(","))
    await connection.execute("VACUUM ANALYZE known_payments, known_movements, known_references")


async def bare(connection: asyncpg.Connection, copied: Path) -> tuple[float, float]:
    """Seconds of PostgreSQL's own COPY of the parsed lines into a table of their columns with a key, and of one hash
    join: what reading, finding out what each line is, totals, findings and raw storage come on top of."""
    await connection.execute("DROP TABLE IF EXISTS bare_lines")
    await connection.execute(f"CREATE TABLE bare_lines AS SELECT {PARSED} FROM settlement_lines WITH NO DATA")
    await connection.execute("ALTER TABLE bare_lines ADD PRIMARY KEY (file_id, position)")
    started = time.perf_counter()
    await connection.copy_to_table("bare_lines", source=copied, format="text", timeout=600)
    copied_after = time.perf_counter()
    await connection.execute("SET enable_nestloop = off; SET enable_mergejoin = off; SET work_mem = '128MB'")
    statement = """SELECT count(*) FROM bare_lines l JOIN known_movements m
        ON m.gateway = l.gateway AND m.account = l.account AND m.kind = l.kind AND m.reference = l.reference"""
    await connection.fetchval(statement, timeout=600)
    joined_after = time.perf_counter()
    await connection.execute("RESET enable_nestloop; RESET enable_mergejoin; RESET work_mem; DROP TABLE bare_lines")
    return copied_after - started, joined_after - copied_after


@dataclass
class Settled:
    seconds: float
    receiving_seconds: float
    phases: dict[str, float]
    megabytes: float
    outcome: RunOutcome


async def settle(container: Container, path: Path) -> Settled:
    """From a file on the disk to stored, matched, totalled and judged lines; receiving it is measured apart."""
    phases: dict[str, float] = {}
    last, since = "start", time.perf_counter()

    async def progress(phase: str, done: int = 0, total: int | None = None) -> None:
        nonlocal last, since
        now = time.perf_counter()
        phases[last] = phases.get(last, 0.0) + now - since
        last, since = phase, now

    started = time.perf_counter()
    with path.open("rb") as raw:
        received = await receive_file(Arrival(raw, path.name, "upload", "bench", GATEWAY), container.context)
    receiving = time.perf_counter() - started
    with watched_memory() as memory:
        last, since = "start", time.perf_counter()
        started = time.perf_counter()
        outcome = await settle_file(received.file.file_id, "run_bench", container.context, progress)
        seconds = time.perf_counter() - started
        await progress("end")
    return Settled(seconds, receiving, phases, memory.peak_megabytes, outcome)


class Memory:
    peak_megabytes = 0.0


@contextmanager
def watched_memory() -> Iterator[Memory]:
    """The most that this process and its children (not the server) hold together, looked at ten times a second."""
    memory, over = Memory(), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            total = 0.0
            for pid in (os.getpid(), *children(os.getpid())):
                try:
                    if pid == os.getpid() or b"settlement_formats" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        total += pss_megabytes(pid)
                except (OSError, AssertionError):
                    continue
            memory.peak_megabytes = max(memory.peak_megabytes, total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


@asynccontextmanager
async def reconciler(url: str) -> AsyncIterator[Container]:
    values = {"environment": "development", "database_url": url, "jwt_shared_key": "k" * 40}
    settings = ReconcilerSettings.load(**values, command_signing_key="ab" * 32)
    ports = system_ports()
    async with build(settings, ports=ports, bus=InProcessBus(ports.clock)) as container:
        yield container


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    host = make_url(url).query.get("host")
    connection = await asyncpg.connect(url, server_settings={"search_path": "reconciler"}, host=host)
    try:
        yield connection
    finally:
        await connection.close()
