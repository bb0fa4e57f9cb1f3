"""Alembic's entry; see shared.db.migrations."""

from services.order_service.db.tables import metadata
from shared.db.migrations import run_migrations

run_migrations(metadata)
