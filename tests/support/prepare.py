"""Finds or installs the real neighbours before the tests start, so that no test's time limit pays for it."""

from __future__ import annotations

import os
import sys

from deploy.local.postgres import PostgresNotAvailable, binary
from tests.support.browser import BrowserNotAvailable, launch_options
from tests.support.rabbitmq import RabbitMQNotAvailable, ensure_programs


def main() -> int:
    """Return 0 when PostgreSQL, RabbitMQ and Chromium are there; else say what to install, all at once."""
    complaints = []
    for prepare in (_postgres, _rabbitmq, _chromium):
        try:
            prepare()
        except (PostgresNotAvailable, RabbitMQNotAvailable, BrowserNotAvailable) as missing:
            complaints.append(f"error: {missing}")
    if complaints:
        sys.stderr.write("\n".join(complaints) + "\n")
    return 1 if complaints else 0


def _postgres() -> None:
    if not os.environ.get("TEST_DATABASE_URL"):
        binary("postgres")


def _rabbitmq() -> None:
    if not os.environ.get("RABBITMQ_URL"):
        ensure_programs()


def _chromium() -> None:
    launch_options()


if __name__ == "__main__":
    sys.exit(main())
