"""The parent of several server processes, over children that are a few lines of Python."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy import supervisor
from deploy.cli.app import app
from deploy.local.processes import is_alive
from deploy.supervisor import LONGEST_WAIT_SECONDS, PLACE, STARTS_BEFORE_GIVING_UP, Place, Supervisor, listening_socket
from shared.clock import SystemClock
from shared.settings import ConfigurationError
from tests.support.clock import FakeClock
from tests.support.waiting import until

# Answers every connection with its process id, on the socket that it was handed, as a server does.
ANSWERS_WITH_ITS_PID = f"""
import os, socket
listening = socket.socket(fileno=int(os.environ["{PLACE}"].split(":")[1]))
while True:
    connection, _ = listening.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""
# Ends when the other end of the lifeline does, and says that it began by making a file.
WATCHES_ITS_LIFELINE = f"""
import os, pathlib, sys
pathlib.Path(sys.argv[1]).touch()
os.read(int(os.environ["{PLACE}"].split(":")[2]), 1)
pathlib.Path(sys.argv[1]).unlink()
"""


@asynccontextmanager
async def supervised(source: str, *, count: int = 2) -> AsyncIterator[Running]:
    with listening_socket("127.0.0.1", 0) as listening:
        command = [sys.executable, "-S", "-E", "-c", source]
        supervisor = Supervisor(command, count=count, listening=listening, clock=SystemClock())
        running = Running(supervisor, listening.getsockname()[1])
        try:
            yield running
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(10):
                running.status = await running.task
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


class Running:
    def __init__(self, supervisor: Supervisor, port: int) -> None:
        self.supervisor = supervisor
        self.task = asyncio.create_task(supervisor.run())
        self.status: int | None = None
        self._port = port

    async def answering_pid(self) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            return int(await reader.read())
        finally:
            writer.close()

    async def pids(self, count: int) -> list[int]:
        def all_there() -> list[int]:
            pids = self.supervisor.pids
            return pids if len(pids) == count else []

        return await until(all_there, what=f"{count} children")


async def test_a_child_that_is_killed_comes_back_while_the_others_answer() -> None:
    async with supervised(ANSWERS_WITH_ITS_PID) as running:
        killed, other = await running.pids(2)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: killed not in running.supervisor.pids, what="the child's death being seen")
        assert await running.answering_pid() == other
        [successor] = set(await running.pids(2)) - {other}
        os.kill(other, signal.SIGKILL)
        await until(lambda: other not in running.supervisor.pids, what="the other's death being seen")
        assert await running.answering_pid() == successor
    assert running.status == 0


async def test_sigterm_is_passed_on_and_nobody_is_left() -> None:
    async with supervised(ANSWERS_WITH_ITS_PID, count=3) as running:
        pids = await running.pids(3)
    assert running.status == 0
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("hears", [True, False])
async def test_a_child_that_is_being_started_when_the_end_comes_is_ended_too(
    monkeypatch: pytest.MonkeyPatch, hears: bool
) -> None:
    may_return, started = asyncio.Event(), []
    start = asyncio.create_subprocess_exec

    async def slow(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        started.append(process)
        await may_return.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 10 if hears else 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    async with supervised(("" if hears else deaf) + ANSWERS_WITH_ITS_PID) as running:
        await until(lambda: len(started) == 2, what="children being started")
        await running.answering_pid()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(running.supervisor._stopping.is_set, what="the signal")
        may_return.set()
    assert running.status == 0
    assert not any(is_alive(process.pid) for process in started)


async def test_the_lifeline_ends_before_the_last_child_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A child that heard no signal (it was only just there) hears this."""
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0)
    monkeypatch.setattr(Supervisor, "_tell_all", lambda *_: None)
    mark = tmp_path / "runs"
    source = WATCHES_ITS_LIFELINE.replace("sys.argv[1]", repr(str(mark)))
    async with supervised(source, count=1):
        await until(mark.exists, what="the child running")
    assert not mark.exists()


def test_a_level_that_is_none_is_a_sentence_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "bogus")
    monkeypatch.delenv(PLACE, raising=False)
    told = CliRunner().invoke(app, ["serve", "webhook-ingest", "--processes", "2", "--port", "0"])
    assert told.exit_code == 2
    assert "LOG_LEVEL is one of" in told.stderr


@pytest.mark.parametrize(("source", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 1)])
async def test_children_that_keep_dying_at_their_start_end_the_parent_after_growing_waits(
    source: str, status: int
) -> None:
    clock = FakeClock(auto_advance=True)
    with listening_socket("127.0.0.1", 0) as listening:
        command = [sys.executable, "-S", "-E", "-c", source]
        assert await Supervisor(command, count=1, listening=listening, clock=clock).run() == status
    assert clock.sleeps == [0.5, 1, 2, 4]
    assert len(clock.sleeps) == STARTS_BEFORE_GIVING_UP - 1
    assert max(clock.sleeps) <= LONGEST_WAIT_SECONDS


async def test_settings_that_cannot_be_used_are_not_tried_again() -> None:
    clock = FakeClock(auto_advance=True)
    with listening_socket("127.0.0.1", 0) as listening:
        command = [sys.executable, "-S", "-E", "-c", "raise SystemExit(2)"]
        assert await Supervisor(command, count=2, listening=listening, clock=clock).run() == 2
    assert clock.sleeps == []


async def test_children_hear_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    parent = (
        "import asyncio, sys; from deploy.supervisor import *; from shared.clock import SystemClock\n"
        "asyncio.run(Supervisor(sys.argv[1:], count=1, listening=listening_socket('127.0.0.1', 0),"
        " clock=SystemClock()).run())"
    )
    child = [sys.executable, "-S", "-E", "-c", WATCHES_ITS_LIFELINE, str(alive)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent, *child, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    await until(alive.exists, what="the child's start", within_seconds=30)
    process.kill()
    await process.wait()
    await until(lambda: not alive.exists(), what="the child's end")


def test_a_place_is_read_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place.of_this_process() is None
    monkeypatch.setenv(PLACE, str(Place(3, 11, 12)))
    assert Place.of_this_process() == Place(3, 11, 12)


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with listening_socket("127.0.0.1", 0) as taken, pytest.raises(ConfigurationError, match="cannot listen on"):
        listening_socket("127.0.0.1", taken.getsockname()[1])
