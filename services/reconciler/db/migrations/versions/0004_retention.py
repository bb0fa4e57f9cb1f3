"""retention

What retention remembers, and an index by which it finds payments that were dropped long ago.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CONCURRENTLY = {
    "ix_watched_payments_dropped": "CREATE INDEX CONCURRENTLY ix_watched_payments_dropped ON watched_payments (GREATEST(status_since, last_checked_at), payment_id) WHERE next_check_at IS NULL",
}
"""Built after this revision, without a lock that writers would wait for."""

OFTEN_VACUUMED = ("outbox_messages", "inbox_messages")


def upgrade() -> None:
    op.create_table(
        "retention_marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mark", sa.ARRAY(sa.Text()), nullable=True),
        sa.Column("pruned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("oldest_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_retention_marks")),
    )
    for table in OFTEN_VACUUMED:  # takes no lock that readers or writers wait for
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)"
        )


def downgrade() -> None:
    for table in OFTEN_VACUUMED:
        op.execute(f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)")
    op.drop_index("ix_watched_payments_dropped", table_name="watched_payments", if_exists=True)
    op.drop_table("retention_marks")
