"""What every test can ask for, and what no test may do: talk to anything but this machine, or skip."""

from __future__ import annotations

pytest_plugins = [
    "tests.support.network",
    "tests.support.guard",
    "tests.support.postgres",
    "tests.support.rabbitmq",
    "tests.support.browser",
]
