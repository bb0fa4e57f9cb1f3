"""Alembic, driven by program: each service has a schema of its own name and a single line of migrations."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic import command, context
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.db.session import async_url

log = structlog.get_logger()

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


def _config(service: str, connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(REPOSITORY_ROOT / "services" / service / "db" / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["service"] = service
    return config


async def upgrade(service: str, database_url: str) -> str:
    """Bring the service's schema to the newest revision and return it. Safe to run from several places at once.

    Needs the right to create a schema the first time. A crash leaves the schema at its last complete revision: every
    migration runs in one transaction.
    """

    def run(connection: Connection) -> str:
        # Replicas that start together must not both create the tables; the lock goes with the transaction.
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"payrail-migrate-{service}"}
        )
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
        connection.execute(text(f'SET LOCAL search_path TO "{service}"'))
        config = _config(service, connection)
        script = ScriptDirectory.from_config(config)
        head = script.get_current_head() or ""
        if MigrationContext.configure(connection).get_current_revision() != head:
            command.upgrade(config, "head")
        return head

    engine = create_async_engine(async_url(database_url), poolclass=NullPool, connect_args={"timeout": 10})
    try:
        async with engine.begin() as connection:
            head = await connection.run_sync(run)
    finally:
        await engine.dispose()
    log.info("schema_migrated", service=service, revision=head)
    return head


def run_migrations(metadata: MetaData) -> None:
    """The whole of a service's ``env.py``: run on the connection that ``upgrade`` or the drift test hands over."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
