"""What payment_service forgets: parked events. Payments, facts, operations, ledger and timeline are books, and stay."""

from __future__ import annotations

from datetime import timedelta

from services.payment_service.settings import PaymentSettings
from shared.db.pruning import Walk


def walks(settings: PaymentSettings) -> list[Walk]:
    """What was applied has left its facts. What nobody claimed is a case for a person, who has much longer."""
    return [
        Walk(
            name="parked_events",
            table="parked_events",
            where="status = 'applied'",
            key=(("parked_at", "timestamptz"), ("parked_id", "text")),
            at="parked_at",
            due="status = 'applied' AND parked_at < :before",
            keep=timedelta(days=settings.parked_retention_days),
        ),
        Walk(
            name="parked_events_unclaimed",
            table="parked_events",
            where="status IN ('unclaimed', 'unreadable')",
            key=(("received_at", "timestamptz"), ("parked_id", "text")),
            at="received_at",
            due="status IN ('unclaimed', 'unreadable') AND received_at < :before",
            keep=timedelta(days=settings.unclaimed_retention_days),
            by_database_clock=False,
        ),
    ]
