"""A job that repeats: woken early by a hint, jittered, and kept alive when one of its rounds fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shared.errors import PayrailError
from shared.ports import Ports
from shared.tasks import end_if_cancelled

log = structlog.get_logger()

MAX_FAILURE_WAIT_SECONDS = 10.0  # what has come back is used again well within a recovery budget of 30 s


class Periodic:
    """Calls ``round`` every ``interval_seconds`` (± 10 %, so that replicas drift apart, failure L17), or when woken.

    ``round`` returns True when there is more to do at once. Trouble of the world (PayrailError) is logged and tried
    again with growing waits; anything else is our bug and ends the process.
    """

    def __init__(
        self, name: str, round_: Callable[[], Awaitable[bool]], *, interval_seconds: float, ports: Ports
    ) -> None:
        self._name = name
        self._round = round_
        self._interval = interval_seconds
        self._ports = ports
        self._wake = asyncio.Event()
        self._sleeping: asyncio.Future[None] | None = None
        self._waits = False

    def wake(self, _payload: str = "") -> None:
        self._wake.set()

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            if self._sleeping is not None:
                self._sleeping.cancel()

    async def _run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                more = await self._round()
                failures = 0
            except PayrailError as error:
                failures += 1
                more = False
                log.warning("periodic_round_failed", job=self._name, code=error.code, failures=failures)
                end_if_cancelled()
            if not more:
                await self._wait(failures)

    async def _wait(self, failures: int) -> None:
        if failures:
            wait = min(MAX_FAILURE_WAIT_SECONDS, max(self._seconds(), 0.2 * 2 ** min(failures, 10)))
            await self._ports.clock.sleep(wait)
            return
        # What slept beside a round that was woken goes on sleeping: a job that is woken a hundred times a second would
        # spend more on new timers than on the wakings.
        if self._sleeping is None or self._sleeping.done():
            self._sleeping = asyncio.ensure_future(self._ports.clock.sleep(self._seconds()))
            self._sleeping.add_done_callback(self._slept)
        self._waits = True
        await self._wake.wait()
        self._waits = False

    def _seconds(self) -> float:
        return self._interval * self._ports.randomness.uniform(0.9, 1.1)

    def _slept(self, _sleeping: asyncio.Future[None]) -> None:
        if self._waits:  # one that ends during a round calls for no other
            self._wake.set()
