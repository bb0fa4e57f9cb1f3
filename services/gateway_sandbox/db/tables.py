"""The books, and what must survive a killed sandbox: stored answers, faults and deliveries."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.db.base import NAMING, currency, one_of, timestamp

# Not metadata_for(): the sandbox is outside Payrail, so it has no outbox, inbox or leases.
metadata = MetaData(naming_convention=NAMING, info={"service": "gateway_sandbox"})

_EMPTY = text("'{}'::jsonb")

payments = Table(
    "payments",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("gateway_reference", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("payment_reference", Text),
    Column("reference", Text),
    Column("order_id", Text),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    Column("capture", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("captured_minor", BigInteger, nullable=False, server_default="0"),
    Column("refunded_minor", BigInteger, nullable=False, server_default="0"),
    Column("success_url", Text, nullable=False),
    Column("cancel_url", Text),
    Column("page_token", Text, nullable=False),
    Column("customer_email", Text),
    Column("description", Text),
    Column("metadata", JSONB, nullable=False, server_default=_EMPTY),
    Column("details", JSONB, nullable=False, server_default=_EMPTY),
    timestamp("created_at"),
    timestamp("expires_at"),
    timestamp("payment_created_at", nullable=True),
    timestamp("hold_expires_at", nullable=True),
    one_of("capture", ("automatic", "manual")),
    one_of("status", ("open", "processing", "authorized", "completed", "failed", "canceled", "expired")),
    CheckConstraint(
        "0 <= refunded_minor AND refunded_minor <= captured_minor AND captured_minor <= amount_minor", name="amounts"
    ),
    Index("uq_payments_gateway_payment_reference", "gateway", "payment_reference", unique=True),
    Index("ix_payments_gateway_reference", "gateway", "reference"),
    Index("ix_payments_gateway_number", "gateway", "number"),
    Index("ix_payments_open_expires_at", "expires_at", postgresql_where=text("status = 'open'")),
    Index("ix_payments_held_hold_expires_at", "hold_expires_at", postgresql_where=text("status = 'authorized'")),
)

# Every other id that a gateway gave a payment: authorizations, captures, refunds, disputes.
entry_aliases = Table(
    "entry_aliases",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("gateway_reference", Text, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("operation", Text, nullable=False),
    timestamp("at"),
    Column("amount_minor", BigInteger),
    Column("idempotency_key", Text),
    Column("details", JSONB, nullable=False, server_default=_EMPTY),
    Index("ix_operations_gateway_gateway_reference", "gateway", "gateway_reference"),
)

refunds = Table(
    "refunds",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("refund_id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("reference", Text),
    Column("amount_minor", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("metadata", JSONB, nullable=False, server_default=_EMPTY),
    Column("details", JSONB, nullable=False, server_default=_EMPTY),
    timestamp("created_at"),
    Column("idempotency_key", Text),
    CheckConstraint("amount_minor > 0", name="amount"),
    one_of("status", ("pending", "succeeded", "failed", "reversed")),
    Index("ix_refunds_gateway_gateway_reference", "gateway", "gateway_reference"),
)

captures = Table(
    "captures",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("capture_id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("reference", Text),
    Column("amount_minor", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("is_final", Boolean, nullable=False),
    Column("details", JSONB, nullable=False, server_default=_EMPTY),
    timestamp("created_at"),
    Column("idempotency_key", Text),
    CheckConstraint("amount_minor > 0", name="amount"),
    one_of("status", ("pending", "succeeded", "failed")),
    Index("ix_captures_gateway_gateway_reference", "gateway", "gateway_reference"),
)

disputes = Table(
    "disputes",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("dispute_id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=_EMPTY),
    timestamp("created_at"),
    timestamp("closed_at", nullable=True),
    CheckConstraint("amount_minor > 0", name="amount"),
    one_of("status", ("open", "won", "lost")),
    Index("ix_disputes_gateway_gateway_reference", "gateway", "gateway_reference"),
)

stored_answers = Table(
    "stored_answers",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", Text, nullable=False),
    timestamp("created_at"),
    Index("ix_stored_answers_created_at", "created_at"),
)

faults = Table(
    "faults",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("remaining", Integer),
    Column("passed", Integer, nullable=False, server_default="0"),  # calls that reached it, for `every`
    Column("params", JSONB, nullable=False, server_default=_EMPTY),
    Index("ix_faults_gateway_number", "gateway", "number"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("held", Boolean, nullable=False, server_default=text("false")),
    Column("tries", Integer, nullable=False, server_default="0"),
    timestamp("created_at"),
    timestamp("next_try_at"),
    timestamp("delivered_at", nullable=True),
    Column("last_status", Integer),
    Column("last_error", Text),
    one_of("state", ("pending", "delivered", "abandoned", "lost")),
    Index("ix_deliveries_due", "next_try_at", postgresql_where=text("state = 'pending'")),
    Index("ix_deliveries_gateway_gateway_reference", "gateway", "gateway_reference"),
)
