"""``python -m tests.bench.document RESULT.json``: writes a run into the documentation.

The tables go between the markers in docs/performance.md, the plot into docs/performance.svg, and the functions in which
the hot paths spend their time into docs/hot-paths.md. Nothing else writes these, and a bench run writes none of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import number
from tests.bench.plot import draw, endpoint_bars
from tests.bench.report import ENDPOINTS, GOALS

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
OURS = "durable ingest"
_EXPLAINED = """Sampled by py-spy while each process was saturated; written by `python -m tests.bench.document`.
*Self* is the share of samples in which the function itself ran, *cumulative* that in which it or something that it had
called did: the top of what a flame graph shows, as text.
"""


def main(path: Path) -> None:
    result = json.loads(path.read_text())
    page = DOCS / "performance.md"
    page.write_text(between_markers(page.read_text(), tables(result)))
    bars = endpoint_bars([row for row in result["rows"] if row["section"] == ENDPOINTS], OURS)
    if bars:
        (DOCS / "performance.svg").write_text(draw(bars, told_about(result)))
    (DOCS / "hot-paths.md").write_text(profiles_page(result))


def between_markers(page: str, text: str) -> str:
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"docs/performance.md needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def told_about(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    load = machine["load_average"][0]
    rounds = max((row["found"]["rounds"] for row in result["rows"] if row["found"]), default=0)
    plan = "" if result["plan"] == "full" else f"plan {result['plan']} (small sizes, only good for a look), "
    return (
        f"{plan}{machine['cpus']} cores, Python {machine['python']}, {rounds} rounds, medians,"
        f" {machine['at']}, load average at the end {load:.1f}"
    )


def tables(result: Mapping[str, Any]) -> str:
    parts = [f"One run: {told_about(result)}.\n"]
    sections = list(dict.fromkeys(row["section"] for row in result["rows"]))
    for section in sorted(sections, key=lambda name: name != GOALS):
        parts += [f"### {section}\n"]
        if section == ENDPOINTS:
            parts += ["![Requests a second and CPU for each request, by endpoint](performance.svg)\n"]
        parts += [_table([row for row in result["rows"] if row["section"] == section])]
    return "\n".join(parts)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| measure | median | spread | unit | CPU µs each | ratio, answers | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row) for row in rows)]) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    found = row["found"]
    if found is None:
        cells = [row["measure"], "none", "", "", "", "", f"{row['goal']} **not measured**: {row['missing']}"]
    else:
        spread = f"{number(found['low'])} … {number(found['high'])}" if found["rounds"] > 1 else ""
        cpu = ", ".join(f"{name} {number(each)}" for name, each in row["cpu"].items() if each >= 0.5)
        cells = [row["measure"], number(found["median"]), spread, row["unit"], cpu, row["ratio"], _verdict(row)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _verdict(row: Mapping[str, Any]) -> str:
    if row["met"] is None:
        return str(row["goal"])
    return f"{row['goal']}: {'met' if row['met'] else '**missed**'}"


def profiles_page(result: Mapping[str, Any]) -> str:
    parts = [
        "# Where the hot paths spend their time\n",
        _EXPLAINED,
        f"One run: {told_about(result)}.\n",
    ]
    for name, found in result["profiles"].items():
        parts += [f"## {name}\n"]
        if "missing" in found:
            parts += [f"Not sampled: {found['missing']}\n"]
            continue
        parts += [
            f"{found['samples']:,} samples.\n",
            "| self | function | cumulative | function |",
            "|---|---|---|---|",
        ]
        for (own, share), (whole, whole_share) in zip(found["self"], found["cumulative"], strict=False):
            parts += [f"| {share:.1f} % | `{own}` | {whole_share:.1f} % | `{whole}` |"]
        parts += [""]
    return "\n".join(parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
