"""opened bodies"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhook_deliveries", sa.Column("opened_type", sa.Text(), nullable=True))
    op.add_column("webhook_deliveries", sa.Column("opened_body", sa.LargeBinary(), nullable=True))
    op.create_check_constraint(
        op.f("ck_webhook_deliveries_opened_has_type"),
        "webhook_deliveries",
        "(opened_type IS NULL) = (opened_body IS NULL)",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_webhook_deliveries_opened_has_type"), "webhook_deliveries", type_="check")
    op.drop_column("webhook_deliveries", "opened_body")
    op.drop_column("webhook_deliveries", "opened_type")
