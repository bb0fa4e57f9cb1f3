"""The first schema of order_service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_initial"
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
        "invoice_counters",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series", name=op.f("pk_invoice_counters")),
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
        "mailbox_messages",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text_body", sa.Text(), nullable=False),
        sa.Column("html_body", sa.Text(), nullable=False),
        sa.Column("attachment_names", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_mailbox_messages")),
        sa.UniqueConstraint("message_id", name=op.f("uq_mailbox_messages_message_id")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("payment_status", sa.Text(), nullable=False),
        sa.Column("attention", sa.Text(), nullable=True),
        sa.Column("closed_as", sa.Text(), nullable=True),
        sa.Column("confirmed_by", sa.Text(), nullable=True),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("customer_subject", sa.Text(), nullable=True),
        sa.Column("customer_email", sa.Text(), nullable=False),
        sa.Column("customer_name", sa.Text(), nullable=False),
        sa.Column("customer_phone", sa.Text(), nullable=True),
        sa.Column("shipping_address", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("billing_address", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_expiry_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expiry_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "attention IN ('amount_mismatch', 'late_payment', 'duplicate_payment', 'unknown_outcome',"
            " 'orphan_payment')",
            name=op.f("ck_orders_attention_known"),
        ),
        sa.CheckConstraint("closed_as IN ('canceled', 'expired')", name=op.f("ck_orders_closed_as_known")),
        sa.CheckConstraint(
            "payment_status IN ('unpaid', 'pending', 'authorized', 'paid', 'failed',"
            " 'partially_refunded', 'refunded', 'disputed')",
            name=op.f("ck_orders_payment_status_known"),
        ),
        sa.CheckConstraint(
            "status = coalesce(closed_as, CASE WHEN confirmed_by IS NULL THEN 'open' ELSE 'confirmed' END)"
            " AND (closed_as IS NULL OR confirmed_by IS NULL)",
            name=op.f("ck_orders_status_follows_facts"),
        ),
        sa.CheckConstraint(
            "status IN ('open', 'confirmed', 'canceled', 'expired')", name=op.f("ck_orders_status_known")
        ),
        sa.CheckConstraint("octet_length(secret_digest) = 32", name=op.f("ck_orders_secret_is_a_digest")),
        sa.CheckConstraint("total_minor BETWEEN 1 AND 1000000000000", name=op.f("ck_orders_total_in_bounds")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index(
        "ix_orders_attention", "orders", ["id"], unique=False, postgresql_where=sa.text("attention IS NOT NULL")
    )
    op.create_index(
        "ix_orders_customer_email", "orders", [sa.literal_column("lower(customer_email)"), "id"], unique=False
    )
    op.create_index(
        "ix_orders_customer_subject",
        "orders",
        ["customer_subject", "id"],
        unique=False,
        postgresql_where=sa.text("customer_subject IS NOT NULL"),
    )
    op.create_index(
        "ix_orders_due", "orders", ["next_expiry_attempt_at"], unique=False, postgresql_where=sa.text("status = 'open'")
    )
    op.create_index(
        "ix_orders_open_email",
        "orders",
        [sa.literal_column("lower(customer_email)")],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
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
        "products",
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("image_url", sa.Text(), nullable=True),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("on_hand", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reconcile_policy", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.CheckConstraint("reconcile_policy IN ('refund', 'fulfil')", name=op.f("ck_products_reconcile_policy_known")),
        sa.CheckConstraint("on_hand >= 0", name=op.f("ck_products_on_hand_not_negative")),
        sa.CheckConstraint("price_minor BETWEEN 1 AND 1000000000000", name=op.f("ck_products_price_in_bounds")),
        sa.CheckConstraint("reserved >= 0 AND reserved <= on_hand", name=op.f("ck_products_reserved_is_on_hand")),
        sa.PrimaryKeyConstraint("sku", name=op.f("pk_products")),
    )
    op.create_table(
        "invoices",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("snapshot", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("number > 0", name=op.f("ck_invoices_number_positive")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_invoices_order_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_invoices")),
        sa.UniqueConstraint("order_id", name=op.f("uq_invoices_order_id")),
    )
    op.create_table(
        "notifications",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('order_paid')", name=op.f("ck_notifications_kind_known")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_notifications_order_id")),
        sa.PrimaryKeyConstraint("order_id", "kind", name=op.f("pk_notifications")),
    )
    op.create_index(
        "ix_notifications_waiting",
        "notifications",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("sent_at IS NULL AND given_up_at IS NULL"),
    )
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("quantity BETWEEN 1 AND 1000", name=op.f("ck_order_items_quantity_in_bounds")),
        sa.CheckConstraint("unit_price_minor > 0", name=op.f("ck_order_items_unit_price_positive")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_items_order_id")),
        sa.ForeignKeyConstraint(["sku"], ["products.sku"], name=op.f("fk_order_items_sku")),
        sa.PrimaryKeyConstraint("order_id", "position", name=op.f("pk_order_items")),
        sa.UniqueConstraint("order_id", "sku", name=op.f("uq_order_items_order_id_sku")),
    )
    op.create_table(
        "order_payments",
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("amount_authorized", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_captured", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_refund_pending", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_refunded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_disputed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("outcome_unknown", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("terms", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_close_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("close_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "status IN ('created', 'requires_action', 'processing', 'authorized', 'partially_captured', 'captured',"
            " 'failed', 'canceled', 'expired', 'conflicted')",
            name=op.f("ck_order_payments_status_known"),
        ),
        sa.CheckConstraint("version >= 0", name=op.f("ck_order_payments_version_not_negative")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_payments_order_id")),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_order_payments")),
    )
    op.create_index("ix_order_payments_order_id", "order_payments", ["order_id"], unique=False)
    op.create_index(
        "ix_order_payments_leftover",
        "order_payments",
        ["next_close_attempt_at"],
        unique=False,
        postgresql_where=sa.text(
            "next_close_attempt_at IS NOT NULL AND status IN ('created', 'requires_action', 'processing')"
        ),
    )
    op.create_table(
        "stock_reservations",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reserved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'reserved') = (ended_at IS NULL)", name=op.f("ck_stock_reservations_ended_once")),
        sa.CheckConstraint(
            "status IN ('reserved', 'deducted', 'released')", name=op.f("ck_stock_reservations_status_known")
        ),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_stock_reservations_quantity_positive")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_stock_reservations_order_id")),
        sa.ForeignKeyConstraint(["sku"], ["products.sku"], name=op.f("fk_stock_reservations_sku")),
        sa.PrimaryKeyConstraint("order_id", "sku", name=op.f("pk_stock_reservations")),
    )
    op.create_table(
        "stream_tickets",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_stream_tickets_order_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_stream_tickets")),
    )
    op.create_index("ix_stream_tickets_expires_at", "stream_tickets", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_stream_tickets_expires_at", table_name="stream_tickets")
    op.drop_table("stream_tickets")
    op.drop_table("stock_reservations")
    op.drop_index("ix_order_payments_order_id", table_name="order_payments")
    op.drop_table("order_payments")
    op.drop_table("order_items")
    op.drop_index(
        "ix_notifications_waiting",
        table_name="notifications",
        postgresql_where=sa.text("sent_at IS NULL AND given_up_at IS NULL"),
    )
    op.drop_table("notifications")
    op.drop_table("invoices")
    op.drop_table("products")
    op.drop_table("outbox_sequences")
    op.drop_index("uq_outbox_messages_subject_sequence", table_name="outbox_messages")
    op.drop_index(
        "ix_outbox_messages_waiting", table_name="outbox_messages", postgresql_where=sa.text("published_at IS NULL")
    )
    op.drop_index("ix_outbox_messages_catch_up", table_name="outbox_messages")
    op.drop_table("outbox_messages")
    op.drop_index("ix_orders_open_email", table_name="orders", postgresql_where=sa.text("status = 'open'"))
    op.drop_index("ix_orders_due", table_name="orders", postgresql_where=sa.text("status = 'open'"))
    op.drop_index(
        "ix_orders_customer_subject", table_name="orders", postgresql_where=sa.text("customer_subject IS NOT NULL")
    )
    op.drop_index("ix_orders_attention", table_name="orders", postgresql_where=sa.text("attention IS NOT NULL"))
    op.drop_table("orders")
    op.drop_table("mailbox_messages")
    op.drop_table("leases")
    op.drop_table("invoice_counters")
    op.drop_index("ix_inbox_messages_dead", table_name="inbox_messages", postgresql_where=sa.text("status = 'dead'"))
    op.drop_table("inbox_messages")
    op.drop_index("ix_idempotency_keys_expires_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
