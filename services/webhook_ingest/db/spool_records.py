"""Deliveries as records of a file: each with its length and checksums, so that a reader knows what is whole.

A record is the segment's token (16 bytes), the payload's length and CRC, and a CRC of these; then the payload: the
length of a JSON object, the object (every column but the bytes; of those the lengths), and the bytes. Whoever sends
deliveries does not know the token, so nothing inside a body can pass for a record.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zlib import crc32

from services.webhook_ingest.db.delivery_rows import Row

TOKEN_BYTES = 16

_HEADER = struct.Struct(">16sII")
_CHECK = struct.Struct(">I")
_LENGTH = struct.Struct(">I")
_HEADER_BYTES = _HEADER.size + _CHECK.size

_MOMENTS = ("signed_at", "received_at")
_BYTES = ("body", "body_digest", "opened_body")


@dataclass(slots=True)
class Contents:
    """What a segment holds. ``torn``: bytes at its end of a record that was being written when the process died; it
    was never acknowledged, because that comes after the whole batch is on disk. ``damaged``: bytes that are no record
    and were one, so a person has to look."""

    rows: list[Row] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)
    torn: int = 0


def encode(rows: Iterable[Row], token: bytes) -> bytes:
    return b"".join(_record(row, token) for row in rows)


def parse(data: bytes, token: bytes) -> Contents:
    contents, at = Contents(), 0
    while at < len(data):
        end = _end_of_record(data, at, token)
        row = None if end is None or end > len(data) else _row(data[at:end])
        if row is not None and end is not None:
            contents.rows.append(row)
            at = end
        elif _is_torn(data, at, end):
            contents.torn = len(data) - at
            return contents
        else:
            following = end if end is not None and end <= len(data) else _next_record(data, at + 1, token)
            contents.damaged.append(data[at:following])
            at = following
    return contents


def _record(row: Row, token: bytes) -> bytes:
    values: dict[str, Any] = row._asdict()
    blobs = [values[name] for name in _BYTES]
    values.update((name, None if values[name] is None else len(values[name])) for name in _BYTES)
    values.update((name, None if values[name] is None else values[name].isoformat()) for name in _MOMENTS)
    described = json.dumps(values, separators=(",", ":")).encode()
    payload = b"".join((_LENGTH.pack(len(described)), described, *(blob for blob in blobs if blob is not None)))
    header = _HEADER.pack(token, len(payload), crc32(payload))
    return b"".join((header, _CHECK.pack(crc32(header)), payload))


def _end_of_record(data: bytes, at: int, token: bytes) -> int | None:
    """Where the record that starts here ends, be it beyond the data; None if no header is here."""
    header = data[at : at + _HEADER.size]
    if len(data) - at < _HEADER_BYTES or not header.startswith(token):
        return None
    if _CHECK.unpack_from(data, at + _HEADER.size)[0] != crc32(header):
        return None
    return at + _HEADER_BYTES + int(_HEADER.unpack(header)[1])


def _row(record: bytes) -> Row | None:
    """None of a record that is damaged, or whole and of a version that this one cannot read."""
    payload = record[_HEADER_BYTES:]
    if crc32(payload) != _HEADER.unpack_from(record)[2]:
        return None
    try:
        row = _row_of(payload)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error):
        return None
    return row if all(isinstance(part, str) for part in (row.id, *row.key)) else None


def _row_of(payload: bytes) -> Row:
    at = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    described = json.loads(payload[_LENGTH.size : at])
    values = {name: described.get(name) for name in Row._fields}  # of another version there may be more, or fewer
    for name in _BYTES:
        if values[name] is not None:
            values[name], at = payload[at : at + values[name]], at + values[name]
    for name in _MOMENTS:
        values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
    return Row(**values)


def _is_torn(data: bytes, at: int, end: int | None) -> bool:
    """Cut off by the end of the file, or grown and never filled, as a power failure leaves it."""
    is_cut = end is not None and end > len(data)
    return is_cut or len(data) - at < _HEADER_BYTES or not any(data[at:])


def _next_record(data: bytes, at: int, token: bytes) -> int:
    while (at := data.find(token, at)) >= 0:
        if _end_of_record(data, at, token) is not None:
            return at
        at += 1
    return len(data)
