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

    def wake(self, _payload: str = "") -> None:
        self._wake.set()

    async def run(self) -> None:
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
        seconds = self._interval * self._ports.randomness.uniform(0.9, 1.1)
        if failures:
            wait = min(MAX_FAILURE_WAIT_SECONDS, max(seconds, 0.2 * 2 ** min(failures, 10)))
            await self._ports.clock.sleep(wait)
            return
        sleeping = asyncio.ensure_future(self._ports.clock.sleep(seconds))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in (sleeping, waking):
                waiter.cancel()
            await asyncio.wait((sleeping, waking))  # awaiting them one by one could swallow our own cancellation
