"""The HTML report: one page that needs nothing else, runs nothing, and prints. Everything in it is escaped by Jinja2.

What is long is cut here, and says so; the CSV report has all of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.reconciler.domain.cases import Case, CaseStatus
from services.reconciler.domain.models import RunKind
from services.reconciler.domain.reporting import WHOLE, Place, as_major, bars
from services.reconciler.use_cases.read_report import Report
from services.reconciler.use_cases.report_ports import ShownLine

MAX_CASES = 500
MAX_LINES = 200
MAX_ROWS = 100
"""Of payouts and bad rows."""

_TEMPLATES = Path(__file__).parent / "templates"
_STYLE = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

PLACES = {
    Place.MATCHED: "Matched",
    Place.IN_TRANSIT: "In transit",
    Place.DISPUTED: "Disputed",
    Place.UNEXPLAINED: "Unexplained",
}
_KINDS = {
    RunKind.SWEEP: "Payments that were not final were asked about at their gateways.",
    RunKind.SETTLEMENT: "Settlement lines were matched with the payments that we know, and payouts with their lines.",
    RunKind.ORDERS: "Orders were compared with their payments, and payments with what their gateways list.",
}


async def html_report(
    report: Report, cases: AsyncIterator[Sequence[Case]], lines: AsyncIterator[Sequence[ShownLine]]
) -> str:
    shown_cases, cases_cut = await _first(cases, MAX_CASES)
    shown_lines, lines_cut = await _first(lines, MAX_LINES)
    return _ENVIRONMENT.get_template("report.html").render(
        report=report,
        title=_title(report),
        what=_what(report),
        bars=bars(report.totals),
        whole=WHOLE,
        places=PLACES,
        cases=shown_cases,
        cases_cut=cases_cut,
        open_cases=sum(case.status is not CaseStatus.RESOLVED for case in shown_cases),
        lines=shown_lines,
        lines_cut=lines_cut,
        max_rows=MAX_ROWS,
        style=Markup(_STYLE),  # noqa: S704 - our own file, and its hash is in the policy
    )


def _title(report: Report) -> str:
    if report.run is None:
        return f"Settlement file · {report.file.gateway}" if report.file else "Settlement file"
    gateway = report.run.request.gateway or (report.file.gateway if report.file else None)
    return f"{report.run.kind.value.capitalize()} run · {gateway or 'all gateways'}"


def _what(report: Report) -> str:
    if report.run is not None:
        return _KINDS[report.run.kind]
    return "The lines of this file are compared with the payments that we know, and its payouts with its lines."


T = TypeVar("T")


async def _first(pages: AsyncIterator[Sequence[T]], limit: int) -> tuple[list[T], bool]:
    found: list[T] = []
    async for page in pages:
        found.extend(page)
        if len(found) > limit:
            return found[:limit], True
    return found, False


def _amount(amount_minor: int | None, currency: str | None) -> str:
    """With thousands apart and a true minus, so that a sign is seen: −1 234.50."""
    if amount_minor is None:
        return "–"
    text = f"{abs(as_major(amount_minor, currency)):,f}".replace(",", "\u202f")
    return f"\u2212{text}" if amount_minor < 0 else text


def _signed(amount_minor: int | None, currency: str | None) -> str:
    return f"+{_amount(amount_minor, currency)}" if (amount_minor or 0) > 0 else _amount(amount_minor, currency)


def _age(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _moment(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def _words(code: str | None) -> str:
    return (code or "–").replace("_", " ")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"amount": _amount, "signed": _signed, "age": _age, "moment": _moment, "words": _words}
    return environment


_ENVIRONMENT = _environment()
