"""Ends the servers of a test run that was killed: a small process that waits for our death on a pipe.

Fixtures stop their servers themselves; this is for kill -9 and for a harness that pulls the plug.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path


class ProcessGuard:
    """Knows processes by pid and by a piece of their command line, so that a recycled number is never killed."""

    def __init__(self) -> None:
        self._watcher = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must not end the watcher before us
        )

    def watch(self, name: str, *, pid: int, command_contains: str) -> None:
        """Remember the process under ``name``; a later call with the same name replaces it."""
        self._tell({"name": name, "pid": pid, "command_contains": command_contains})

    def forget(self, name: str) -> None:
        self._tell({"name": name, "pid": None})

    def remove_afterwards(self, directory: Path) -> None:
        self._tell({"directory": str(directory)})

    def close(self) -> None:
        """End the watcher; whatever a fixture forgot to stop ends with it."""
        self._watcher.communicate(timeout=30)

    def _tell(self, message: dict[str, object]) -> None:
        pipe = self._watcher.stdin
        if pipe is not None:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()


@cache
def process_guard() -> ProcessGuard:
    """The guard of this process, started with the first server."""
    return ProcessGuard()


def pytest_unconfigure() -> None:
    if process_guard.cache_info().currsize:
        process_guard().close()
        process_guard.cache_clear()


def _main() -> None:
    watched: dict[str, tuple[int, str]] = {}
    directories: list[str] = []
    for line in sys.stdin:
        message = json.loads(line)
        if "directory" in message:
            directories.append(message["directory"])
        elif message["pid"] is None:
            watched.pop(message["name"], None)
        else:
            watched[message["name"]] = (message["pid"], message["command_contains"])
    for pid, command_contains in watched.values():
        with suppress(OSError):
            if command_contains.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _main()
