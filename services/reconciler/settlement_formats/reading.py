"""Inspecting and reading one file, start to end: what the child process does, and tests do without one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.reconciler.settlement_formats.content import Notes, Readable, readables
from services.reconciler.settlement_formats.copy_rows import Summary
from services.reconciler.settlement_formats.limits import ReadingLimits
from services.reconciler.settlement_formats.opening import BUFFER_BYTES, Opened, open_file
from services.reconciler.settlement_formats.port import ReadingContext, SettlementFormat, Unreadable
from services.reconciler.settlement_formats.registry import recognise


@dataclass(frozen=True, slots=True)
class Request:
    gateway: str
    account: str = ""
    format_name: str | None = None
    header_map: Mapping[str, str] = field(default_factory=dict)
    default_currency: str | None = None
    limits: ReadingLimits = field(default_factory=ReadingLimits)

    @property
    def context(self) -> ReadingContext:
        return ReadingContext(self.gateway, self.account, self.header_map, self.default_currency)


def inspect(raw: io.BufferedIOBase, request: Request) -> dict[str, Any]:
    """What ``Inspection`` has, as JSON. Raises Unreadable or Incomplete."""
    opened = open_file(raw, request.limits)  # type: ignore[arg-type]
    format_, _ = _recognised(opened, request)
    content, digest = opened.stream(), hashlib.sha256()
    content.look = digest.update
    buffer = bytearray(BUFFER_BYTES)
    while content.readinto(buffer):
        pass
    return {
        "format": format_.name,
        "format_version": format_.version,
        "content_bytes": content.size,
        "content_sha256": digest.hexdigest(),
    }


class FileReading:
    """``rows`` are COPY text, ``report`` is what there is to say once they are exhausted."""

    def __init__(self, raw: io.BufferedIOBase, request: Request) -> None:
        opened = open_file(raw, request.limits)  # type: ignore[arg-type]
        format_, readable = _recognised(opened, request)
        notes = Notes()
        self._summary = Summary(notes)
        self.rows: Iterator[bytes] = self._summary.copy_rows(readable.parsed(format_, request.context, notes))

    def report(self) -> dict[str, Any]:
        return self._summary.report()


def _recognised(opened: Opened, request: Request) -> tuple[SettlementFormat, Readable]:
    """Of a workbook's sheets the first that a format recognises."""
    refusal: Unreadable | None = None
    for readable in readables(opened, request.limits):
        try:
            return recognise(readable.head, request.context, name=request.format_name), readable
        except Unreadable as error:
            refusal = refusal or error
    raise refusal or Unreadable("empty", "the workbook has no sheet")
