"""Alembic's environment of payment_service."""

from services.payment_service.db.tables import metadata
from shared.db.migrations import run_migrations

run_migrations(metadata)
