"""Where a process spends its time: sampled by py-spy (in the peers' environment) while it is saturated, kept as the
functions with the most samples. Sampling stops the process for a moment each time, so nothing is measured meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench.peering import PeersMissing, peers_python
from tests.bench.plan import PLAN
from tests.bench.report import Report

TOP = 15
SAMPLES_PER_SECOND = 200
_LOOP = "Runner.run (asyncio/runners.py)"
_IN_C = "(event loop: uvloop, asyncpg's and the parser's C)"
_WAITS = "select (selectors.py)"
"""A thread that waits, which py-spy takes for one that runs."""
SAMPLER_STARTS = 2.0
"""Seconds that a load lasts longer than the sampling of it."""


def top_lists(folded: str) -> dict[str, Any]:
    """From folded stacks, one a line with its number of samples: shares in percent, by function, of the samples in
    which it was running itself and of those in which it or something that it had called was."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = _below_the_loop([_function(frame) for frame in stack.split(";")])
        if frames[-1].endswith(_WAITS):
            continue
        samples = int(count)
        total += samples
        own[frames[-1]] += samples
        within.update(dict.fromkeys(frames, samples))  # once each, however deep it recurs
    return {"samples": total, "self": _shares(own, total), "cumulative": _shares(within, total)}


def _below_the_loop(frames: list[str]) -> list[str]:
    """Without what called the event loop, which is in every stack; uvloop itself is C and has no frame."""
    if _LOOP in frames:
        return [_IN_C, *frames[frames.index(_LOOP) + 1 :]]
    return frames


def _shares(counted: Mapping[str, int], total: int) -> list[tuple[str, float]]:
    return [(name, round(100 * samples / total, 1)) for name, samples in Counter(counted).most_common(TOP)]


def _function(frame: str) -> str:
    """``run (asyncio/runners.py:118)`` without its line: a function is one entry, wherever it was in it."""
    name, _, place = frame.strip().partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({_shortened(path)})" if path else name


def _shortened(path: str) -> str:
    for root in ("site-packages/", "/lib/python3."):
        if root in path:
            return path.rpartition(root)[2].partition("/")[2] if root.startswith("/") else path.rpartition(root)[2]
    for root in ("/services/", "/shared/", "/deploy/"):
        if root in path:
            return root.strip("/") + "/" + path.partition(root)[2]
    return path


@contextlib.asynccontextmanager
async def profiled(report: Report, pids: Mapping[str, int]) -> AsyncIterator[None]:
    """Samples these processes from now on, for the plan's time; without py-spy the report says so."""
    try:
        spy = peers_python().parent / "py-spy"
    except PeersMissing as why:
        report.profiles |= {name: {"missing": str(why)} for name in pids}
        yield
        return
    with tempfile.TemporaryDirectory(prefix="payrail-bench-spy-") as directory:
        files = {name: Path(directory) / str(pid) for name, pid in pids.items()}
        samplers = [await _sampler(spy, pid, files[name]) for name, pid in pids.items()]
        try:
            yield
        finally:
            said = [(await each.communicate())[0].decode(errors="replace")[-400:] for each in samplers]
        for (name, folded), complaint in zip(files.items(), said, strict=True):
            found = top_lists(folded.read_text()) if folded.exists() else {"missing": f"py-spy: {complaint}"}
            report.profiles[name] = found


async def _sampler(spy: Path, pid: int, folded: Path) -> asyncio.subprocess.Process:
    options = ["--format", "raw", "--rate", str(SAMPLES_PER_SECOND), "--full-filenames", "--nolineno"]
    arguments = ["record", "--pid", str(pid), "--duration", str(int(PLAN.profile_seconds)), "-o", str(folded)]
    return await asyncio.create_subprocess_exec(
        str(spy), *arguments, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
