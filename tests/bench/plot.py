"""A bar chart as SVG, by hand: requests a second and CPU for each, by endpoint. Scales are logarithmic, because the
endpoints are more than two orders of magnitude apart; every bar has its number beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tests.bench.figures import number

LABEL_WIDTH = 330
PANEL_WIDTH = 330
NUMBER_WIDTH = 74
"""Room at the right of each panel, for the number of the longest bar."""
GAP = 24
ROW = 30
TOP = 74
BAR = 16
FOOT = 30
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .quiet { fill: #59636e; font-size: 12px } .title { font-weight: 600; font-size: 14px }
  .ground { fill: #ffffff } .grid { stroke: #d1d9e0 }
  .theirs { fill: #818b98 } .ours { fill: #0969da } .database { fill: #d4a72c }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .quiet { fill: #9198a1 } .ground { fill: #0d1117 } .grid { stroke: #3d444d }
    .theirs { fill: #656c76 } .ours { fill: #4493f8 } .database { fill: #bb8009 }
  }
"""


@dataclass(frozen=True)
class Bar:
    """One endpoint: its rate, and microseconds of CPU of the server and of PostgreSQL for each request."""

    label: str
    rate: float
    server: float
    database: float
    is_ours: bool


def endpoint_bars(rows: Sequence[Mapping[str, object]], ours: str) -> list[Bar]:
    """From the rows of a report's JSON; the fastest first."""
    found = []
    for row in rows:
        measured, cpu = row["found"], row["cpu"]
        if row["unit"] != "1/s" or not isinstance(measured, Mapping) or not isinstance(cpu, Mapping):
            continue
        label = str(row["measure"])
        found.append(
            Bar(label, measured["median"], cpu.get("server", 0), cpu.get("PostgreSQL", 0), label.startswith(ours))
        )
    return sorted(found, key=lambda bar: -bar.rate)


def draw(bars: Sequence[Bar], subtitle: str) -> str:
    height = TOP + ROW * len(bars) + FOOT
    width = LABEL_WIDTH + 2 * (PANEL_WIDTH + NUMBER_WIDTH) + GAP
    second = LABEL_WIDTH + PANEL_WIDTH + NUMBER_WIDTH + GAP
    rates = _Scale(LABEL_WIDTH, [bar.rate for bar in bars])
    costs = _Scale(second, [bar.server + bar.database for bar in bars])
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
            f' aria-label="Requests a second and CPU for each request, by endpoint">'
        ),
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
        _text(16, 24, "Webhook endpoints at saturation, one machine, one run", "title"),
        _text(16, 44, subtitle, "quiet"),
        _text(LABEL_WIDTH, 64, "requests a second (logarithmic)", "quiet"),
        _text(second, 64, "CPU µs for each request, server and PostgreSQL (logarithmic)", "quiet"),
        *_grid(rates, height),
        *_grid(costs, height),
    ]
    for place, bar in enumerate(bars):
        parts += _row(bar, TOP + place * ROW, rates, costs)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """A logarithmic scale from the power of ten below the smallest to the largest."""

    def __init__(self, left: float, values: Sequence[float]) -> None:
        self.left = left
        self.low = math.floor(math.log10(min(values)))
        self._span = math.log10(max(values)) - self.low

    def at(self, value: float) -> float:
        return self.left + PANEL_WIDTH * max(0.0, (math.log10(max(value, 10**self.low)) - self.low) / self._span)

    @property
    def powers(self) -> list[int]:
        return [10**power for power in range(self.low, self.low + math.floor(self._span) + 1)]


def _row(bar: Bar, top: float, rates: _Scale, costs: _Scale) -> list[str]:
    kind = "ours" if bar.is_ours else "theirs"
    middle, total = top + BAR - 3, bar.server + bar.database
    short, _, rest = bar.label.partition(", gunicorn")
    label = f"{short}, gunicorn" if rest else short
    return [
        _text(LABEL_WIDTH - 10, middle, label, "", anchor="end"),
        _bar(rates.left, rates.at(bar.rate), top, kind),
        _text(rates.at(bar.rate) + 6, middle, number(bar.rate)),
        _bar(costs.left, costs.at(bar.server), top, kind),
        _bar(costs.at(bar.server), costs.at(total), top, "database") if bar.database else "",
        _text(costs.at(total) + 6, middle, number(total)),
    ]


def _grid(scale: _Scale, height: float) -> list[str]:
    line: Callable[[float], str] = lambda x: (  # noqa: E731 - one line of it
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{height - FOOT + 2}"/>'
    )
    found = []
    for power in scale.powers:
        found += [line(scale.at(power)), _text(scale.at(power), height - 10, number(power), "quiet", anchor="middle")]
    return found


def _bar(left: float, right: float, top: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{max(1.0, right - left):.1f}" height="{BAR}"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
