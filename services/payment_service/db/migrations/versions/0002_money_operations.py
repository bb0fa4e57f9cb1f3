"""Money operations, disputes, the timeline, the ledger and the circuit breakers.

Adds only; old code keeps working on the new schema. The kinds and sources of facts grow.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PAYMENT_CHECKS = {
    "more_totals_not_negative": "amount_excess >= 0 AND amount_capture_pending >= 0",
    "captures_within_authorized": "amount_captured + amount_capture_pending <= amount_authorized",
    "lost_within_disputed": "amount_dispute_lost >= 0 AND amount_dispute_lost <= amount_disputed",
}
BEFORE = {
    "kind": "('session_opened', 'processing', 'declined', 'authorized', 'captured', 'failed', 'canceled', 'expired')",
    "source": "('api', 'webhook', 'return', 'sweep', 'operator')",
}
GROWN = {
    "kind": "('session_opened', 'processing', 'declined', 'approved', 'authorized', 'captured', 'capture_reversed', 'released', 'failed', 'canceled', 'expired', 'refund_pending', 'refund_succeeded', 'refund_failed', 'refund_reversed', 'dispute_opened', 'dispute_won', 'dispute_lost', 'operation_pending', 'operation_succeeded', 'operation_failed', 'operation_refused')",
    "source": "('api', 'webhook', 'return', 'sweep', 'operator', 'resolver')",
}
APPEND_ONLY_TABLES = ("payment_facts", "payment_timeline", "ledger_entries", "ledger_postings")
APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or deleted', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
ZERO_SUM = """
CREATE FUNCTION require_zero_sum() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM ledger_postings WHERE entry_id = NEW.entry_id
               GROUP BY currency HAVING sum(amount_minor) <> 0) THEN
        RAISE EXCEPTION 'ledger entry % does not sum to zero', NEW.entry_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$
"""
ZERO_SUM_TRIGGER = """
CREATE CONSTRAINT TRIGGER zero_sum AFTER INSERT ON ledger_postings DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION require_zero_sum()
"""
# What payments had collected before there was a ledger. The same as domain.ledger.postings, as it was at this revision.
OPENING_BALANCES = """
WITH opened AS (
    INSERT INTO ledger_entries (payment_id, payment_version, cause, at)
    SELECT payment_id, version, 'opening', updated_at FROM payments
    WHERE amount_authorized > 0 OR amount_captured > 0 ORDER BY payment_id
    RETURNING entry_id, payment_id)
