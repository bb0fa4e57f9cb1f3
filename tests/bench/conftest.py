"""One stack for all measurements that need it, and one report at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench.report import Report
from tests.bench.stack import BareEndpoint, BenchStack, on_disk


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    report = Report()
    yield report
    print()
    report.print()
    print(f"written to {report.write()}")


@pytest.fixture(scope="session")
def bench_stack() -> Iterator[BenchStack]:
    with on_disk():
        stack = BenchStack()
        try:
            stack.start()
            yield stack
        finally:
            stack.close()


@pytest.fixture(scope="session")
def bare_endpoint() -> Iterator[BareEndpoint]:
    endpoint = BareEndpoint()
    yield endpoint
    endpoint.close()
