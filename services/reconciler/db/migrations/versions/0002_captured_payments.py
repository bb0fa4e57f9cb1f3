"""What has moved and what is under way, so that captured payments are asked about too.

Adds only; old code keeps working on the new schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = "watched_payments"
TOTALS = (
    "amount_authorized",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_dispute_lost",
)


def upgrade() -> None:
    for name in TOTALS:
        op.add_column(TABLE, sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(TABLE, sa.Column("outcome_unknown", sa.Boolean(), server_default="false", nullable=False))
    op.add_column(TABLE, sa.Column("capture_before", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f(f"ck_{TABLE}_totals_not_negative"), TABLE, " AND ".join(f"{name} >= 0" for name in TOTALS)
    )
    # Captured payments were dropped at once until now. Their first look brings their totals; it is spread over an hour.
    op.execute(
        """
        UPDATE watched_payments SET next_check_at = now() + random() * interval '1 hour'
        WHERE status = 'captured' AND next_check_at IS NULL AND status_since > now() - interval '120 days'
        """
    )


def downgrade() -> None:
    op.execute("UPDATE watched_payments SET next_check_at = NULL, asked_by_run = NULL WHERE status = 'captured'")
    op.drop_constraint(op.f(f"ck_{TABLE}_totals_not_negative"), TABLE, type_="check")
    op.drop_column(TABLE, "capture_before")
    op.drop_column(TABLE, "outcome_unknown")
    for name in reversed(TOTALS):
        op.drop_column(TABLE, name)
