"""A file that is mostly about payments that nobody here knows: another account's, or of before our time.

Its lines can be matched later and its cases closed, but what the ledger is told stays: so that waits for a person.
"""

from __future__ import annotations

from typing import NamedTuple

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject
from services.reconciler.domain.file_findings import name_of_file
from services.reconciler.domain.settlement import SettlementFile

FEWEST_LINES = 20
"""A smaller file has a case for each of its lines."""


class Acquaintance(NamedTuple):
    """Lines of a file about payments, repeated ones not counted."""

    known: int
    unknown: int

    @property
    def is_foreign(self) -> bool:
        return self.known + self.unknown >= FEWEST_LINES and self.unknown > self.known


def foreign_file(file: SettlementFile, lines: Acquaintance) -> Finding:
    """One finding instead of one for each line. Accepted, the file is booked as it is."""
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=Scenario.UNKNOWN_LINE,
        key=f"{Scenario.UNKNOWN_LINE}:file:{name_of_file(file)}",
        subject=Subject(gateway=file.gateway, account=file.account, file_id=file.file_id),
        evidence={
            "summary": True,
            "file": file.name,
            "known_lines": lines.known,
            "unknown_lines": lines.unknown,
            "booking": "held until most payments are known or the case is accepted",
        },
    )
