"""The SettlementReader without its child process, for tests of what happens around the reading."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.reconciler.domain.settlement import SettlementFile
from services.reconciler.settlement_formats.limits import ReadingLimits
from services.reconciler.settlement_formats.process import reading_report
from services.reconciler.settlement_formats.reading import FileReading, Request, inspect
from services.reconciler.use_cases.settlement_ports import Inspection, RawFile, ReadingReport


class InProcessReader:
    def __init__(self, limits: ReadingLimits | None = None) -> None:
        self._limits = limits or ReadingLimits()
        self.inspected = 0

    async def inspect(self, raw: RawFile, *, gateway: str, account: str, format_name: str | None) -> Inspection:
        self.inspected += 1
        content = os.pread(raw.fileno(), 1 << 30, 0)
        seen = inspect(io.BytesIO(content), Request(gateway, account, format_name, limits=self._limits))
        digest = bytes.fromhex(seen["content_sha256"])
        return Inspection(seen["format"], seen["format_version"], seen["content_bytes"], digest)

    @asynccontextmanager
    async def read(self, file: SettlementFile, content: AsyncIterator[bytes]) -> AsyncIterator[InProcessReading]:
        raw = io.BytesIO(b"".join([piece async for piece in content]))
        yield InProcessReading(FileReading(raw, Request(file.gateway, file.account, file.format, limits=self._limits)))


class InProcessReading:
    def __init__(self, reading: FileReading) -> None:
        self._reading = reading
        self.lines: AsyncIterator[bytes] = self._lines()

    async def _lines(self) -> AsyncIterator[bytes]:
        for piece in self._reading.rows:
            yield piece

    def report(self) -> ReadingReport:
        return reading_report(self._reading.report())
