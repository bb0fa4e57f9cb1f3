from services.webhook_ingest.db.tables import metadata
from shared.db.migrations import run_migrations

run_migrations(metadata)
