"""What webhook_ingest forgets, and what it never does: the key by which a repeated delivery is recognised (SEC-42)."""

from __future__ import annotations

from datetime import timedelta

from services.webhook_ingest.settings import WebhookIngestSettings
from shared.db.pruning import Walk


def walks(settings: WebhookIngestSettings) -> list[Walk]:
    return [
        Walk(
            name="webhook_deliveries",
            table="webhook_deliveries",
            key=(("received_at", "timestamptz"), ("id", "text")),
            at="received_at",
            # Its event is made of these contents, at the earliest when it is published.
            due="""
                forgotten_at IS NULL AND received_at < :before AND NOT EXISTS (
                    SELECT FROM outbox_messages AS event
                    WHERE event.subject = webhook_deliveries.id AND event.published_at IS NULL)
            """,
            keep=timedelta(days=settings.webhook_retention_days),
            assign="""
                forgotten_at = now(), query = '', headers = '[]', body = '', remote_address = '', request_id = NULL,
                opened_type = NULL, opened_body = NULL, traceparent = NULL
            """,
            gone="forgotten_at IS NOT NULL",
            by_database_clock=False,
        ),
        Walk(
            name="webhook_rejects",
            table="webhook_rejects",
            # A ring of a bounded number of rows: sorting them needs no index.
            key=(("received_at", "timestamptz"), ("gateway", "text"), ("slot", "integer")),
            at="received_at",
            due="received_at < :before",
            keep=timedelta(days=settings.webhook_reject_retention_days),
            by_database_clock=False,
        ),
    ]
