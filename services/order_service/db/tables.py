"""The tables of order_service. CHECKs repeat the rules of money and stock: no code path can break them (SEC-61)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.order_service.domain.models import (
    Attention,
    OrderPaymentStatus,
    OrderStatus,
    PaymentStatus,
    ReconcilePolicy,
    RefundStatus,
    ReservationStatus,
    Resolution,
)
from shared.db.base import currency, metadata_for, one_of, timestamp
from shared.money import MAX_AMOUNT_MINOR

metadata = metadata_for("order_service")

PAYMENT_IS_CLOSABLE = text("status IN ('created', 'requires_action', 'processing')")
"""domain.transitions.CLOSABLE as the partial index has it: the planner matches the words."""

MONEY_IS_STILL_THERE = text(
    "resolution = 'refund_requested' AND amount_refund_pending = 0"
    " AND amount_captured - amount_refunded - amount_disputed > 0"
)
"""Money that was asked back and lies idle (domain.late_money), as the partial index has it."""


products = Table(
    "products",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("image_url", Text),
    Column("price_minor", BigInteger, nullable=False),
    currency(),
    Column("on_hand", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False, server_default="0"),
    Column("reconcile_policy", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
    timestamp("retired_at", nullable=True),  # orders point here, so a product is retired and never deleted (failure O9)
    Column("version", BigInteger, nullable=False, server_default="1"),
    one_of("reconcile_policy", tuple(ReconcilePolicy)),
    CheckConstraint(f"price_minor BETWEEN 1 AND {MAX_AMOUNT_MINOR}", name="price_in_bounds"),
    CheckConstraint("on_hand >= 0", name="on_hand_not_negative"),
    CheckConstraint("reserved >= 0 AND reserved <= on_hand", name="reserved_is_on_hand"),
)

orders = Table(
    "orders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("payment_status", Text, nullable=False),
    Column("attention", Text),
    Column("closed_as", Text),
    Column("reopened_by", Text),
    Column("confirmed_by", Text),
    Column("total_minor", BigInteger, nullable=False),
    currency(),
    Column("secret_digest", LargeBinary, nullable=False),
    Column("customer_subject", Text),
    Column("customer_email", Text, nullable=False),
    Column("customer_name", Text, nullable=False),
    Column("customer_phone", Text),
    Column("shipping_address", JSONB(none_as_null=True)),
    Column("billing_address", JSONB(none_as_null=True)),
    Column("metadata", JSONB, nullable=False),
    timestamp("expires_at"),
    timestamp("next_expiry_attempt_at"),
    Column("expiry_attempts", Integer, nullable=False, server_default="0"),
    timestamp("created_at"),
    timestamp("updated_at"),
    timestamp("confirmed_at", nullable=True),
    timestamp("closed_at", nullable=True),
    timestamp("refunded_at", nullable=True),
    Column("revoked_payment", Text),  # had confirmed it and was not there: the order is canceled for good
    timestamp("revoked_at", nullable=True),
    Column("version", BigInteger, nullable=False),
    one_of("status", tuple(OrderStatus)),
    one_of("payment_status", tuple(OrderPaymentStatus)),
    one_of("attention", tuple(Attention)),
    one_of("closed_as", (OrderStatus.CANCELED, OrderStatus.EXPIRED)),
    # The same rule as domain.transitions.derive: confirmed and closed say what the status is, and exclude each other
    # but for an order that was reopened by the payment that confirmed it.
    CheckConstraint(
        "status = CASE WHEN confirmed_by IS NULL THEN coalesce(closed_as, 'open') ELSE 'confirmed' END"
        " AND (closed_as IS NULL OR confirmed_by IS NOT DISTINCT FROM reopened_by)"
        " AND (closed_as IS NOT NULL OR reopened_by IS NULL)",
        name="status_follows_facts",
    ),
    CheckConstraint(
        "refunded_at IS NULL OR confirmed_by IS NOT NULL OR revoked_payment IS NOT NULL", name="refunded_was_confirmed"
    ),
    CheckConstraint(
        "num_nonnulls(revoked_payment, revoked_at) IN (0, 2) AND (revoked_payment IS NULL"
        " OR (confirmed_by IS NULL AND reopened_by IS NULL AND closed_as IS NOT DISTINCT FROM 'canceled'))",
        name="revoked_stays_canceled",
    ),
    CheckConstraint(f"total_minor BETWEEN 1 AND {MAX_AMOUNT_MINOR}", name="total_in_bounds"),
    CheckConstraint("octet_length(secret_digest) = 32", name="secret_is_a_digest"),
    Index("ix_orders_due", "next_expiry_attempt_at", postgresql_where=text("status = 'open'")),
    Index("ix_orders_open_email", text("lower(customer_email)"), postgresql_where=text("status = 'open'")),
    Index(
        "ix_orders_customer_subject", "customer_subject", "id", postgresql_where=text("customer_subject IS NOT NULL")
    ),
    Index("ix_orders_customer_email", text("lower(customer_email)"), "id"),
    Index("ix_orders_attention", "id", postgresql_where=text("attention IS NOT NULL")),
    Index("ix_orders_updated_at", "updated_at", "id"),
)

order_items = Table(
    "order_items",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("name", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price_minor", BigInteger, nullable=False),
    UniqueConstraint("order_id", "sku"),
    CheckConstraint("quantity BETWEEN 1 AND 1000", name="quantity_in_bounds"),
    CheckConstraint("unit_price_minor > 0", name="unit_price_positive"),
)

stock_reservations = Table(
    "stock_reservations",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), primary_key=True),
    Column("sku", Text, ForeignKey("products.sku"), primary_key=True),
    Column("quantity", Integer, nullable=False),
    Column("status", Text, nullable=False),
    timestamp("reserved_at"),
    timestamp("ended_at", nullable=True),
    one_of("status", tuple(ReservationStatus)),
    CheckConstraint("quantity > 0", name="quantity_positive"),
    CheckConstraint("(status = 'reserved') = (ended_at IS NULL)", name="ended_once"),
)

order_payments = Table(
    "order_payments",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("gateway", Text, nullable=False),
    Column("gateway_reference", Text),
    Column("status", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    Column("amount_authorized", BigInteger, nullable=False, server_default="0"),
    Column("amount_captured", BigInteger, nullable=False, server_default="0"),
    Column("amount_refund_pending", BigInteger, nullable=False, server_default="0"),
    Column("amount_refunded", BigInteger, nullable=False, server_default="0"),
    Column("amount_disputed", BigInteger, nullable=False, server_default="0"),
    Column("amount_excess", BigInteger, nullable=False, server_default="0"),
    Column("outcome_unknown", Boolean, nullable=False, server_default="false"),
    Column("resolution", Text),
    Column("asked_number", Integer),  # of the last command that asked for its money; these four go together
    Column("asked_attempt", Integer),
    Column("asked_captured", BigInteger),
    timestamp("ask_again_at", nullable=True),
    Column("terms", JSONB(none_as_null=True)),
    timestamp("created_at"),
    timestamp("updated_at"),
    timestamp("next_close_attempt_at", nullable=True),  # set when the order has ended and the payment has not
    Column("close_attempts", Integer, nullable=False, server_default="0"),
    one_of("status", tuple(PaymentStatus)),
    one_of("resolution", tuple(Resolution)),
    CheckConstraint("version >= 0", name="version_not_negative"),
    CheckConstraint(
        "num_nonnulls(asked_number, asked_attempt, asked_captured, ask_again_at)"
        " = CASE WHEN resolution IN ('refund_requested', 'refund_failed') THEN 4 ELSE 0 END",
        name="asked_is_known",
    ),
    Index("ix_order_payments_order_id", "order_id"),
    Index("ix_order_payments_still_there", "ask_again_at", postgresql_where=MONEY_IS_STILL_THERE),
    Index(
        "ix_order_payments_leftover",
        "next_close_attempt_at",
        postgresql_where=text(f"next_close_attempt_at IS NOT NULL AND {PAYMENT_IS_CLOSABLE.text}"),
    ),
)

refunds = Table(
    "refunds",
    metadata,
    Column("refund_id", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("order_payments.payment_id"), nullable=False),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    Column("status", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("reason", Text),
    Column("origin", Text, nullable=False),
    timestamp("created_at"),
    timestamp("updated_at"),
    one_of("status", tuple(RefundStatus)),
    Index("ix_refunds_order_id", "order_id", "refund_id"),
)
"""What the events of refunds say, for display and mails. The payment's totals, and nothing here, decide anything."""

