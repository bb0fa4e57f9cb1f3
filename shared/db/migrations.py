"""Alembic, driven by program: each service has a schema of its own name and a single line of migrations."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic import command, context
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from shared.db import base
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


async def upgrade(service: str, database_url: str, *, finish: bool = False) -> str:
    """Bring the service's schema to the newest revision and return it. Safe to run from several places at once.

    ``finish``: no process of the release before runs any more, and none will, so what only that one needs goes, too.
    Of a schema that is new there is nothing like that.

    Needs the right to create a schema the first time. A crash leaves the schema at its last complete revision: every
    migration runs in one transaction. Indexes on tables that may be large are built afterwards, each by itself, and
    those whose place they take go when they are there; the next call does what a crash has left out, and nothing but
    speed depends on it.
    """

    def run(connection: Connection) -> tuple[str, bool]:
        # Replicas that start together must not both create the tables; the lock goes with the transaction.
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"payrail-migrate-{service}"}
        )
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
        connection.execute(text(f'SET LOCAL search_path TO "{service}"'))
        config = _config(service, connection)
        script = ScriptDirectory.from_config(config)
        head = script.get_current_head() or ""
        current = MigrationContext.configure(connection).get_current_revision()
        if current != head:
            command.upgrade(config, "head")
        return head, current is None

    engine = create_async_engine(async_url(database_url), poolclass=NullPool, connect_args={"timeout": 10})
    try:
        async with engine.begin() as connection:
            head, is_new = await connection.run_sync(run)
        await _build_indexes(engine, service, finish=finish or is_new)
    finally:
        await engine.dispose()
    log.info("schema_migrated", service=service, revision=head)
    return head


async def _build_indexes(engine: AsyncEngine, service: str, *, finish: bool) -> None:
    """What migrations name in ``CONCURRENTLY`` (name → statement) and is not there, or was left half built.

    Then the unique constraints in ``RETIRED`` (name → table) go, those of the tables that all services have included;
    those in ``RETIRED_AT_LAST``, which statements of the release before name, only at the finish.
    """
    modules = [script.module for script in ScriptDirectory.from_config(_config(service)).walk_revisions()]
    wanted = {name: sql for each in modules for name, sql in getattr(each, "CONCURRENTLY", {}).items()}
    retired = {name: table for each in (base, *modules) for name, table in getattr(each, "RETIRED", {}).items()}
    at_last = {name: table for each in modules for name, table in getattr(each, "RETIRED_AT_LAST", {}).items()}
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SELECT set_config('search_path', :service, false)"), {"service": service})
        # Not one that waits: a waiting session would itself be what the building of an index waits for.
        lock = {"name": f"payrail-indexes-{service}"}
        if not (await connection.execute(text("SELECT pg_try_advisory_lock(hashtext(:name))"), lock)).scalar():
            return  # somebody else is at it
        rows = await connection.execute(_INDEXES, {"names": [*wanted, *retired, *at_last], "service": service})
        found = {row.relname: row.indisvalid for row in rows}
        for name, sql in wanted.items():
            if found.get(name) is False:
                await connection.execute(text(f'DROP INDEX CONCURRENTLY "{name}"'))
            if not found.get(name):
                await connection.execute(text(sql))
                log.info("index_built", service=service, index=name)
        if finish:
            retired |= at_last
        for name in retired.keys() & found.keys():
            await _drop_constraint(connection, retired[name], name)
        for name in (at_last.keys() - retired.keys()) & found.keys():
            hint = f"When none of its processes runs any more: payrail migrate {service.replace('_', '-')} --finish"
            log.info("constraint_kept_for_the_release_before", constraint=name, hint=hint)


async def _drop_constraint(connection: AsyncConnection, table: str, name: str) -> None:
    """Needs the table for itself for a moment. Whoever wants it meanwhile waits behind this, so not for long."""
    await connection.execute(text("SET lock_timeout = '100ms'"))
    for _ in range(_TRIES_TO_DROP):
        try:
            await connection.execute(text(f'ALTER TABLE "{table}" DROP CONSTRAINT IF EXISTS "{name}"'))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            await connection.execute(text("SELECT pg_sleep(0.3)"))
        else:
            log.info("constraint_dropped", table=table, constraint=name)
            return
    log.warning("constraint_kept", table=table, constraint=name, hint="The next `payrail migrate` tries again.")


_TRIES_TO_DROP = 50
_LOCK_NOT_AVAILABLE = "55P03"
_INDEXES = text(
    """
    SELECT relname, indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE relname = ANY(CAST(:names AS text[])) AND relnamespace = CAST(quote_ident(:service) AS regnamespace)
    """
)


def run_migrations(metadata: MetaData) -> None:
    """The whole of a service's ``env.py``: run on the connection that ``upgrade`` or the drift test hands over."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
