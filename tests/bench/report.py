"""The results of one run: a table for people, JSON for later. Goals are printed, never asserted: machines differ."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

ARTIFACTS = Path(__file__).resolve().parents[2] / ".artifacts" / "bench"


@dataclass(frozen=True)
class Row:
    """``low`` and ``high`` are the extremes of the rounds; ``value`` is their median."""

    measure: str
    unit: str
    value: float
    low: float
    high: float
    rounds: int
    ratio: str = ""
    goal: str = ""


class Report:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, measure: str, unit: str, rounds: Sequence[float], *, ratio: str = "", goal: str = "") -> None:
        median = statistics.median(rounds)
        self.rows.append(Row(measure, unit, median, min(rounds), max(rounds), len(rounds), ratio, goal))

    def print(self) -> None:
        table = Table(title="Payrail, one run on this machine", title_justify="left")
        for heading in ("measure", "median", "spread", "unit", "ratio", "goal"):
            table.add_column(heading, justify="right" if heading in ("median", "spread") else "left")
        for row in self.rows:
            spread = f"{_number(row.low)} … {_number(row.high)}" if row.rounds > 1 else ""
            table.add_row(row.measure, _number(row.value), spread, row.unit, row.ratio, row.goal)
        Console(width=150).print(table)

    def write(self) -> Path:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTIFACTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        machine = {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg(),
        }
        document = {"machine": machine, "rows": [asdict(row) for row in self.rows]}
        path.write_text(json.dumps(document, indent=2) + "\n")
        return path


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
