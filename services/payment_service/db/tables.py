"""The tables of payment_service. Every rule about money that a CHECK can hold is repeated here (SEC-61)."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.payment_service.domain.models import (
    AttemptStatus,
    CaptureMode,
    FactKind,
    FactSource,
    ParkedStatus,
    PaymentStatus,
)
from shared.db.base import currency, metadata_for, one_of, timestamp

metadata = metadata_for("payment_service")


def _values(enum: type) -> tuple[str, ...]:
    return tuple(member.value for member in enum)  # type: ignore[attr-defined]


payments = Table(
    "payments",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    Column("capture", Text, nullable=False),
    Column("tolerance_minor", BigInteger, nullable=False, server_default="0"),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("amount_authorized", BigInteger, nullable=False, server_default="0"),
    Column("amount_captured", BigInteger, nullable=False, server_default="0"),
    Column("amount_refund_pending", BigInteger, nullable=False, server_default="0"),
    Column("amount_refunded", BigInteger, nullable=False, server_default="0"),
    Column("amount_disputed", BigInteger, nullable=False, server_default="0"),
    Column("failure_code", Text),
    Column("conflict", Text),
    Column("gateway_reference", Text),
    Column("duplicate_of", Text),
    Column("description", Text, nullable=False),
    Column("customer", JSONB, nullable=False),  # personal data: sent to the gateway, never into an event or a log
    Column("items", JSONB, nullable=False),
    Column("success_url", Text, nullable=False),
    Column("failure_url", Text, nullable=False),
    Column("cancel_url", Text, nullable=False),
    Column("request_digest", LargeBinary, nullable=False),
    timestamp("created_at"),
    timestamp("updated_at"),
    timestamp("expires_at"),
    timestamp("asked_at", nullable=True),
    one_of("status", _values(PaymentStatus)),
    one_of("capture", _values(CaptureMode)),
    CheckConstraint("amount_minor > 0", name="amount_positive"),
    CheckConstraint("version > 0", name="version_positive"),
    CheckConstraint(
        "amount_authorized >= 0 AND amount_captured >= 0 AND amount_refund_pending >= 0 AND amount_refunded >= 0 "
        "AND amount_disputed >= 0",
        name="totals_not_negative",
    ),
    CheckConstraint(
        "amount_refunded + amount_refund_pending + amount_disputed <= amount_captured", name="refunds_within_captured"
    ),
    CheckConstraint(
        "status <> 'captured' OR amount_captured >= amount_minor - tolerance_minor", name="captured_is_captured"
    ),
    Index("ix_payments_order_id", "order_id"),
    Index("ix_payments_gateway_reference", "gateway", "gateway_reference"),
    Index(
        "ix_payments_not_final",
        "payment_id",
        postgresql_where=text(
            "status IN ('created', 'requires_action', 'processing', 'authorized', 'partially_captured')"
        ),
    ),
)

payment_attempts = Table(
    "payment_attempts",
    metadata,
    Column("attempt_id", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.payment_id"), nullable=False),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("reference", Text, nullable=False, unique=True),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    timestamp("session_expires_at"),
    Column("gateway_reference", Text),
    Column("next_action", JSONB),
    Column("lease_token", Text),
    timestamp("leased_until", nullable=True),
    timestamp("created_at", default_now=True),
    one_of("status", _values(AttemptStatus)),
    CheckConstraint("status <> 'open' OR gateway_reference IS NOT NULL", name="open_has_reference"),
    Index("ix_payment_attempts_payment_id", "payment_id", "number"),
)

payment_facts = Table(
    "payment_facts",
    metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.payment_id"), nullable=False),
    Column("natural_key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("object_reference", Text, nullable=False),
    Column("amount_minor", BigInteger),
    Column("currency", Text),
    Column("reason", Text),
    Column("learnt_by", Text),
    timestamp("occurred_at", nullable=True),
    timestamp("received_at"),
    one_of("kind", _values(FactKind)),
    one_of("source", _values(FactSource)),
    CheckConstraint("(amount_minor IS NULL) = (currency IS NULL)", name="amount_has_currency"),
    Index("uq_payment_facts_natural_key", "payment_id", "natural_key", unique=True),
)
"""Append-only: rows are inserted and read, never updated or deleted."""

payment_references = Table(
    "payment_references",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("reference", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.payment_id"), nullable=False),
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Index("ix_payment_references_payment_id", "payment_id", "position"),
)

parked_events = Table(
    "parked_events",
    metadata,
    Column("parked_id", Text, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("account", Text),
    Column("delivery_id", Text, nullable=False, unique=True),
    Column("event_type", Text),
    Column("trust", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("refs", ARRAY(Text), nullable=False),
    Column("status", Text, nullable=False),
    timestamp("received_at"),
    timestamp("parked_at", default_now=True),
    one_of("status", _values(ParkedStatus)),
    Index("ix_parked_events_refs", "refs", postgresql_using="gin"),
    Index("ix_parked_events_unsettled", "status", "parked_at", postgresql_where=text("status IN ('waiting', 'ready')")),
)
