"""Alembic's environment of the reconciler."""

from services.reconciler.db.tables import metadata
from shared.db.migrations import run_migrations

run_migrations(metadata)
