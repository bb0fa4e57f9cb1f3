"""Initial tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("response_headers", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("sealed_response", sa.LargeBinary(), nullable=True),
        sa.Column("owner_token", sa.Text(), nullable=True),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("caller", "route", "key_digest", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"], unique=False)
    op.create_table(
        "inbox_messages",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('failing', 'done', 'dead')", name=op.f("ck_inbox_messages_status_known")),
        sa.PrimaryKeyConstraint("consumer", "message_id", name=op.f("pk_inbox_messages")),
    )
    op.create_index(
        "ix_inbox_messages_dead",
        "inbox_messages",
        ["consumer"],
        unique=False,
        postgresql_where=sa.text("status = 'dead'"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "outbox_messages",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_outbox_messages")),
        sa.UniqueConstraint("message_id", name=op.f("uq_outbox_messages_message_id")),
    )
    op.create_index("ix_outbox_messages_catch_up", "outbox_messages", ["transaction_id", "position"], unique=False)
    op.create_index(
        "ix_outbox_messages_waiting",
        "outbox_messages",
        ["position"],
        unique=False,
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_index("uq_outbox_messages_subject_sequence", "outbox_messages", ["subject", "sequence"], unique=True)
    op.create_table(
        "outbox_sequences",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_outbox_sequences")),
    )
    op.create_table(
        "parked_events",
        sa.Column("parked_id", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column("trust", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("refs", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("parked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('waiting', 'ready', 'applied', 'unclaimed', 'unreadable')",
            name=op.f("ck_parked_events_status_known"),
        ),
        sa.PrimaryKeyConstraint("parked_id", name=op.f("pk_parked_events")),
        sa.UniqueConstraint("delivery_id", name=op.f("uq_parked_events_delivery_id")),
    )
    op.create_index("ix_parked_events_refs", "parked_events", ["refs"], unique=False, postgresql_using="gin")
    op.create_index(
        "ix_parked_events_unsettled",
        "parked_events",
        ["status", "parked_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('waiting', 'ready')"),
    )
    op.create_table(
        "payments",
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("capture", sa.Text(), nullable=False),
        sa.Column("tolerance_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("amount_authorized", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_captured", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_refund_pending", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_refunded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_disputed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("conflict", sa.Text(), nullable=True),
        sa.Column("gateway_reference", sa.Text(), nullable=True),
        sa.Column("duplicate_of", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("customer", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("items", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("success_url", sa.Text(), nullable=False),
        sa.Column("failure_url", sa.Text(), nullable=False),
        sa.Column("cancel_url", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("capture IN ('automatic', 'manual')", name=op.f("ck_payments_capture_known")),
        sa.CheckConstraint(
            "status <> 'captured' OR amount_captured >= amount_minor - tolerance_minor",
            name=op.f("ck_payments_captured_is_captured"),
        ),
        sa.CheckConstraint(
            "status IN ('created', 'requires_action', 'processing', 'authorized', 'partially_captured', 'captured', 'failed', 'canceled', 'expired', 'conflicted')",
            name=op.f("ck_payments_status_known"),
        ),
        sa.CheckConstraint(
            "amount_authorized >= 0 AND amount_captured >= 0 AND amount_refund_pending >= 0 AND amount_refunded >= 0 AND amount_disputed >= 0",
            name=op.f("ck_payments_totals_not_negative"),
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_payments_amount_positive")),
        sa.CheckConstraint(
            "amount_refunded + amount_refund_pending + amount_disputed <= amount_captured",
            name=op.f("ck_payments_refunds_within_captured"),
        ),
        sa.CheckConstraint("version > 0", name=op.f("ck_payments_version_positive")),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_payments")),
    )
    op.create_index("ix_payments_gateway_reference", "payments", ["gateway", "gateway_reference"], unique=False)
    op.create_index(
        "ix_payments_not_final",
        "payments",
        ["payment_id"],
        unique=False,
        postgresql_where=sa.text(
            "status IN ('created', 'requires_action', 'processing', 'authorized', 'partially_captured')"
        ),
    )
    op.create_index("ix_payments_order_id", "payments", ["order_id"], unique=False)
    op.create_table(
        "payment_attempts",
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("session_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=True),
        sa.Column("next_action", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status <> 'open' OR gateway_reference IS NOT NULL", name=op.f("ck_payment_attempts_open_has_reference")
        ),
        sa.CheckConstraint(
            "status IN ('created', 'sending', 'open', 'unknown', 'rejected')",
            name=op.f("ck_payment_attempts_status_known"),
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.payment_id"], name=op.f("fk_payment_attempts_payment_id")),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_payment_attempts")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_payment_attempts_idempotency_key")),
        sa.UniqueConstraint("reference", name=op.f("uq_payment_attempts_reference")),
    )
    op.create_index("ix_payment_attempts_payment_id", "payment_attempts", ["payment_id", "number"], unique=False)
    op.create_table(
        "payment_facts",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("natural_key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("object_reference", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("learnt_by", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('session_opened', 'processing', 'declined', 'authorized', 'captured', 'failed', 'canceled', 'expired')",
            name=op.f("ck_payment_facts_kind_known"),
        ),
        sa.CheckConstraint(
            "source IN ('api', 'webhook', 'return', 'sweep', 'operator')", name=op.f("ck_payment_facts_source_known")
        ),
        sa.CheckConstraint(
            "(amount_minor IS NULL) = (currency IS NULL)", name=op.f("ck_payment_facts_amount_has_currency")
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.payment_id"], name=op.f("fk_payment_facts_payment_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_payment_facts")),
    )
    op.create_index("uq_payment_facts_natural_key", "payment_facts", ["payment_id", "natural_key"], unique=True)
    op.create_table(
        "payment_references",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.payment_id"], name=op.f("fk_payment_references_payment_id")),
        sa.PrimaryKeyConstraint("gateway", "reference", name=op.f("pk_payment_references")),
    )
    op.create_index("ix_payment_references_payment_id", "payment_references", ["payment_id", "position"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_payment_references_payment_id", table_name="payment_references")
    op.drop_table("payment_references")
    op.drop_index("uq_payment_facts_natural_key", table_name="payment_facts")
    op.drop_table("payment_facts")
    op.drop_index("ix_payment_attempts_payment_id", table_name="payment_attempts")
    op.drop_table("payment_attempts")
    op.drop_index("ix_payments_order_id", table_name="payments")
    op.drop_index(
        "ix_payments_not_final",
        table_name="payments",
        postgresql_where=sa.text(
            "status IN ('created', 'requires_action', 'processing', 'authorized', 'partially_captured')"
        ),
    )
    op.drop_index("ix_payments_gateway_reference", table_name="payments")
    op.drop_table("payments")
    op.drop_index(
        "ix_parked_events_unsettled",
        table_name="parked_events",
        postgresql_where=sa.text("status IN ('waiting', 'ready')"),
    )
    op.drop_index("ix_parked_events_refs", table_name="parked_events", postgresql_using="gin")
    op.drop_table("parked_events")
    op.drop_table("outbox_sequences")
    op.drop_index("uq_outbox_messages_subject_sequence", table_name="outbox_messages")
    op.drop_index(
        "ix_outbox_messages_waiting", table_name="outbox_messages", postgresql_where=sa.text("published_at IS NULL")
    )
    op.drop_index("ix_outbox_messages_catch_up", table_name="outbox_messages")
    op.drop_table("outbox_messages")
    op.drop_table("leases")
    op.drop_index("ix_inbox_messages_dead", table_name="inbox_messages", postgresql_where=sa.text("status = 'dead'"))
    op.drop_table("inbox_messages")
    op.drop_index("ix_idempotency_keys_expires_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
