"""``python -m services.reconciler.settlement_formats.child <request>``: reads the file that is its standard input.

Rows go to the standard output, one JSON document at the end to the standard error. It gives up what it does not need
before it looks at the first byte: memory and processor time beyond the limits, writing files of any kind, and the
network where the system lets it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from services.reconciler.settlement_formats.isolation import end_with, leave_network
from services.reconciler.settlement_formats.limits import ReadingLimits
from services.reconciler.settlement_formats.port import Incomplete, Unreadable
from services.reconciler.settlement_formats.reading import FileReading, Request, inspect

NICENESS = 10
"""Reading may wait for whoever waits for an answer."""


def main(argument: str) -> None:
    request = json.loads(argument)
    reports = _only_for_reports()
    leave_network()
    end_with(request["parent"])
    _give_up(request["limits"]["memory_bytes"], request["processor_seconds"])
    try:
        answer = _answer(request)
    except Unreadable as error:
        kind = "incomplete" if isinstance(error, Incomplete) else "unreadable"
        answer = {"refused": kind, "code": error.code, "detail": error.detail}
    except MemoryError:
        answer = {"refused": "unreadable", "code": "too_large", "detail": "reading the file needs too much memory"}
    except BrokenPipeError:
        return  # nobody listens any more
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told without its text, which may hold a cell
        answer = {"failed": type(error).__name__, "where": _place(error)}
    os.close(sys.stdout.fileno())  # the rows end here, so that whoever reads them turns to the report
    with os.fdopen(reports, "w", encoding="utf-8") as report:
        json.dump(answer, report)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    raw = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115 - it has no path, and lives as long as we
    what = Request(
        gateway=request["gateway"],
        account=request["account"],
        format_name=request["format"],
        header_map=request["header_map"],
        default_currency=request["default_currency"],
        limits=ReadingLimits(**request["limits"]),
    )
    if request["task"] == "inspect":
        return inspect(raw, what)
    reading = FileReading(raw, what)
    output = sys.stdout.fileno()
    for piece in reading.rows:
        _write(output, piece)
    return reading.report()


def _write(output: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(output, view) :]


def _only_for_reports() -> int:
    """A descriptor for the report; what libraries print as warnings goes nowhere, because it may repeat a cell."""
    reports = os.dup(sys.stderr.fileno())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)
    return reports


def _give_up(memory_bytes: int, processor_seconds: int) -> None:
    # Whoever started us decides when we end: a service manager tells all processes at once to stop.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, processor_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),  # a core would hold what the file says
    ):
        resource.setrlimit(limit, (value, value))


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


if __name__ == "__main__":
    main(sys.argv[1])
