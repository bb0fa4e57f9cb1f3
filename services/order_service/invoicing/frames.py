"""What goes over the pipes between a service and the process that draws its invoices: lengths, then bytes."""

from __future__ import annotations

import json
import os
from datetime import datetime

from services.order_service.use_cases.ports import InvoiceRecord

LENGTH_BYTES = 4
MAX_BYTES = 32 * 1024 * 1024
FAILED = (0).to_bytes(LENGTH_BYTES, "big")
"""The answer for an invoice that could not be drawn: no bytes."""


def framed(content: bytes) -> bytes:
    assert len(content) <= MAX_BYTES, "an invoice of a thousand pages"
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def as_request(record: InvoiceRecord) -> bytes:
    fields = {
        "number": record.number,
        "order_id": record.order_id,
        "snapshot": dict(record.snapshot),
        "issued_at": record.issued_at.isoformat(),
    }
    return framed(json.dumps(fields).encode())


def from_request(content: bytes) -> InvoiceRecord:
    fields = json.loads(content)
    issued_at = datetime.fromisoformat(fields["issued_at"])
    return InvoiceRecord(fields["number"], fields["order_id"], fields["snapshot"], issued_at)


def read_frame(descriptor: int) -> bytes | None:
    """None at the end."""
    length = _read(descriptor, LENGTH_BYTES)
    return None if length is None else _read(descriptor, int.from_bytes(length, "big"))


def _read(descriptor: int, size: int) -> bytes | None:
    pieces: list[bytes] = []
    while size > 0:
        piece = os.read(descriptor, min(size, 1 << 16))
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
