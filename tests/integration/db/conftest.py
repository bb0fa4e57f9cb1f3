"""A tiny service's database, with the shared tables in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.messaging.tiny_service import TinyService, create_schema
from tests.support.postgres import CreateDatabase


@pytest.fixture
async def service(create_database: CreateDatabase) -> AsyncIterator[TinyService]:
    url = create_database()
    await create_schema(url)
    tiny = TinyService(url, pool_size=20)
    yield tiny
    await tiny.database.dispose()
