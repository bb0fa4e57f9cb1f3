"""Operations that become due are taken up at once, however many gateways hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.payment_service.worker import RUNNERS, Runners
from shared.errors import DatabaseUnavailable
from shared.tasks import supervise
from tests.integration.messaging.tiny_service import running
from tests.support.clock import FakeClock, fake_ports
from tests.support.waiting import until


class Operations:
    """Due operations, each of a gateway that hangs."""

    def __init__(self, due: int = 0) -> None:
        self.due, self.taken, self.looks, self.failures = due, 0, 0, 0
        self.clock = FakeClock()
        self.runners = Runners(self._run_one, fake_ports(clock=self.clock))

    async def run(self) -> None:
        await supervise(self.runners.jobs())

    async def _run_one(self, taken: Callable[[], None]) -> bool:
        self.looks += 1
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable
        if not self.due:
            return False
        self.due -= 1
        self.taken += 1
        taken()
        await asyncio.Event().wait()
        return True

    async def start(self) -> None:
        await until(lambda: self.clock.sleeper_count == RUNNERS + 1, what="everybody waiting")


async def test_what_becomes_due_is_found_within_a_second_though_gateways_hang() -> None:
    operations = Operations()
    async with running(operations.run):
        await operations.start()
        for number in range(RUNNERS):
            operations.due = 1
            await operations.clock.advance(1.1)
            await until(lambda: not operations.due, what=f"a free one, {number} being held up")


async def test_one_that_has_taken_something_calls_the_next_before_its_gateway_has_answered() -> None:
    operations = Operations()
    async with running(operations.run):
        await operations.start()
        operations.due = RUNNERS + 1
        await operations.clock.advance(1.1)
        await until(lambda: operations.taken == RUNNERS, what="all of them, without time passing")


async def test_one_that_waits_after_a_failure_is_not_the_only_one_that_is_called() -> None:
    operations = Operations()
    async with running(operations.run):
        await operations.start()
        operations.failures = 1
        await operations.clock.advance(1.1)
        assert operations.failures == 0
        operations.due = 1
        await operations.clock.advance(1.1)
        await until(lambda: operations.taken == 1, what="another one")


async def test_with_nothing_due_there_is_one_look_a_second() -> None:
    operations = Operations()
    async with running(operations.run):
        await operations.start()
        before = operations.looks
        await operations.clock.advance(10)
        assert 9 <= operations.looks - before <= 12


async def test_a_hint_wakes_everybody() -> None:
    operations = Operations()
    async with running(operations.run):
        await operations.start()
        operations.due = 2
        operations.runners.wake()
        await until(lambda: operations.taken == 2, what="both, without time passing")
