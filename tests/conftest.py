"""What every test can ask for, and what no test may do: talk to anything but this machine, or skip."""

from __future__ import annotations

import pytest
import structlog
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is; deadlines of a fifth of a second fail on one that is.
settings.register_profile("payrail", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("payrail")

# What structlog does where nobody has configured it, but for the frames' variables in colours: those cost seconds each.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

pytest_plugins = [
    "tests.support.network",
    "tests.support.guard",
    "tests.support.postgres",
    "tests.support.rabbitmq",
    "tests.support.applications",
    "tests.support.browser",
]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers must keep the tests of one stack together: with a pytest that pytest-xdist does not know yet, each worker
    starts every stack, and nothing says so."""
    if not config.getoption("loadgroup", False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid.rpartition("]")[2].rpartition("::")[2]:
            raise pytest.UsageError(f"pytest-xdist has lost the group of {item.nodeid}: use versions that fit")
