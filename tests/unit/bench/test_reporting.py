"""What is made of measurements: folded stacks to top-lists, a plot with everything inside, a page between markers."""

from __future__ import annotations

import asyncio
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import pytest

from tests.bench.document import BEGIN, END, between_markers, tables
from tests.bench.load import Connection, pace
from tests.bench.plot import Bar, draw, endpoint_bars
from tests.bench.profiles import top_lists
from tests.bench.webhooks import Scheme, build_requests


def test_top_lists_count_a_recursion_once() -> None:
    folded = "main (/x/shared/a.py);walk (/x/shared/a.py);walk (/x/shared/a.py) 3\nmain (/x/shared/a.py) 1\n"
    found = top_lists(folded)
    assert found["samples"] == 4
    assert found["self"] == [("walk (shared/a.py)", 75.0), ("main (shared/a.py)", 25.0)]
    assert found["cumulative"] == [("main (shared/a.py)", 100.0), ("walk (shared/a.py)", 75.0)]


def test_top_lists_begin_below_the_event_loop_and_leave_out_threads_that_wait() -> None:
    start = "main (/x/deploy/cli/app.py);Runner.run (/usr/lib/python3.11/asyncio/runners.py)"
    folded = f"{start};work (/x/services/a.py) 3\nserve (/x/b.py);select (/usr/lib/python3.11/selectors.py) 9\n"
    found = top_lists(folded)
    assert found["samples"] == 3
    assert found["self"] == [("work (services/a.py)", 100.0)]
    assert [share for _, share in found["cumulative"]] == [100.0, 100.0]


def test_a_plot_has_every_bar_and_number() -> None:
    bars = [Bar("theirs & others", 120.0, 8_000.0, 2_000.0, False), Bar("ours", 9_590.0, 83.0, 40.0, True)]
    root = ET.fromstring(draw(bars, "a run"))  # noqa: S314 - our own text
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"theirs & others", "ours", "9,590", "120", "10,000", "123"} <= texts
    width = float(root.attrib["viewBox"].split()[2])
    for rectangle in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(rectangle.get("x", "0")) + float(rectangle.attrib["width"]) <= width


def test_only_measured_endpoints_are_drawn_the_fastest_first() -> None:
    measured = {"unit": "1/s", "found": {"median": 5.0}, "cpu": {"server": 1.0}}
    rows: list[Mapping[str, object]] = [
        {"measure": "slow", **measured},
        {"measure": "durable ingest", **measured, "found": {"median": 9.0}},
        {"measure": "ack p50", **measured, "unit": "ms"},
        {"measure": "missing", "unit": "", "found": None, "cpu": {}},
    ]
    assert [(bar.label, bar.is_ours) for bar in endpoint_bars(rows, "durable ingest")] == [
        ("durable ingest", True),
        ("slow", False),
    ]


def test_only_what_is_between_the_markers_is_replaced() -> None:
    assert between_markers(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(SystemExit, match="needs the lines"):
        between_markers("a page without them", "new")


def test_a_row_without_a_figure_says_why() -> None:
    row = {"section": "Goals", "measure": "ours ÷ theirs", "goal": ">= 4", "found": None, "missing": "no network"}
    machine = {"cpus": 2, "python": "3.11", "at": "now", "load_average": [0.5]}
    told = tables({"plan": "quick", "machine": machine, "rows": [row]})
    assert "| ours ÷ theirs | none |" in told
    assert "**not measured**: no network" in told
    assert "only good for a look" in told


def test_requests_are_distinct_and_signed_for_their_endpoint() -> None:
    requests = build_requests("http://127.0.0.1:1/hook", (), 3, first=7, scheme=Scheme.STRIPE, secret="s")
    assert len(set(requests)) == 3
    assert all(re.search(rb"\r\nstripe-signature: t=\d+,v1=[0-9a-f]{64}\r\n", request) for request in requests)


class _Instant(Connection):
    """Answers at once, but the first request only after a stall."""

    def __init__(self, stall_seconds: float) -> None:
        super().__init__("", 0)
        self._stall = stall_seconds

    def send(self, request: bytes) -> None:
        wait, self._stall = self._stall, 0.0
        asyncio.get_running_loop().call_later(wait, self.on_answer, 200, request)


async def test_a_stall_is_charged_with_all_that_it_kept_waiting() -> None:
    """Coordinated omission: what could not be sent during the stall counts from when it was due."""
    started = time.perf_counter()
    sample = await pace([_Instant(0.2)], [b"%d" % number for number in range(10)], rate=100)
    assert time.perf_counter() - started >= 0.2
    assert sample.accepted == 10
    assert sample.latencies[0] >= 0.2
    assert sample.latencies[5] >= 0.14  # due 50 ms after the start, answered after 200
