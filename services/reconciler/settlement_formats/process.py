"""Reads settlement files in a process of its own: what is wrong with a file ends that process, and never this one.

The child is given the file as its standard input and no variable of the environment that is ours. It may use so much
memory and processor time, may write no file, and is killed when the reading is given up or this process ends. Rows come
back on its standard output; what it has to say at the end on its standard error, as JSON.

It is no sandbox: it runs as the same user, and reads what that user may read. On Linux it may not read this process's
memory and environment, unless they run as root, and has no network where the container permits to give it up.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from services.reconciler.domain.settlement import BadRow, SettlementFile, StatedPayout, StatedTotal
from services.reconciler.settlement_formats.isolation import hide_memory
from services.reconciler.settlement_formats.limits import ReadingLimits
from services.reconciler.settlement_formats.port import Incomplete, ReaderFailed, ReaderTimedOut, Unreadable
from services.reconciler.use_cases.settlement_ports import Inspection, RawFile, ReadingReport
from shared.plugins import PLUGINS

log = structlog.get_logger()

CHILD = "services.reconciler.settlement_formats.child"
PIECE_BYTES = 256 * 1024
PIPE_BYTES = 1024 * 1024
"""What waits in this process at most before the child has to wait."""

MAX_REPORT_BYTES = 64 * 1024 * 1024
"""A thousand bad rows, and the payouts of the largest file."""

INSPECTION_SECONDS = 180.0
"""At most: looking at a file unpacks and hashes it, which takes seconds, and holds one of few turns meanwhile."""

_ROOT = str(Path(__file__).resolve().parents[3])
"""Where the child finds this package, wherever it was started."""


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """What an installation says about its files. ``header_maps``: per gateway, logical column → header in the file."""

    limits: ReadingLimits
    timeout_seconds: float
    header_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    default_currencies: Mapping[str, str] = field(default_factory=dict)


class ChildReader:
    """The SettlementReader of production."""

    def __init__(self, options: ReadingOptions) -> None:
        self._options = options

    async def inspect(self, raw: RawFile, *, gateway: str, account: str, format_name: str | None) -> Inspection:
        request = self._request("inspect", gateway=gateway, account=account, format_name=format_name)
        seconds = min(self._options.timeout_seconds, INSPECTION_SECONDS)
        async with _child(raw, request, seconds) as child:
            report = await child.report()
        return Inspection(
            format=report["format"],
            format_version=report["format_version"],
            content_bytes=report["content_bytes"],
            content_sha256=bytes.fromhex(report["content_sha256"]),
        )

    @asynccontextmanager
    async def read(self, file: SettlementFile, content: AsyncIterator[bytes]) -> AsyncIterator[ChildReading]:
        request = self._request("read", gateway=file.gateway, account=file.account, format_name=file.format)
        # It has no name in any directory, so that nothing is left of it whatever happens to this process.
        with tempfile.TemporaryFile() as raw:
            async for piece in content:
                raw.write(piece)
            raw.flush()
            async with _child(raw, request, self._options.timeout_seconds) as child:
                yield ChildReading(child)

    def _request(self, task: str, *, gateway: str, account: str, format_name: str | None) -> dict[str, Any]:
        return {
            "task": task,
            "gateway": gateway,
            "account": account,
            "format": format_name,
            "header_map": dict(self._options.header_maps.get(gateway, {})),
            "default_currency": self._options.default_currencies.get(gateway),
            "limits": asdict(self._options.limits),
            "processor_seconds": int(self._options.timeout_seconds) + 1,
            "parent": os.getpid(),
        }


class ChildReading:
    """Satisfies ``Reading``."""

    def __init__(self, child: _Child) -> None:
        self._child = child
        self._report: ReadingReport | None = None
        self.lines: AsyncIterator[bytes] = self._read_lines()

    async def _read_lines(self) -> AsyncIterator[bytes]:
        while piece := await self._child.rows():
            yield piece
        self._report = reading_report(await self._child.report())

    def report(self) -> ReadingReport:
        assert self._report is not None, "asked for the report before the lines were read"
        return self._report


class _Child:
    def __init__(self, process: asyncio.subprocess.Process, timeout_seconds: float) -> None:
        assert process.stdout is not None, "it was started with pipes"
        assert process.stderr is not None, "it was started with pipes"
        self._process = process
        self._output = process.stdout
        self._reports = process.stderr
        self._seconds_left = timeout_seconds
        self._timed_out = False

    async def rows(self) -> bytes:
        """The next piece of its rows; empty at their end."""
        async with self._timed():
            return await self._output.read(PIECE_BYTES)

    def time_out(self) -> None:
        self._timed_out = True
        self.kill()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def report(self) -> dict[str, Any]:
        """What it says at its end. Raises Unreadable or Incomplete: what it says; ReaderFailed: it cannot say anything,
        or not in time."""
        async with self._timed():
            text = await self._said()
            status = await self._process.wait()
        if self._timed_out:
            raise ReaderTimedOut
        try:
            report: dict[str, Any] = json.loads(text)
        except ValueError:
            log.warning("settlement_reader_died", status=status)
            raise ReaderFailed from None
        if "refused" in report:
            kind = Incomplete if report["refused"] == "incomplete" else Unreadable
            raise kind(report["code"], report["detail"])
        if "failed" in report:
            log.error("settlement_reader_failed", error=report["failed"], where=report["where"])
            raise ReaderFailed("The file could not be read because of an error in its reader.")
        return report

    async def _said(self) -> bytes:
        """What it says beyond the bound is no report, and is not kept."""
        pieces, size = [], 0
        while size <= MAX_REPORT_BYTES and (piece := await self._reports.read(PIECE_BYTES)):
            pieces.append(piece)
            size += len(piece)
        if size > MAX_REPORT_BYTES:
            self.kill()
            return b""
        return b"".join(pieces)

    @asynccontextmanager
    async def _timed(self) -> AsyncIterator[None]:
        """Only time in which it is waited for counts: what PostgreSQL takes to store its rows is not its own."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        timer = loop.call_later(max(self._seconds_left, 0), self.time_out)
        try:
            yield
        finally:
            timer.cancel()
            self._seconds_left -= loop.time() - start


