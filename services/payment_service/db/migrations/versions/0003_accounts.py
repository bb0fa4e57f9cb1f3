"""accounts"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payments", sa.Column("account", sa.Text(), nullable=True))
    op.add_column("payment_references", sa.Column("account", sa.Text(), server_default="", nullable=False))
    op.drop_constraint(op.f("pk_payment_references"), "payment_references", type_="primary")
    op.create_primary_key(op.f("pk_payment_references"), "payment_references", ["gateway", "account", "reference"])


def downgrade() -> None:
    op.drop_constraint(op.f("pk_payment_references"), "payment_references", type_="primary")
    op.create_primary_key(op.f("pk_payment_references"), "payment_references", ["gateway", "reference"])
    op.drop_column("payment_references", "account")
    op.drop_column("payments", "account")