invoice_counters = Table(
    "invoice_counters",
    metadata,
    Column("series", Text, primary_key=True),
    Column("last_number", BigInteger, nullable=False),
)

invoices = Table(
    "invoices",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False, unique=True),
    Column("snapshot", JSONB, nullable=False),
    timestamp("issued_at"),
    CheckConstraint("number > 0", name="number_positive"),
)

notifications = Table(
    "notifications",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("reference", Text, primary_key=True, server_default=""),  # a refund's id; one mail for each
    timestamp("created_at"),
    timestamp("next_attempt_at"),
    timestamp("sent_at", nullable=True),
    timestamp("given_up_at", nullable=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    one_of("kind", ("order_paid", "refund_succeeded")),
    Index(
        "ix_notifications_waiting", "next_attempt_at", postgresql_where=text("sent_at IS NULL AND given_up_at IS NULL")
    ),
)

stream_tickets = Table(
    "stream_tickets",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    timestamp("expires_at"),
    Index("ix_stream_tickets_expires_at", "expires_at"),
)

mailbox_messages = Table(
    "mailbox_messages",
    metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("message_id", Text, nullable=False, unique=True),  # sent twice, shown once
    Column("sender", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("text_body", Text, nullable=False),
    Column("html_body", Text, nullable=False),
    Column("attachment_names", JSONB, nullable=False),
    timestamp("sent_at"),
    timestamp("stored_at", default_now=True),
)