@asynccontextmanager
async def _child(raw: RawFile, request: Mapping[str, Any], timeout_seconds: float) -> AsyncIterator[_Child]:
    """Runs for as long as the block, and never longer."""
    hide_memory()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-B",
        "-m",
        CHILD,
        json.dumps(request),
        stdin=raw.fileno(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=PIPE_BYTES,
        cwd="/",
        env=_environment(),
        start_new_session=True,  # Ctrl-C is ours to decide about
    )
    child = _Child(process, timeout_seconds)
    try:
        yield child
    finally:
        child.kill()
        await asyncio.shield(_ended(process))


def _environment() -> dict[str, str]:
    """No secret of ours: only where code is found, and which plug-ins bring formats."""
    paths = (_ROOT, os.environ.get("PYTHONPATH", ""))
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"}
    return variables | {name: os.environ[name] for name in (PLUGINS,) if name in os.environ}


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Takes what is left in the pipes, so that their transports close, and its status, so that no zombie stays."""
    for pipe in (process.stdout, process.stderr):
        while pipe is not None and await pipe.read(PIECE_BYTES):
            pass
    await process.wait()


def reading_report(report: Mapping[str, Any]) -> ReadingReport:
    return ReadingReport(
        rows=report["rows"],
        lines=report["lines"],
        bad_rows=report["bad_rows"],
        problems=tuple(BadRow(*problem) for problem in report["problems"]),
        payouts=tuple(_payout(payout) for payout in report["payouts"]),
        totals=tuple(StatedTotal(*total) for total in report["totals"]),
        covers_from=_time(report["covers_from"]),
        covers_until=_time(report["covers_until"]),
    )


def _payout(values: list[Any]) -> StatedPayout:
    payout = StatedPayout(*values)
    return payout._replace(paid_at=_time(values[StatedPayout._fields.index("paid_at")]))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
