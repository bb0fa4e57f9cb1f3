"""One market for all the cases of a worker, and the table that `make conformance` prints."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.market import Market, open_market
from tests.support.postgres import PostgresServer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def market(postgres_server: PostgresServer) -> AsyncIterator[Market]:
    async with open_market(postgres_server) as opened:
        yield opened


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-gateway-docs", action="store_true", help="write docs/gateways.md when every case has passed"
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not session.config.getoption("--write-gateway-docs", False) or hasattr(session.config, "workerinput"):
        return
    from deploy.gateway_sheet import PATH, render
    from tests.conformance.table import conformance_table

    shown = conformance_table()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    reporter.write_line(f"\n{shown}")
    if session.config.getoption("keyword") or session.config.getoption("deselect"):
        reporter.write_line("some cases were left out, so docs/gateways.md is not written")
    elif exitstatus == 0:
        PATH.write_text(render(shown), encoding="utf-8")
        reporter.write_line(f"written: docs/{PATH.name}")
