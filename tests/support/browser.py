"""A real Chromium for the end-to-end tests, and how Playwright starts it, root and containers included."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_INSTALL_LOCK = Path(tempfile.gettempdir()) / "payrail-apt.lock"
_ARGUMENTS = [
    "--no-sandbox",  # Chromium's own sandbox does not start as root; the pages it opens are ours
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # /dev/shm is tiny in containers
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class BrowserNotAvailable(RuntimeError):
    """There is no Chromium to test with; the message says what to install."""


class _RequiredOptions(TypedDict):
    headless: bool
    args: list[str]


class LaunchOptions(_RequiredOptions, total=False):
    """Keyword arguments of ``playwright.chromium.launch``."""

    executable_path: str


def launch_options() -> LaunchOptions:
    """Options for ``await playwright.chromium.launch(**launch_options())``; installs Chromium when there is none.

    Raises BrowserNotAvailable with what to install.
    """
    executable = find_chromium() or _install_by_apt()
    if executable is not None:
        return {"headless": True, "args": list(_ARGUMENTS), "executable_path": executable}
    _install_by_playwright()
    return {"headless": True, "args": list(_ARGUMENTS)}


def find_chromium() -> str | None:
    """The browser named by CHROMIUM, else the machine's; None when there is none."""
    named = os.environ.get("CHROMIUM")
    if named and not Path(named).exists():
        raise BrowserNotAvailable(f"CHROMIUM names {named}, which does not exist.")
    return named or next((found for name in _NAMES if (found := shutil.which(name))), None)


def _install_by_apt() -> str | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _INSTALL_LOCK.open("w") as lock:  # the xdist workers come here together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if find_chromium() is None:
            for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "chromium"]):
                subprocess.run(["apt-get", *command], env=environment, capture_output=True, timeout=900, check=False)
    return find_chromium()


def _install_by_playwright() -> None:
    """Playwright's own build, kept in its cache; a second call finds it there."""
    with _INSTALL_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise BrowserNotAvailable(
            "the end-to-end tests need Chromium: install it (Debian: apt-get install chromium), or set CHROMIUM to its "
            f"path. `playwright install chromium` said: {done.stderr.strip()[-1000:]}"
        )


@pytest.fixture(scope="session")
def browser_launch_options() -> LaunchOptions:
    """What Playwright launches the browser with."""
    return launch_options()
