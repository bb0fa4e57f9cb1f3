"""Orders whose confirmation was revoked, and an index for the export of what changed.

Only adds and widens: code of before goes on working on the new schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_revoked_orders_and_export"
down_revision = "0002_refunds_and_late_money"
branch_labels = None
depends_on = None

REFUNDED_BEFORE = "refunded_at IS NULL OR confirmed_by IS NOT NULL"
REFUNDED_AFTER = "refunded_at IS NULL OR confirmed_by IS NOT NULL OR revoked_payment IS NOT NULL"
REVOKED = (
    "num_nonnulls(revoked_payment, revoked_at) IN (0, 2) AND (revoked_payment IS NULL"
    " OR (confirmed_by IS NULL AND reopened_by IS NULL AND closed_as IS NOT DISTINCT FROM 'canceled'))"
)


def upgrade() -> None:
    op.add_column("orders", sa.Column("revoked_payment", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True))
    _set_refunded_check(REFUNDED_AFTER)
    op.create_check_constraint(op.f("ck_orders_revoked_stays_canceled"), "orders", REVOKED)
    op.create_index("ix_orders_updated_at", "orders", ["updated_at", "id"], unique=False)


def downgrade() -> None:
    """Refused by the CHECK of before where an order was refunded and then revoked; a revoked one stays canceled, and
    what is captured for it late may buy it again."""
    op.drop_index("ix_orders_updated_at", table_name="orders")
    op.drop_constraint(op.f("ck_orders_revoked_stays_canceled"), "orders")
    _set_refunded_check(REFUNDED_BEFORE)
    op.drop_column("orders", "revoked_at")
    op.drop_column("orders", "revoked_payment")


def _set_refunded_check(condition: str) -> None:
    op.drop_constraint(op.f("ck_orders_refunded_was_confirmed"), "orders")
    op.create_check_constraint(op.f("ck_orders_refunded_was_confirmed"), "orders", condition)
