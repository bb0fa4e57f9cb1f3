"""Several server processes of one service on one port, and the small parent that keeps them running.

The parent opens the port and hands the listening socket down. With a socket of its own for each process (SO_REUSEPORT)
the kernel would deal connections out by their addresses, to a process that is busy as well, and those that a dead one
had not accepted yet would be lost; of a shared one, whoever is idle takes the next connection, and a death costs only
what that process was answering. A pipe from the parent tells the children when it is gone, however it went.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog
from prometheus_client.multiprocess import mark_process_dead

from shared.clock import Clock
from shared.settings import ConfigurationError

log = structlog.get_logger()

PLACE = "PAYRAIL_SERVER_PROCESS"
"""The variable that tells a child its place; nobody sets it by hand."""

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
SETTLED_SECONDS = 20.0
"""A process that lived this long had started; dying before that, several times in a row, will not heal by itself."""

STARTS_BEFORE_GIVING_UP = 5
USAGE_STATUS = 2
"""What a process ends with that cannot use its settings: starting it again would change nothing."""

STOP_SECONDS = 20
"""For children to end after SIGTERM, above their own limit for running requests; then they are killed."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of the children's places. ``slot`` counts from 0 and names the files of its metrics, so that the process
    which takes a dead one's place goes on counting where that stopped."""

    slot: int
    listening_fd: int
    lifeline_fd: int

    @classmethod
    def of_this_process(cls) -> Place | None:
        text = os.environ.get(PLACE)
        return cls(*map(int, text.split(":"))) if text else None

    def __str__(self) -> str:
        return f"{self.slot}:{self.listening_fd}:{self.lifeline_fd}"


class GivenUp(Exception):
    """The children keep dying; ``status`` is what the parent ends with."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"server processes keep ending with status {status}")


def listening_socket(host: str, port: int) -> socket.socket:
    """Raises ConfigurationError for an address that cannot be listened on."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigurationError(f"cannot listen on {host}:{port} ({error.strerror})") from None
    listening.listen(2048)
    return listening


def end_with_the_parent(place: Place, end: Callable[[], None]) -> None:
    """In a child: call ``end`` once the parent is gone. Nothing is ever written into the pipe."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(place.lifeline_fd)
        log.error("supervisor_is_gone")
        end()

    loop.add_reader(place.lifeline_fd, gone)


class Supervisor:
    """Keeps ``count`` processes of ``command`` running until SIGTERM or SIGINT."""

    def __init__(self, command: Sequence[str], *, count: int, listening: socket.socket, clock: Clock) -> None:
        self._command = list(command)
        self._count = count
        self._listening = listening
        self._clock = clock
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._running.values()]

    async def run(self) -> int:
        """The exit status: 0 after a signal, otherwise what the children kept ending with."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        # In $TMPDIR: it is of no use after this run. prometheus_client's files in it are shared memory.
        directory = Path(tempfile.mkdtemp(prefix="payrail-metrics-"))
        lifeline, held_end = os.pipe()
        held = os.fdopen(held_end, "wb", buffering=0)
        try:
            return await self._keep_all(directory, lifeline, held)
        finally:
            held.close()
            os.close(lifeline)
            shutil.rmtree(directory, ignore_errors=True)

    async def _keep_all(self, directory: Path, lifeline: int, held: IO[bytes]) -> int:
        stopped = asyncio.create_task(self._stopping.wait())
        keepers = [asyncio.create_task(self._keep(slot, directory, lifeline)) for slot in range(self._count)]
        try:
            await asyncio.wait([stopped, *keepers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            await self._stop_all()
            held.close()  # whoever has heard nothing until now hears it of the lifeline
            outcomes = await asyncio.gather(stopped, *keepers, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, GivenUp):
                return outcome.status
            if isinstance(outcome, BaseException):
                raise outcome
        return 0

    async def _keep(self, slot: int, directory: Path, lifeline: int) -> None:
        """Raises GivenUp."""
        wait, early_deaths = FIRST_WAIT_SECONDS, 0
        while not self._stopping.is_set():
            started = self._clock.monotonic()
            status = await self._run_once(slot, directory, lifeline)
            if self._stopping.is_set():
                return
            has_settled = self._clock.monotonic() - started >= SETTLED_SECONDS
            wait, early_deaths = (FIRST_WAIT_SECONDS, 0) if has_settled else (wait, early_deaths + 1)
            log.error("server_process_died", slot=slot, status=status, again_in_seconds=wait)
            if status == USAGE_STATUS or early_deaths == STARTS_BEFORE_GIVING_UP:
                raise GivenUp(status if status > 0 else 1)
            await self._pause(wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _run_once(self, slot: int, directory: Path, lifeline: int) -> int:
        place = Place(slot, self._listening.fileno(), lifeline)
        environment = os.environ | {PLACE: str(place), "PROMETHEUS_MULTIPROC_DIR": str(directory)}
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(place.listening_fd, place.lifeline_fd),
        )
        self._running[slot] = process
        log.info("server_process_started", slot=slot, process=process.pid)
        try:
            return await (self._end(process) if self._stopping.is_set() else process.wait())
        finally:
            del self._running[slot]
            # What it only measured is true no more; what it counted stays.
            mark_process_dead(slot, str(directory))  # type: ignore[no-untyped-call]

    async def _end(self, process: asyncio.subprocess.Process) -> int:
        """Of a child that was being started when the others were told to end."""
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            return await process.wait()

    async def _pause(self, seconds: float) -> None:
        sleeping = asyncio.create_task(self._clock.sleep(seconds))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([sleeping, stopping], return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        stopping.cancel()

    async def _stop_all(self) -> None:
        self._tell_all(signal.SIGTERM)
        waiting = [asyncio.create_task(process.wait()) for process in self._running.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=STOP_SECONDS)
        self._tell_all(signal.SIGKILL)

    def _tell_all(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)
