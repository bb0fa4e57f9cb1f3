"""docs/examples/payment_log as a real process, over a real broker and a real database of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.db.session import Database
from shared.messaging.kit import consumer_queue
from shared.messaging.topology import apply_topology
from shared.ports import system_ports
from tests.integration.messaging.event_owner import AMOUNT, EventOwner, an_event_owner, served
from tests.support.guard import process_guard
from tests.support.postgres import CreateDatabase
from tests.support.waiting import until

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLE = REPOSITORY / "docs" / "examples" / "payment_log" / "payment_log.py"
CAPTURED = ("captured", AMOUNT, 4)
CAPTURED_LINE = f"is captured, captured {AMOUNT} KWD (minor units), version 4"


class _Undone(Exception):
    """What was written is rolled back."""


class PaymentLog:
    """The example's process and the tables it keeps."""

    def __init__(self, directory: Path, database_url: str, rabbitmq_url: str) -> None:
        self.database = Database(database_url, schema="payment_log", application_name="test")
        self._output = directory / "output"
        self._errors = directory / "errors"
        self._arguments = ["--database-url", database_url, "--rabbitmq-url", rabbitmq_url]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        with self._output.open("ab") as output, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(EXAMPLE), *self._arguments, *more],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        process_guard().watch("payment_log", pid=self._process.pid, command_contains=str(EXAMPLE))

    def kill9(self) -> None:
        """Ends it at once, whatever it is doing; nothing happens if it is not running."""
        if self._process is not None:
            assert self._process.poll() is None, self.errors
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None
            process_guard().forget("payment_log")

    @property
    def lines(self) -> list[str]:
        return self._output.read_text().splitlines()

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    async def rows(self) -> dict[str, tuple[str, int, int]]:
        """Status, amount captured and version by payment."""
        statement = "SELECT payment_id, status, amount_captured, version FROM payment_log"
        return {row[0]: (row[1], row[2], row[3]) for row in await self._select(statement)}

    async def handled(self) -> int:
        return len(await self._select("SELECT message_id FROM inbox_messages WHERE status = 'done'"))

    async def missing(self) -> dict[str, list[int]]:
        """What is recorded as missing, by payment."""
        statement = "SELECT subject, missing FROM consumer_sequences WHERE missing <> '{}'"
        return {row[0]: list(row[1]) for row in await self._select(statement)}

    @asynccontextmanager
    async def holding_up(self, payment_id: str) -> AsyncIterator[None]:
        """Whoever writes this payment's row waits for us, with its transaction open."""
        statement = "INSERT INTO payment_log VALUES (:payment_id, 'held up', 0, 'KWD', 0)"
        with suppress(_Undone):
            async with self.database.begin() as connection:
                await connection.execute(text(statement), {"payment_id": payment_id})
                yield
                raise _Undone

    async def is_held_up(self) -> bool:
        statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return len(await self._select(statement)) > 0

    async def _select(self, statement: str) -> list[tuple[Any, ...]]:
        """No rows while the process has not made its tables yet."""
        assert self._process is None or self._process.poll() is None, self.errors
        async with self.database.begin() as connection:
            table = statement.partition(" FROM ")[2].partition(" ")[0]
            if (await connection.execute(text("SELECT to_regclass(:table)"), {"table": table})).scalar() is None:
                return []
            return [tuple(row) for row in await connection.execute(text(statement))]


@pytest.fixture
async def owner(create_database: CreateDatabase, vhost_url: str) -> AsyncIterator[EventOwner]:
    await apply_topology(vhost_url)
    await apply_topology(vhost_url, [consumer_queue("payment_log", ["payment.#"])])
    async with an_event_owner(create_database(), ports=system_ports(), rabbitmq_url=vhost_url) as owner:
        yield owner


@pytest.fixture
async def payment_log(
    create_database: CreateDatabase, vhost_url: str, tmp_path: Path, owner: EventOwner
) -> AsyncIterator[PaymentLog]:
    log = PaymentLog(tmp_path, create_database(), vhost_url)
    yield log
    log.kill9()
    await log.database.dispose()


