"""The results of one run: a table for people, JSON for later. Goals are printed, never asserted: machines differ."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.figures import Goal, Spread, number

ARTIFACTS = Path(__file__).resolve().parents[2] / ".artifacts" / "bench"


@dataclass(frozen=True)
class Row:
    """``cpu`` are microseconds for each request (or event) by group of processes, medians of the rounds.

    ``missing`` says why there is no figure: a part that could not be had.
    """

    measure: str
    unit: str
    found: Spread | None
    section: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None
    cpu: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""

    @property
    def verdict(self) -> str:
        if self.met is None:
            return self.goal
        return f"{self.goal}: {'met' if self.met else 'MISSED'}"


class Report:
    def __init__(self, plan: str) -> None:
        self.plan = plan
        self.rows: list[Row] = []
        self.profiles: dict[str, dict[str, Any]] = {}
        self.section = ""

    def add(
        self,
        measure: str,
        unit: str,
        rounds: Sequence[float],
        *,
        ratio: str = "",
        goal: Goal | str = "",
        cpu: Mapping[str, float] | None = None,
    ) -> None:
        found = Spread.of(rounds)
        met = goal.is_met(found.median) if isinstance(goal, Goal) else None
        self.rows.append(Row(measure, unit, found, self.section, ratio, str(goal), met, cpu or {}))

    def add_missing(self, measure: str, why: str, *, goal: Goal | str = "") -> None:
        self.rows.append(Row(measure, "", None, self.section, goal=str(goal), missing=why))

    @property
    def goals(self) -> list[Row]:
        return [row for row in self.rows if row.section == GOALS]

    def print(self) -> None:
        for section in dict.fromkeys(row.section for row in sorted(self.rows, key=lambda row: row.section != GOALS)):
            Console(width=170).print(self._table(section))

    def _table(self, section: str) -> Table:
        size = "" if self.plan == "full" else f" ({self.plan}: small sizes and short rounds, only good for a look)"
        table = Table(title=f"{section}{size}", title_justify="left")
        for heading in ("measure", "median", "spread", "unit", "CPU µs each", "ratio", "goal"):
            table.add_column(heading, justify="right" if heading in ("median", "spread") else "left")
        for row in self.rows:
            if row.section == section:
                table.add_row(*_cells(row))
        return table

    def write(self) -> Path:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTIFACTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{self.plan}.json"
        machine = {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg(),
            "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        }
        rows = [asdict(row) for row in self.rows]
        document = {"plan": self.plan, "machine": machine, "rows": rows, "profiles": self.profiles}
        path.write_text(json.dumps(document, indent=2) + "\n")
        return path


GOALS = "Goals of the hot paths"
"""The section whose rows are the goal table of the hot paths; every plan fills it."""
ENDPOINTS = "Endpoints at saturation, webhooks of 1 KB"
"""The section that is drawn as a plot."""
CONSUMERS = "Consumers"
MONEY = "Paying and refunding"
SETTLEMENT = "Settlement files"
EMBEDDED = "Embedded"


def _cells(row: Row) -> tuple[str, ...]:
    cpu = ", ".join(f"{name} {number(each)}" for name, each in row.cpu.items() if each >= 0.5)
    if row.found is None:
        return row.measure, "none", "", "", "", "", f"{row.goal} NOT MEASURED: {row.missing}"
    spread = f"{number(row.found.low)} … {number(row.found.high)}" if row.found.rounds > 1 else ""
    return row.measure, number(row.found.median), spread, row.unit, cpu, row.ratio, row.verdict
