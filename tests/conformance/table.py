"""The suite's table: gateway × case, as the cases themselves say it."""

from __future__ import annotations

from deploy.gateway_sheet import table
from tests.conformance.cases import CASES, subjects


def conformance_table() -> str:
    """What the suite shows when every test of it passes: a case is passed, or its gateway has no such thing."""
    found = [subject for _, subject in sorted(subjects().items())]
    rows: list[list[str]] = []
    reasons: list[tuple[str, str, str | None]] = []
    for case in CASES.values():
        cells = []
        for subject in found:
            reason = case.lacks(subject)
            cells.append("pass" if reason is None else "n/o")
            if reason is not None:
                reasons.append((subject.facts.display_name, case.title, reason))
        rows.append([case.title, *cells])
    silent = [subject for subject in found if subject.facts.expires_silently is not None]
    reasons += [
        (each.facts.display_name, "expiry: an end that is told", each.facts.expires_silently) for each in silent
    ]
    notes = [[name, title, reason or ""] for name, title, reason in sorted(reasons)]
    return (
        "Each case is run against the gateway's sandbox, through the real services and databases "
        "(`tests/conformance/cases.py`). `n/o`: not offered by the gateway; then the refusal is tested where there is "
        "one. What it proves is that adapter, scheme and sandbox agree with the fact sheet and with each other; where "
        "no documentation says something (which word means a failed refund, when a refund is done), the development "
        "settings and the sandbox have agreed on it, and the gateway's setting is what counts.\n\n"
        + table(["", *(subject.facts.display_name for subject in found)], rows)
        + "\nNot offered, with the reason of the fact sheet:\n\n"
        + table(["gateway", "case", "reason"], notes)
    )
