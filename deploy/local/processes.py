"""What the operating system tells about another process: whether it runs, its command line, its children."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether the process runs; a dead child that nobody reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def _state(pid: int) -> str:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    done = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return done.stdout.decode(errors="replace")


def children(pid: int) -> list[int]:
    if Path("/proc/self/stat").exists():
        parents = re.compile(r".*\) \S (\d+) ", re.DOTALL)
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                match = parents.match(entry.read_text())
                if match and int(match.group(1)) == pid:
                    found.append(int(entry.parent.name))
        return found
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False)
    return [int(line) for line in done.stdout.split()]
