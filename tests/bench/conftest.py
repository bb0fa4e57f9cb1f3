"""One report for the whole run, and the stacks that several measurements share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench.plan import PLAN
from tests.bench.report import Report
from tests.bench.stack import BenchStack, IngestStack, on_disk

# What earlier releases promised, and what shows only over millions of rows: a look in three minutes has no time for it.
collect_ignore = (
    []
    if PLAN.name == "full"
    else ["test_dead_gateway.py", "test_growth.py", "test_paying.py", "test_refunds.py", "test_settlement.py"]
)


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    report = Report(PLAN.name)
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
def ingest_stack() -> Iterator[IngestStack]:
    with on_disk():
        stack = IngestStack()
        try:
            stack.start()
            yield stack
        finally:
            stack.close()


ORDER = (
    "test_ingest",  # alone on the machine
    "test_restart",
    "test_embedded",
    "test_settlement",
    "test_paying",  # from here on the whole stack runs; this before it has a backlog of mails
    "test_paid",
    "test_applied",
    "test_dead_gateway",
    "test_refunds",
    "test_growth",  # ends the stack's processes
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the machine for itself comes before what starts the whole stack, which then stays."""
    places = {name: place for place, name in enumerate(ORDER)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
