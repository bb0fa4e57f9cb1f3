"""Reading a settlement file by one format, without the service around it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import ijson  # type: ignore[import-untyped]

from services.reconciler.domain.settlement import BadRow, Parsed, SettlementLine, StatedPayout, StatedTotal
from services.reconciler.settlement_formats import registry
from services.reconciler.settlement_formats.port import (
    Head,
    JsonFormat,
    Layout,
    ReadingContext,
    Row,
    SettlementFormat,
    TableFormat,
)


def rows_of(body: bytes | str) -> Iterator[Row]:
    text = body if isinstance(body, str) else body.decode("utf-8-sig")
    reader = csv.reader(io.StringIO(text, newline=""))
    for cells in reader:
        yield Row(reader.line_num, cells)


def items_of(body: bytes | str, path: str) -> Iterator[tuple[int, Any]]:
    raw = body.encode() if isinstance(body, str) else body
    return enumerate(ijson.items(io.BytesIO(raw), path, multiple_values=True), start=1)


def context_of(format_: SettlementFormat, header_map: Mapping[str, str], currency: str | None) -> ReadingContext:
    return ReadingContext(format_.gateway or "stripe", "", header_map, currency)


def parsed(
    name: str, body: bytes | str, *, header_map: Mapping[str, str] | None = None, currency: str | None = None
) -> list[Parsed]:
    format_ = registry.format_named(name)
    context = context_of(format_, header_map or {}, currency)
    if format_.layout is Layout.TABLE:
        return list(cast("TableFormat", format_).read(rows_of(body), context))
    json_format = cast("JsonFormat", format_)
    return list(json_format.read(items_of(body, json_format.items_path), context))


def table_head(body: bytes | str) -> Head:
    return Head(Layout.TABLE, rows=tuple(rows_of(body))[:40])


def lines_in(found: Iterable[Parsed]) -> list[SettlementLine]:
    return [each for each in found if isinstance(each, SettlementLine)]


def bad_in(found: Iterable[Parsed]) -> list[BadRow]:
    return [each for each in found if isinstance(each, BadRow)]


def payouts_in(found: Iterable[Parsed]) -> list[StatedPayout]:
    return [each for each in found if isinstance(each, StatedPayout)]


def totals_in(found: Iterable[Parsed]) -> list[StatedTotal]:
    return [each for each in found if isinstance(each, StatedTotal)]


def only_line(found: Iterable[Parsed]) -> SettlementLine:
    (line,) = found
    assert isinstance(line, SettlementLine), line
    return line


def adds_up(line: SettlementLine) -> bool:
    amounts = (line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor)
    whole = all(type(amount) is int and abs(amount) < 10**16 for amount in amounts)
    return whole and line.net_minor == line.gross_minor - line.fee_minor - line.tax_minor
