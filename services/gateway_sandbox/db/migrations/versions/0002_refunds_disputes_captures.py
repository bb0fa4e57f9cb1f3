"""Refunds that are pending or fail, disputes, captures, holds that lapse, every id of a payment, recurring faults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "captures",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("capture_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("is_final", sa.Boolean(), nullable=False),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('pending', 'succeeded', 'failed')", name=op.f("ck_captures_status_known")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_captures_amount")),
        sa.PrimaryKeyConstraint("gateway", "capture_id", name=op.f("pk_captures")),
    )
    op.create_index("ix_captures_gateway_gateway_reference", "captures", ["gateway", "gateway_reference"], unique=False)
    op.create_table(
        "disputes",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("dispute_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('open', 'won', 'lost')", name=op.f("ck_disputes_status_known")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_disputes_amount")),
        sa.PrimaryKeyConstraint("gateway", "dispute_id", name=op.f("pk_disputes")),
    )
    op.create_index("ix_disputes_gateway_gateway_reference", "disputes", ["gateway", "gateway_reference"], unique=False)
    op.create_table(
        "entry_aliases",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "alias", name=op.f("pk_entry_aliases")),
    )
    op.add_column("faults", sa.Column("passed", sa.Integer(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("hold_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_payments_held_hold_expires_at",
        "payments",
        ["hold_expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'authorized'"),
    )
    op.add_column("refunds", sa.Column("idempotency_key", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_refunds_status_known"), "refunds", "status IN ('pending', 'succeeded', 'failed', 'reversed')"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_refunds_status_known"), "refunds", type_="check")
    op.drop_column("refunds", "idempotency_key")
    op.drop_index(
        "ix_payments_held_hold_expires_at", table_name="payments", postgresql_where=sa.text("status = 'authorized'")
    )
    op.drop_column("payments", "hold_expires_at")
    op.drop_column("faults", "passed")
    op.drop_table("entry_aliases")
    op.drop_table("disputes")
    op.drop_table("captures")
