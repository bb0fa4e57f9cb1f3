"""What the reconciler forgets: payments dropped long ago, and runs that ended long ago. Files, lines, payouts and cases
are evidence, and stay."""

from __future__ import annotations

from datetime import timedelta

from services.reconciler.settings import ReconcilerSettings
from shared.db.pruning import Walk

_DROPPED_AT = "GREATEST(status_since, last_checked_at)"


def walks(settings: ReconcilerSettings) -> list[Walk]:
    """A dropped payment is kept this long only so that an old event, arriving late, is recognised as old. Later than
    that it would be watched again, asked about once, and dropped again."""
    keep = timedelta(days=settings.reconciler_keep_days)
    return [
        Walk(
            name="watched_payments",
            table="watched_payments",
            where="next_check_at IS NULL",
            key=((_DROPPED_AT, "timestamptz"), ("payment_id", "text")),
            at=_DROPPED_AT,
            due=f"next_check_at IS NULL AND {_DROPPED_AT} < :before",
            keep=keep,
            by_database_clock=False,
        ),
        Walk(
            name="reconciliation_runs",
            table="reconciliation_runs",
            key=(("run_id", "text"),),
            at="started_at",
            due="finished_at < :before",
            keep=keep,
            by_database_clock=False,
        ),
    ]
