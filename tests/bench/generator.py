"""The load generator's process, and how the harness talks to it.

``python -m tests.bench.generator JOB RESULT`` reads a pickled job, builds its requests, connects, says "ready", waits
for a line, runs, and writes a pickled sample. While it runs, each further line on its input is the number of requests
that it may have sent by then (of a job with a budget).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from tests.bench.load import CONNECTIONS, Budget, Connection, Sample, connect, pace, saturate
from tests.bench.webhooks import About, Scheme, build_requests, reserve

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Job:
    """``rate`` makes it an open loop of ``count`` requests, otherwise it is a closed one for ``seconds``.

    ``first`` numbers the events, so that no two jobs of a run send the same one.
    """

    url: str
    abouts: Sequence[About]
    count: int
    first: int
    seconds: float = 0
    rate: float = 0
    budgeted: bool = False
    scheme: Scheme = Scheme.GENERIC
    secret: str = ""
    connections: int = CONNECTIONS


def saturating(url: str, abouts: Sequence[About], count: int, *, seconds: float, **other: object) -> Job:
    return Job(url, abouts, count, reserve(count), seconds=seconds, **other)  # type: ignore[arg-type]


def paced(url: str, abouts: Sequence[About], count: int, *, rate: float, **other: object) -> Job:
    return Job(url, abouts, count, reserve(count), rate=rate, **other)  # type: ignore[arg-type]


class Load:
    """A generator that has its requests and its connections and waits for the word."""

    def __init__(self, process: asyncio.subprocess.Process, result: Path) -> None:
        self._process = process
        self._result = result

    def begin(self) -> None:
        self.allow(0)

    def allow(self, count: int) -> None:
        assert self._process.stdin is not None
        if self._process.returncode is None:
            self._process.stdin.write(f"{count}\n".encode())

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def sample(self) -> Sample:
        if await self._process.wait():
            raise RuntimeError("the load generator failed; its complaint is above")
        sample = pickle.loads(self._result.read_bytes())  # noqa: S301 - our own child wrote it
        assert isinstance(sample, Sample)
        return sample


@contextlib.asynccontextmanager
async def generator(job: Job) -> AsyncIterator[Load]:
    with TemporaryDirectory(prefix="payrail-bench-load-") as directory:
        task, result = Path(directory) / "job", Path(directory) / "result"
        task.write_bytes(pickle.dumps(job))
        pipe = asyncio.subprocess.PIPE
        arguments = [sys.executable, "-m", "tests.bench.generator", str(task), str(result)]
        process = await asyncio.create_subprocess_exec(*arguments, cwd=REPOSITORY, stdin=pipe, stdout=pipe)
        try:
            assert process.stdout is not None
            if await process.stdout.readline() != b"ready\n":
                raise RuntimeError("the load generator did not start; its complaint is above")
            yield Load(process, result)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def run(job: Job) -> Sample:
    async with generator(job) as load:
        load.begin()
        return await load.sample()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _line(reader: asyncio.StreamReader) -> int:
    return int(await reader.readline() or b"0")


async def _follow(reader: asyncio.StreamReader, budget: Budget) -> None:
    while line := await reader.readline():
        budget.allow(int(line))


async def _perform(job: Job, connections: Sequence[Connection], requests: Sequence[bytes], budget: Budget) -> Sample:
    if job.rate:
        return await pace(connections, requests, rate=job.rate)
    return await saturate(connections, requests, seconds=job.seconds, budget=budget if job.budgeted else None)


async def _main(job: Job) -> Sample:
    requests = build_requests(job.url, job.abouts, job.count, first=job.first, scheme=job.scheme, secret=job.secret)
    connections = await connect(job.url, job.connections)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    gc.disable()  # a run is short, and a collection in it would be charged to the server
    print("ready", flush=True)
    budget = Budget(await _line(reader))
    following = asyncio.create_task(_follow(reader, budget))
    before = _cpu()
    sample = await _perform(job, connections, requests, budget)
    sample.cpu_seconds = _cpu() - before
    following.cancel()
    for connection in connections:
        connection.close()
    return sample


if __name__ == "__main__":
    task = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - the harness wrote it
    Path(sys.argv[2]).write_bytes(pickle.dumps(uvloop.run(_main(task))))
