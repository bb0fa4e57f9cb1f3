"""One town for all the scenarios of a worker: each looks at its own orders, payments and cases only."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.scenarios.town import Town, open_town
from tests.support.postgres import PostgresServer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def town(postgres_server: PostgresServer) -> AsyncIterator[Town]:
    async with open_town(postgres_server) as opened:
        yield opened
