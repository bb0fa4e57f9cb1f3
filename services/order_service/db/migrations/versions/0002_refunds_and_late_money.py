"""Refunds and their mails, reopened orders, and what was decided about late and second payments.

Only adds and widens: code of before goes on working on the new schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_refunds_and_late_money"
down_revision = "0001_initial"
branch_labels = None
depends_on = None

BEFORE = {
    ("notifications", "kind_known"): "kind IN ('order_paid')",
    ("orders", "status_follows_facts"): (
        "status = coalesce(closed_as, CASE WHEN confirmed_by IS NULL THEN 'open' ELSE 'confirmed' END)"
        " AND (closed_as IS NULL OR confirmed_by IS NULL)"
    ),
    ("stock_reservations", "status_known"): "status IN ('reserved', 'deducted', 'released')",
}
AFTER = {
    ("notifications", "kind_known"): "kind IN ('order_paid', 'refund_succeeded')",
    ("orders", "status_follows_facts"): (
        "status = CASE WHEN confirmed_by IS NULL THEN coalesce(closed_as, 'open') ELSE 'confirmed' END"
        " AND (closed_as IS NULL OR confirmed_by IS NOT DISTINCT FROM reopened_by)"
        " AND (closed_as IS NOT NULL OR reopened_by IS NULL)"
    ),
    ("stock_reservations", "status_known"): "status IN ('reserved', 'deducted', 'released', 'restored')",
}


def upgrade() -> None:
    op.create_table(
        "refunds",
        sa.Column("refund_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'submitted', 'unknown', 'succeeded', 'failed', 'canceled', 'reversed')",
            name=op.f("ck_refunds_status_known"),
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_refunds_order_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["order_payments.payment_id"], name=op.f("fk_refunds_payment_id")),
        sa.PrimaryKeyConstraint("refund_id", name=op.f("pk_refunds")),
    )
    op.create_index("ix_refunds_order_id", "refunds", ["order_id", "refund_id"], unique=False)
    op.add_column("order_payments", sa.Column("amount_excess", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("order_payments", sa.Column("resolution", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_order_payments_resolution_known"),
        "order_payments",
        "resolution IN ('fulfilled', 'release_requested', 'refund_requested', 'refund_failed')",
    )
    _add_what_was_asked()
    op.add_column("orders", sa.Column("reopened_by", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("refunded_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_orders_refunded_was_confirmed"), "orders", "refunded_at IS NULL OR confirmed_by IS NOT NULL"
    )
    op.add_column("notifications", sa.Column("reference", sa.Text(), server_default="", nullable=False))
    _set_notification_key("order_id", "kind", "reference")
    _set_checks(AFTER)


def downgrade() -> None:
    """Refused by the CHECKs of before where an order was reopened, restored or refunded meanwhile."""
    _set_checks(BEFORE)
    _set_notification_key("order_id", "kind")
    op.drop_column("notifications", "reference")
    op.drop_constraint(op.f("ck_orders_refunded_was_confirmed"), "orders")
    op.drop_column("orders", "refunded_at")
    op.drop_column("orders", "reopened_by")
    _drop_what_was_asked()
    op.drop_constraint(op.f("ck_order_payments_resolution_known"), "order_payments")
    op.drop_column("order_payments", "resolution")
    op.drop_column("order_payments", "amount_excess")
    op.drop_index("ix_refunds_order_id", table_name="refunds")
    op.drop_table("refunds")


def _add_what_was_asked() -> None:
    op.add_column("order_payments", sa.Column("asked_number", sa.Integer(), nullable=True))
    op.add_column("order_payments", sa.Column("asked_attempt", sa.Integer(), nullable=True))
    op.add_column("order_payments", sa.Column("asked_captured", sa.BigInteger(), nullable=True))
    op.add_column("order_payments", sa.Column("ask_again_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_order_payments_asked_is_known"),
        "order_payments",
        "num_nonnulls(asked_number, asked_attempt, asked_captured, ask_again_at)"
        " = CASE WHEN resolution IN ('refund_requested', 'refund_failed') THEN 4 ELSE 0 END",
    )
    op.create_index(
        "ix_order_payments_still_there",
        "order_payments",
        ["ask_again_at"],
        unique=False,
        postgresql_where=sa.text(
            "resolution = 'refund_requested' AND amount_refund_pending = 0"
            " AND amount_captured - amount_refunded - amount_disputed > 0"
        ),
    )


def _drop_what_was_asked() -> None:
    op.drop_index("ix_order_payments_still_there", table_name="order_payments")
    op.drop_constraint(op.f("ck_order_payments_asked_is_known"), "order_payments")
    for column in ("ask_again_at", "asked_captured", "asked_attempt", "asked_number"):
        op.drop_column("order_payments", column)


def _set_notification_key(*columns: str) -> None:
    op.drop_constraint(op.f("pk_notifications"), "notifications")
    op.create_primary_key(op.f("pk_notifications"), "notifications", list(columns))


def _set_checks(checks: dict[tuple[str, str], str]) -> None:
    for (table, name), condition in checks.items():
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
