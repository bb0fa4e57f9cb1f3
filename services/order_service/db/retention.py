"""What order_service forgets: tickets that have run out. Orders, their payments, refunds and invoices are books, and
stay."""

from __future__ import annotations

from datetime import timedelta

from shared.db.pruning import Walk


def walks() -> list[Walk]:
    return [
        Walk(
            name="stream_tickets",
            table="stream_tickets",
            key=(("expires_at", "timestamptz"), ("ctid", "tid")),
            at="expires_at",
            due="expires_at < :before",
            keep=timedelta(0),
            by_database_clock=False,
        )
    ]