INSERT INTO ledger_postings (entry_id, line, account, gateway, currency, amount_minor)
SELECT opened.entry_id, row_number() OVER (PARTITION BY opened.entry_id), line.account, p.gateway, p.currency, line.amount
FROM opened JOIN payments p USING (payment_id) CROSS JOIN LATERAL (VALUES
    ('authorizations_held', greatest(0, p.amount_authorized - p.amount_captured)),
    ('authorizations_due', -greatest(0, p.amount_authorized - p.amount_captured)),
    ('gateway_receivable', p.amount_captured - p.amount_refunded - p.amount_disputed),
    ('customer_payments', p.amount_refunded + p.amount_refund_pending - p.amount_captured),
    ('refunds_pending', -p.amount_refund_pending),
    ('disputes_withheld', p.amount_disputed)
) AS line(account, amount)
WHERE line.amount <> 0
"""


def upgrade() -> None:
    op.create_table(
        "gateway_breakers",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("operation_class", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("openings", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("probe_token", sa.Text(), nullable=True),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "operation_class IN ('session', 'read', 'money')", name=op.f("ck_gateway_breakers_operation_class_known")
        ),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name=op.f("ck_gateway_breakers_state_known")),
        sa.PrimaryKeyConstraint("gateway", "operation_class", name=op.f("pk_gateway_breakers")),
    )
    op.create_table(
        "disputes",
        sa.Column("dispute_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('open', 'won', 'lost')", name=op.f("ck_disputes_status_known")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.payment_id"], name=op.f("fk_disputes_payment_id")),
        sa.PrimaryKeyConstraint("dispute_id", name=op.f("pk_disputes")),
    )
    op.create_index("uq_disputes_gateway_reference", "disputes", ["payment_id", "gateway_reference"], unique=True)
    op.create_table(
        "ledger_entries",
        sa.Column("entry_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("payment_version", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.payment_id"], name=op.f("fk_ledger_entries_payment_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_ledger_entries")),
    )
    op.create_index("ix_ledger_entries_payment_id", "ledger_entries", ["payment_id", "entry_id"], unique=False)
    op.create_table(
        "operations",
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("is_whole", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_final", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("merchant_reference", sa.Text(), nullable=True),
        sa.Column("request_key", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("key_number", sa.Integer(), server_default="1", nullable=False),
        sa.Column("calls", sa.Integer(), server_default="0", nullable=False),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("escalated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "call IN ('unsent', 'sent', 'unanswered', 'answered', 'withdrawn')", name=op.f("ck_operations_call_known")
        ),
        sa.CheckConstraint(
            "kind IN ('capture', 'void', 'refund', 'completion')", name=op.f("ck_operations_kind_known")
        ),
        sa.CheckConstraint("origin IN ('api', 'policy', 'gateway')", name=op.f("ck_operations_origin_known")),
        sa.CheckConstraint(
            "status IN ('pending', 'submitted', 'unknown', 'succeeded', 'failed', 'canceled', 'reversed')",
            name=op.f("ck_operations_status_known"),
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_operations_operation_amount_positive")),
        sa.CheckConstraint("key_number > 0 AND calls >= 0 AND looks >= 0", name=op.f("ck_operations_operation_counts")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.payment_id"], name=op.f("fk_operations_payment_id")),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_operations")),
        sa.UniqueConstraint("reference", name=op.f("uq_operations_reference")),
    )
    op.create_index(
        "ix_operations_due",
        "operations",
        ["next_look_at"],
        unique=False,
        postgresql_where=sa.text("next_look_at IS NOT NULL"),
    )
    op.create_index("ix_operations_payment_id", "operations", ["payment_id", "operation_id"], unique=False)
    op.create_index(
        "uq_operations_merchant_reference", "operations", ["payment_id", "kind", "merchant_reference"], unique=True
    )
    op.create_index("uq_operations_request_key", "operations", ["payment_id", "kind", "request_key"], unique=True)
    op.create_table(
        "payment_timeline",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.CheckConstraint(
            "kind IN ('request', 'gateway_call', 'fact', 'status', 'operation', 'dispute', 'event', 'decision')",
            name=op.f("ck_payment_timeline_kind_known"),
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.payment_id"], name=op.f("fk_payment_timeline_payment_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_payment_timeline")),
    )
    op.create_index("ix_payment_timeline_payment_id", "payment_timeline", ["payment_id", "position"], unique=False)
    op.create_table(
        "ledger_postings",
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "account IN ('authorizations_held', 'authorizations_due', 'gateway_receivable', 'customer_payments', 'refunds_pending', 'disputes_withheld', 'dispute_losses', 'returned_in_excess', 'gateway_fees', 'payouts')",
            name=op.f("ck_ledger_postings_account_known"),
        ),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("ck_ledger_postings_posting_not_zero")),
        sa.ForeignKeyConstraint(["entry_id"], ["ledger_entries.entry_id"], name=op.f("fk_ledger_postings_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", "line", name=op.f("pk_ledger_postings")),
    )
    op.create_index("ix_ledger_postings_account", "ledger_postings", ["account", "gateway", "currency"], unique=False)
    op.add_column("payment_facts", sa.Column("about", sa.Text(), nullable=True))
    op.add_column("payment_facts", sa.Column("operation", sa.Text(), nullable=True))
    op.add_column("payment_facts", sa.Column("capture_before", sa.DateTime(timezone=True), nullable=True))
    op.add_column("payments", sa.Column("amount_capture_pending", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("amount_dispute_lost", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("amount_excess", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "payments", sa.Column("has_unknown_operation", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column(
        "payments", sa.Column("session_unknown", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("payments", sa.Column("authorization_valid_for", sa.Interval(), nullable=True))
    op.add_column("payments", sa.Column("capture_before", sa.DateTime(timezone=True), nullable=True))
    op.add_column("payments", sa.Column("capture_warned_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("payments", sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_payments_capture_before",
        "payments",
        ["capture_before"],
        unique=False,
        postgresql_where=sa.text("status IN ('authorized', 'partially_captured')"),
    )

    for name, condition in PAYMENT_CHECKS.items():
        op.create_check_constraint(op.f(f"ck_payments_{name}"), "payments", condition)
    for column, values in GROWN.items():
        op.drop_constraint(op.f(f"ck_payment_facts_{column}_known"), "payment_facts", type_="check")
        op.create_check_constraint(op.f(f"ck_payment_facts_{column}_known"), "payment_facts", f"{column} IN {values}")
    op.execute(ZERO_SUM)
    op.execute(ZERO_SUM_TRIGGER)
    op.execute(APPEND_ONLY)
    for table in APPEND_ONLY_TABLES:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    op.execute(OPENING_BALANCES)
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a later revision in this transaction may change these tables


def downgrade() -> None:
    for table in APPEND_ONLY_TABLES:
        op.execute(f"DROP TRIGGER append_only ON {table}")
    op.execute("DROP TRIGGER zero_sum ON ledger_postings")
    op.execute("DROP FUNCTION refuse_change()")
    op.execute("DROP FUNCTION require_zero_sum()")
    for column, values in BEFORE.items():
        op.drop_constraint(op.f(f"ck_payment_facts_{column}_known"), "payment_facts", type_="check")
        op.create_check_constraint(op.f(f"ck_payment_facts_{column}_known"), "payment_facts", f"{column} IN {values}")
    for name in PAYMENT_CHECKS:
        op.drop_constraint(op.f(f"ck_payments_{name}"), "payments", type_="check")
    op.drop_index(
        "ix_payments_capture_before",
        table_name="payments",
        postgresql_where=sa.text("status IN ('authorized', 'partially_captured')"),
    )
    op.drop_column("payments", "given_up_at")
    op.drop_column("payments", "capture_warned_at")
    op.drop_column("payments", "capture_before")
    op.drop_column("payments", "authorization_valid_for")
    op.drop_column("payments", "session_unknown")
    op.drop_column("payments", "has_unknown_operation")
    op.drop_column("payments", "amount_excess")
    op.drop_column("payments", "amount_dispute_lost")
    op.drop_column("payments", "amount_capture_pending")
    op.drop_column("payment_facts", "capture_before")
    op.drop_column("payment_facts", "operation")
    op.drop_column("payment_facts", "about")
    op.drop_index("ix_ledger_postings_account", table_name="ledger_postings")
    op.drop_table("ledger_postings")
    op.drop_index("ix_payment_timeline_payment_id", table_name="payment_timeline")
    op.drop_table("payment_timeline")
    op.drop_index("uq_operations_request_key", table_name="operations")
    op.drop_index("uq_operations_merchant_reference", table_name="operations")
    op.drop_index("ix_operations_payment_id", table_name="operations")
    op.drop_index("ix_operations_due", table_name="operations", postgresql_where=sa.text("next_look_at IS NOT NULL"))
    op.drop_table("operations")
    op.drop_index("ix_ledger_entries_payment_id", table_name="ledger_entries")
    op.drop_table("ledger_entries")
    op.drop_index("uq_disputes_gateway_reference", table_name="disputes")
    op.drop_table("disputes")
    op.drop_table("gateway_breakers")
