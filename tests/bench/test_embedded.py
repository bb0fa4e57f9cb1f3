"""``payrail dev``: how soon it is ready, and what it holds when nothing happens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deploy.local.processes import command_line
from tests.bench.figures import Goal
from tests.bench.measuring import cpu_seconds, family, pss_megabytes
from tests.bench.plan import PLAN
from tests.bench.report import EMBEDDED, GOALS, Report
from tests.bench.stack import on_disk
from tests.e2e.stack import EmbeddedStack

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

START_GOAL = Goal("<=", 5)
MEMORY_GOAL = Goal("<=", 200)
TOGETHER_GOAL = Goal("<=", 400)


def _started(stack: EmbeddedStack) -> float:
    started = time.perf_counter()
    stack.start()
    return time.perf_counter() - started


def _postgres_pids(stack: EmbeddedStack) -> list[int]:
    (pid_file,) = Path(stack.directory).rglob("postmaster.pid")
    found = family(int(pid_file.read_text().splitlines()[0]))
    assert "postgres" in command_line(found[0])
    return found


def test_start_and_idle_memory(report: Report) -> None:
    fresh: list[float] = []
    second: list[float] = []
    python: list[float] = []
    together: list[float] = []
    idle_cpu: list[float] = []
    for _ in range(PLAN.rounds):
        with on_disk():
            stack = EmbeddedStack({"LOG_LEVEL": "warning"})
            try:
                fresh.append(_started(stack))
                stack.process.terminate()
                second.append(_started(stack))
                time.sleep(PLAN.settling_seconds)
                postgres = _postgres_pids(stack)
                everything = {stack.process.pid, *postgres}
                before = sum(map(cpu_seconds, everything))
                time.sleep(PLAN.idle_seconds)
                idle_cpu.append((sum(map(cpu_seconds, everything)) - before) / PLAN.idle_seconds * 100)
                python.append(pss_megabytes(stack.process.pid))
                together.append(python[-1] + sum(pss_megabytes(pid) for pid in postgres))
            finally:
                stack.close()
    report.section = GOALS
    report.add("embedded: empty data directory to ready", "s", fresh, goal=START_GOAL)
    report.add("embedded: second start to ready", "s", second, goal=START_GOAL)
    report.add("embedded: idle memory of the Python process (PSS)", "MB", python, goal=MEMORY_GOAL)
    report.section = EMBEDDED
    report.add("idle memory with its PostgreSQL (PSS)", "MB", together, goal=TOGETHER_GOAL)
    report.add("CPU when idle, PostgreSQL included", "% of a core", idle_cpu)
