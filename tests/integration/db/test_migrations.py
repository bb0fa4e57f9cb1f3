"""Each service's migrations: repeatable, safe to run from several places, and equal to what the code declares."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.db.migrations import upgrade
from shared.db.session import async_url
from tests.support.postgres import CreateDatabase, ServiceDatabase

SERVICES_DIRECTORY = Path(__file__).resolve().parents[3] / "services"
SERVICES = sorted(path.parents[1].name for path in SERVICES_DIRECTORY.glob("*/db/tables.py"))


def differences(connection: Connection, metadata: MetaData) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


@pytest.mark.parametrize("service", SERVICES)
async def test_the_migrated_schema_is_the_one_that_the_code_declares(
    service_database: ServiceDatabase, service: str
) -> None:
    metadata = importlib.import_module(f"services.{service}.db.tables").metadata
    settings = {"server_settings": {"search_path": service}}
    engine = create_async_engine(async_url(service_database(service)), poolclass=NullPool, connect_args=settings)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences, metadata) == []
    await engine.dispose()


async def test_upgrading_twice_changes_nothing(create_database: CreateDatabase) -> None:
    url = create_database()
    assert await upgrade("order_service", url) == await upgrade("order_service", url)


async def test_services_that_start_together_migrate_a_shared_database_once(create_database: CreateDatabase) -> None:
    url = create_database()
    revisions = await asyncio.gather(*(upgrade(service, url) for service in ["order_service"] * 4))
    assert len(set(revisions)) == 1
