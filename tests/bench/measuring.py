"""What a process costs, from /proc: proportional memory (shared pages are split among those who share them) and CPU."""

from __future__ import annotations

import os
import re
from pathlib import Path

from deploy.local.processes import children

_TICKS = os.sysconf("SC_CLK_TCK")


def pss_megabytes(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    found = [pid]
    for child in children(pid):
        found += family(child)
    return found
