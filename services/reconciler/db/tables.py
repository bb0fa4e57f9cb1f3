"""The tables of the reconciler."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, Table, Text, text

from services.reconciler.domain.models import RunStatus
from services.reconciler.domain.schedule import PaymentStatus
from shared.db.base import currency, metadata_for, one_of, timestamp

metadata = metadata_for("reconciler")


def _values(enum: type[StrEnum]) -> tuple[str, ...]:
    return tuple(member.value for member in enum)


TOTALS = (
    "amount_authorized",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_dispute_lost",
)

watched_payments = Table(
    "watched_payments",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    timestamp("payment_created_at"),
    timestamp("status_since"),  # or since its money last moved: the plan begins there
    timestamp("first_seen_at"),
    timestamp("next_check_at", nullable=True),  # NULL: dropped, kept only so that old news are recognised
    Column("checks", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    timestamp("last_checked_at", nullable=True),
    Column("last_error", Text),
    Column("asked_by_run", Text),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in TOTALS),
    Column("outcome_unknown", Boolean, nullable=False, server_default="false"),
    timestamp("capture_before", nullable=True),
    one_of("status", _values(PaymentStatus)),
    CheckConstraint(" AND ".join(f"{name} >= 0" for name in TOTALS), name="totals_not_negative"),
    CheckConstraint("version > 0", name="version_positive"),
    CheckConstraint("amount_minor >= 0", name="amount_not_negative"),
    CheckConstraint("checks >= 0 AND failures >= 0", name="counts_not_negative"),
    CheckConstraint("asked_by_run IS NULL OR next_check_at IS NOT NULL", name="asked_is_watched"),
    Index("ix_watched_payments_next_check_at", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
    Index("ix_watched_payments_asked_by_run", "asked_by_run", postgresql_where=text("asked_by_run IS NOT NULL")),
)

reconciliation_runs = Table(
    "reconciliation_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("gateway", Text),
    Column("status", Text, nullable=False),
    timestamp("started_at"),
    timestamp("finished_at", nullable=True),
    timestamp("window_from", nullable=True),
    timestamp("window_to", nullable=True),
    Column("matched", BigInteger, nullable=False, server_default="0"),
    Column("checked", BigInteger, nullable=False, server_default="0"),
    Column("changed", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    Column("asked_by", Text),  # who asked for it; NULL: the schedule
    Column("holder", Text),
    one_of("kind", ("sweep", "settlement", "orders")),
    one_of("status", _values(RunStatus)),
    CheckConstraint("matched >= 0 AND checked >= 0 AND changed >= 0 AND failed >= 0", name="counts_not_negative"),
    CheckConstraint("changed <= checked", name="changed_were_checked"),
    CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="ended_has_end"),
    CheckConstraint("window_from < window_to", name="window_forward"),
    Index("ix_reconciliation_runs_running", "run_id", postgresql_where=text("status = 'running'")),
)

gateway_pauses = Table(
    "gateway_pauses",
    metadata,
    Column("gateway", Text, primary_key=True),
    timestamp("paused_until"),
    Column("in_a_row", Integer, nullable=False),
    CheckConstraint("in_a_row > 0", name="in_a_row_positive"),
)
"""A gateway that did not answer rests as a whole: its payments keep their dates and their counts of checks."""