async def test_an_event_that_is_delivered_twice_counts_once(owner: EventOwner, payment_log: PaymentLog) -> None:
    first, second = await owner.add_payment("pay_a"), await owner.add_payment("pay_b")
    await owner.publish(*first, *first, *second, *second)
    payment_log.start()
    await until(lambda: all_handled(payment_log, 8), within_seconds=30, what="eight events handled")
    await owner.publish(*first, *second)
    third = await owner.add_payment("pay_c")
    await owner.publish(*third)
    await until(lambda: all_handled(payment_log, 12), what="the third payment handled after the duplicates")

    assert await payment_log.rows() == dict.fromkeys(("pay_a", "pay_b", "pay_c"), CAPTURED)
    assert [line for line in payment_log.lines if "pay_a" in line][-1] == f"payment pay_a {CAPTURED_LINE}"
    assert len(payment_log.lines) == 12, "one line per change, however often it is delivered"


async def test_events_in_another_order_give_the_same_row(owner: EventOwner, payment_log: PaymentLog) -> None:
    created, opened, processing, captured = await owner.add_payment("pay_a")
    await owner.publish(captured, opened, created, processing)
    payment_log.start()
    await until(lambda: all_handled(payment_log, 4), within_seconds=30, what="four events handled")

    assert await payment_log.rows() == {"pay_a": CAPTURED}
    assert payment_log.lines == [f"payment pay_a {CAPTURED_LINE}", "gap in pay_a: expected 1, got 4"]
    assert await payment_log.missing() == {}, "the late ones fill the gap"


async def test_a_gap_is_reported_kept_and_filled_by_catching_up(owner: EventOwner, payment_log: PaymentLog) -> None:
    created, _, processing, _ = await owner.add_payment("pay_a")
    await owner.add_payment("pay_b")
    await owner.publish(created, processing)
    payment_log.start()
    await until(lambda: all_handled(payment_log, 2), within_seconds=30, what="two events handled")
    await until(lambda: "gap in pay_a: expected 2, got 3" in payment_log.lines, what="the gap reported")
    assert await payment_log.missing() == {"pay_a": [2]}
    payment_log.kill9()

    async with served(owner.application()) as url:
        payment_log.start("--catch-up", f"{url}/api/v1/events/payment-service", "--token", owner.token())
        await until(lambda: "caught up: 8 events read, 0 payments with gaps" in payment_log.lines, within_seconds=30)
        assert await payment_log.missing() == {}
        assert await payment_log.rows() == {"pay_a": CAPTURED, "pay_b": CAPTURED}

        created, _, _, captured = await owner.add_payment("pay_c")
        await owner.publish(created, captured)
        await until(lambda: "gap in pay_c: expected 2, got 4" in payment_log.lines, what="the second gap reported")
        await until(lambda: all_handled(payment_log, 12), within_seconds=30, what="the second gap filled")
    assert await payment_log.missing() == {}


async def test_killed_in_the_middle_and_restarted_it_ends_with_the_same_table(
    owner: EventOwner, payment_log: PaymentLog
) -> None:
    payments = [f"pay_{number:02}" for number in range(25)]
    events = [event for payment in payments for event in await owner.add_payment(payment)]
    random.Random(7).shuffle(events)
    early = [event for event in events if event.subject < "pay_05"]
    await owner.publish(*early)
    payment_log.start()
    await until(lambda: all_handled(payment_log, 5), within_seconds=30, what="the first events handled")
    payment_log.kill9()

    await owner.publish(*(event for event in events if event not in early))
    async with payment_log.holding_up("pay_24"):
        payment_log.start()
        await until(payment_log.is_held_up, within_seconds=30, what="the process in the middle of a transaction")
        payment_log.kill9()
    assert await payment_log.handled() < 100, "what it had claimed is not claimed"

    payment_log.start()
    await until(lambda: all_handled(payment_log, 100), within_seconds=30, what="every event handled")
    assert await payment_log.rows() == dict.fromkeys(payments, CAPTURED)
    assert await payment_log.missing() == {}


async def all_handled(log: PaymentLog, count: int) -> bool:
    return await log.handled() >= count
