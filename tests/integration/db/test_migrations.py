"""Each service's migrations: repeatable, safe to run from several places, and equal to what the code declares."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from services.webhook_ingest.db.delivery_rows import FIND, INSERT, columns_of
from shared.db import migrations
from shared.db.migrations import upgrade
from shared.db.session import async_url
from tests.support.postgres import CreateDatabase, ServiceDatabase
from tests.unit.webhook_ingest.builders import a_row

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


_AS_OF_BEFORE = """
    SET search_path TO webhook_ingest;
    ALTER TABLE webhook_deliveries ADD CONSTRAINT uq_webhook_deliveries_gateway_account_dedupe_key
        UNIQUE (gateway, account, dedupe_key);
    ALTER TABLE outbox_messages ADD CONSTRAINT uq_outbox_messages_message_id UNIQUE (message_id);
    DROP INDEX uq_webhook_deliveries_key;
    UPDATE alembic_version SET version_num = '0004';
"""
_AS_THE_RELEASE_BEFORE_STORES = """
    WITH delivery AS (
        INSERT INTO webhook_deliveries (
            id, gateway, account, dedupe_key, event_id, event_type, trust, key_id, signed_at, received_at, method, path,
            query, headers, content_type, body, body_digest, body_size, remote_address, request_id, opened_type,
            opened_body
        ) VALUES (
            'whd_1', 'stripe', '', 'id:evt_9', 'evt_9', 'x', 'full', 'k', now(), now(), 'POST', '/', '', '[]',
            'application/json', '{}', sha256('{}'), 2, '127.0.0.1', 'req_1', NULL, NULL
        )
        ON CONFLICT (gateway, account, dedupe_key) DO NOTHING
        RETURNING id
    )
    INSERT INTO outbox_messages (message_id, type, subject, sequence, body)
    SELECT 'evt_9', 'webhook.received.v1', id, 1, '{}' FROM delivery
"""
_UNIQUE = """
    SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE relname ~ '^uq_(webhook_deliveries|outbox_messages_message)' AND indisvalid ORDER BY relname
"""


async def test_the_old_key_of_deliveries_serves_the_release_before_and_nobody_waits_for_the_change(
    service_database: ServiceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = service_database("webhook_ingest")
    connection = await asyncpg.connect(url, server_settings={"search_path": "webhook_ingest"})
    reader = await asyncpg.connect(url, server_settings={"search_path": "webhook_ingest"})
    try:
        await connection.execute(_AS_OF_BEFORE)
        old = [a_row(key) for key in ("evt_1", "evt\\2", "\\x33")]
        assert len(await connection.fetch(INSERT, *columns_of(old))) == 3
        await reader.execute("BEGIN; SELECT FROM webhook_deliveries; SELECT FROM outbox_messages")
        monkeypatch.setattr(migrations, "_TRIES_TO_DROP", 1)
        await upgrade("webhook_ingest", url)
        assert [row[0] for row in await connection.fetch(_UNIQUE)] == [
            "uq_outbox_messages_message_id",
            "uq_webhook_deliveries_gateway_account_dedupe_key",
            "uq_webhook_deliveries_key",
        ]
        await reader.execute("COMMIT")
        await upgrade("webhook_ingest", url)
        assert [row[0] for row in await connection.fetch(_UNIQUE)] == [
            "uq_webhook_deliveries_gateway_account_dedupe_key",
            "uq_webhook_deliveries_key",
        ]
        for _ in range(2):  # as the release before says it, new and repeated
            await connection.execute(_AS_THE_RELEASE_BEFORE_STORES)
        assert await connection.fetchval("SELECT count(*) FROM webhook_deliveries WHERE event_id = 'evt_9'") == 1
        await upgrade("webhook_ingest", url, finish=True)
        assert [row[0] for row in await connection.fetch(_UNIQUE)] == ["uq_webhook_deliveries_key"]
        again = [a_row(row.dedupe_key.removeprefix("id:")) for row in old]
        assert await connection.fetch(INSERT, *columns_of(again)) == []
        found = await connection.fetch(FIND, *zip(*(row.key for row in again), strict=True))
        assert {row["id"] for row in found} == {row.id for row in old}
    finally:
        await connection.close()
        await reader.close()
