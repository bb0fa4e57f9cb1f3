"""Settlements in the ledger, cases in the timeline, indexes for the exports, how a shopper means to pay.

Adds and relaxes only; old code keeps working on the new schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Each CHECK of a list is made anew with what has been added to it; no row that was legal before becomes illegal.
ENTRY_KINDS = ("request", "gateway_call", "fact", "status", "operation", "dispute", "event", "decision")
ACCOUNTS = (
    "authorizations_held",
    "authorizations_due",
    "gateway_receivable",
    "customer_payments",
    "refunds_pending",
    "disputes_withheld",
    "dispute_losses",
    "returned_in_excess",
    "gateway_fees",
)
NEW_ACCOUNTS = ("gateway_fee_taxes", "reserves_held", "settlement_adjustments", "currency_conversion")
OF_PAYMENT_OR_SETTLEMENT = (
    "(payment_id IS NULL) = (payment_version IS NULL) AND (payment_id IS NULL) = (source_key IS NOT NULL)"
)


def upgrade() -> None:
    op.add_column("payments", sa.Column("method", sa.Text(), nullable=True))
    op.add_column("ledger_entries", sa.Column("source_key", sa.Text(), nullable=True))
    op.alter_column("ledger_entries", "payment_id", existing_type=sa.Text(), nullable=True)
    op.alter_column("ledger_entries", "payment_version", existing_type=sa.Integer(), nullable=True)
    op.create_unique_constraint(op.f("uq_ledger_entries_source_key"), "ledger_entries", ["source_key"])
    op.create_check_constraint(
        op.f("ck_ledger_entries_of_payment_or_settlement"), "ledger_entries", OF_PAYMENT_OR_SETTLEMENT
    )
    _replace_list("payment_timeline", "kind", (*ENTRY_KINDS, "case"))
    _replace_list("ledger_postings", "account", (*ACCOUNTS, *NEW_ACCOUNTS, "payouts"))
    op.create_index("ix_payments_updated_at", "payments", ["updated_at", "payment_id"], unique=False)
    op.create_index(
        "ix_parked_events_for_a_person",
        "parked_events",
        ["received_at", "parked_id"],
        unique=False,
        postgresql_where=sa.text("status IN ('unclaimed', 'unreadable')"),
    )


def downgrade() -> None:
    """Fails where a settlement or a case has been written: the older release could not read them."""
    op.drop_index(
        "ix_parked_events_for_a_person",
        table_name="parked_events",
        postgresql_where=sa.text("status IN ('unclaimed', 'unreadable')"),
    )
    op.drop_index("ix_payments_updated_at", table_name="payments")
    op.drop_column("payments", "method")
    _replace_list("ledger_postings", "account", (*ACCOUNTS, "payouts"))
    _replace_list("payment_timeline", "kind", ENTRY_KINDS)
    op.drop_constraint(op.f("ck_ledger_entries_of_payment_or_settlement"), "ledger_entries", type_="check")
    op.drop_constraint(op.f("uq_ledger_entries_source_key"), "ledger_entries", type_="unique")
    op.alter_column("ledger_entries", "payment_version", existing_type=sa.Integer(), nullable=False)
    op.alter_column("ledger_entries", "payment_id", existing_type=sa.Text(), nullable=False)
    op.drop_column("ledger_entries", "source_key")


def _replace_list(table: str, column: str, values: tuple[str, ...]) -> None:
    name = f"ck_{table}_{column}_known"
    listed = ", ".join(f"'{value}'" for value in values)
    op.drop_constraint(op.f(name), table, type_="check")
    op.create_check_constraint(op.f(name), table, f"{column} IN ({listed})")
