"""One market for all the cases of a worker, and the table that `make conformance` prints."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.conformance.market import Market, open_market
from tests.support.postgres import PostgresServer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def market(postgres_server: PostgresServer) -> AsyncIterator[Market]:
    async with open_market(postgres_server) as opened:
        yield opened
