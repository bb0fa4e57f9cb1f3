"""``python -m services.order_service.invoicing.child``: draws the invoices that come in, one after the other.

The fonts are read once. Each invoice is drawn by a fork of this process, which has them in memory and ends with it:
drawing uses them up, and whatever an invoice does to its process (memory, time, a crash of a library) ends there. It
goes when its input does, so also with whoever started it, and when nobody has asked for a while.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from services.order_service.invoicing.drawing import Fonts, draw_pdf, read_fonts
from services.order_service.invoicing.frames import FAILED, MAX_BYTES, framed, from_request, read_frame, write_all
from services.order_service.use_cases.ports import InvoiceRecord

NICENESS = 10
"""Mails wait for whoever waits for an answer."""

MEMORY_BYTES = 768 * 1024 * 1024
PROCESSOR_SECONDS = 20
"""Of one invoice; usual are 0.05."""


DRAWING_SECONDS = 60
"""More than anybody waits: a drawing whose process was killed ends by then, whatever it hangs in."""


def main(idle_seconds: float) -> None:
    # Whoever started us decides when we end: a service manager tells all processes at once to stop.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    for limit, value in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    fonts = _prepared()
    requests, answers = sys.stdin.fileno(), sys.stdout.fileno()
    while _asked(requests, idle_seconds) and (request := read_frame(requests)) is not None:
        pdf = _drawn_apart(from_request(request), fonts, inherited=(requests, answers))
        write_all(answers, FAILED if pdf is None or len(pdf) > MAX_BYTES else framed(pdf))


def _prepared() -> Fonts:
    nothing = {"currency": "EUR", "total_minor": 1, "order_id": "-", "ordered_at": "2026-01-01T00:00:00+00:00"}
    nobody = {"name": "-", "address": "", "tax_id": "", "email": "-", "gateway": "-", "gateway_reference": None}
    who = {"seller": nobody, "customer": nobody, "billing_address": None, "payment": nobody | {"payment_id": "-"}}
    # So that every module which drawing imports is there before the first fork.
    draw_pdf(InvoiceRecord(1, "-", nothing | who | {"items": []}, datetime(2026, 1, 1, tzinfo=UTC)))
    fonts = read_fonts()
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page that it marks
    return fonts


def _asked(requests: int, idle_seconds: float) -> bool:
    readable, _, _ = select.select([requests], [], [], idle_seconds)
    return bool(readable)


def _drawn_apart(record: InvoiceRecord, fonts: Fonts, *, inherited: Sequence[int]) -> bytes | None:
    """None: its process did not come to an end that can be trusted.

    It closes what it has ``inherited``, or whoever waits for this process's end would wait for its end, too.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        _draw_and_end(record, fonts, writing, not_its=(reading, *inherited))
    os.close(writing)
    pieces: list[bytes] = []
    while piece := os.read(reading, 1 << 16):
        pieces.append(piece)
    os.close(reading)
    _, status = os.waitpid(process, 0)
    return b"".join(pieces) if status == 0 else None


def _draw_and_end(record: InvoiceRecord, fonts: Fonts, writing: int, not_its: Sequence[int]) -> None:
    status = 1
    try:
        for descriptor in not_its:
            os.close(descriptor)
        signal.alarm(DRAWING_SECONDS)
        gc.disable()
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
        write_all(writing, draw_pdf(record, fonts))
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's is tidied up here


if __name__ == "__main__":
    main(float(sys.argv[1]))
