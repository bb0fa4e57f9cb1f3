"""What processes cost, from /proc: proportional memory (shared pages are split among those who share them) and CPU."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def pss_megabytes(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _fields(pid: int) -> list[str]:
    """From the third on, so that the state is the first here."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            children.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def tree_cpu_seconds(roots: Sequence[int]) -> float:
    """CPU of these processes and all that came from them, those included that have ended and were waited for."""
    total = 0
    for pid in {member for root in roots for member in family(root)}:
        with suppress(OSError, IndexError):
            total += sum(map(int, _fields(pid)[11:15]))  # own and waited-for children's, user and system
    return total / _TICKS


@dataclass(frozen=True)
class Cost:
    """CPU seconds of each named group of processes between two looks."""

    seconds: Mapping[str, float]

    def microseconds_each(self, count: int) -> dict[str, float]:
        return {name: value / count * 1e6 for name, value in self.seconds.items()}


class Meter:
    """Counts from its making; groups are trees of processes, named by their roots."""

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = groups
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {name: tree_cpu_seconds(roots) for name, roots in self._groups.items()}

    def cost(self) -> Cost:
        return Cost({name: value - self._before[name] for name, value in self._read().items()})
