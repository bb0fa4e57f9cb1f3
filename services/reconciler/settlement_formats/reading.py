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

_OF_SETTLEMENTS = frozenset({"wrong_gateway", "format_ambiguous"})
"""Refusals of what some format does know."""


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
    """Of a workbook's sheets the one that a format recognises. Raises Unreadable where several hold settlements, of
    whichever gateway: none of them may be left out in silence."""
    found: list[tuple[SettlementFormat, Readable]] = []
    refusals: list[Unreadable] = []
    for readable in readables(opened, request.limits):
        try:
            found.append((recognise(readable.head, request.context, name=request.format_name), readable))
        except Unreadable as error:
            refusals.append(error)
    others = sum(error.code in _OF_SETTLEMENTS for error in refusals)
    if found and len(found) + others > 1:
        raise Unreadable(
            "several_sheets", f"{len(found) + others} sheets of the workbook hold settlements; send them one by one"
        )
    if found:
        return found[0]
    raise refusals[0] if refusals else Unreadable("empty", "the workbook has no sheet that is visible")
