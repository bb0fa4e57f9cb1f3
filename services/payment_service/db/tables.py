"""The tables of payment_service. Every rule about money that a CHECK can hold is repeated here (SEC-61)."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.payment_service.domain.breaker import BreakerState, OperationClass
from services.payment_service.domain.ledger import Account
from services.payment_service.domain.models import (
    AttemptStatus,
    CaptureMode,
    FactKind,
    FactSource,
    ParkedStatus,
    PaymentStatus,
)
from services.payment_service.domain.operations import CallState, DisputeStatus, OperationKind, OperationStatus, Origin
from services.payment_service.domain.timeline import EntryKind
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
    Column("account", Text),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    Column("capture", Text, nullable=False),
    Column("method", Text),
    Column("tolerance_minor", BigInteger, nullable=False, server_default="0"),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("amount_authorized", BigInteger, nullable=False, server_default="0"),
    Column("amount_capture_pending", BigInteger, nullable=False, server_default="0"),
    Column("amount_captured", BigInteger, nullable=False, server_default="0"),
    Column("amount_refund_pending", BigInteger, nullable=False, server_default="0"),
    Column("amount_refunded", BigInteger, nullable=False, server_default="0"),
    Column("amount_disputed", BigInteger, nullable=False, server_default="0"),
    Column("amount_dispute_lost", BigInteger, nullable=False, server_default="0"),
    Column("amount_excess", BigInteger, nullable=False, server_default="0"),
    Column("has_unknown_operation", Boolean, nullable=False, server_default=false()),
    Column("session_unknown", Boolean, nullable=False, server_default=false()),
    Column("authorization_valid_for", Interval),
    timestamp("capture_before", nullable=True),
    timestamp("capture_warned_at", nullable=True),
    timestamp("given_up_at", nullable=True),
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
    CheckConstraint("amount_excess >= 0 AND amount_capture_pending >= 0", name="more_totals_not_negative"),
    CheckConstraint("amount_captured + amount_capture_pending <= amount_authorized", name="captures_within_authorized"),
    CheckConstraint("amount_dispute_lost >= 0 AND amount_dispute_lost <= amount_disputed", name="lost_within_disputed"),
    CheckConstraint(
        "amount_refunded + amount_refund_pending + amount_disputed <= amount_captured", name="refunds_within_captured"
    ),
    CheckConstraint(
        "status <> 'captured' OR amount_captured >= amount_minor - tolerance_minor", name="captured_is_captured"
    ),
    Index("ix_payments_order_id", "order_id"),
    Index(
        "ix_payments_capture_before",
        "capture_before",
        postgresql_where=text("status IN ('authorized', 'partially_captured')"),
    ),
    Index("ix_payments_gateway_reference", "gateway", "gateway_reference"),
    Index(
        "ix_payments_not_final",
        "payment_id",
        postgresql_where=text(
            "status IN ('created', 'requires_action', 'processing', 'authorized', 'partially_captured')"
        ),
    ),
    Index("ix_payments_updated_at", "updated_at", "payment_id"),
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
    Column("about", Text),
    Column("operation", Text),
    timestamp("capture_before", nullable=True),
    timestamp("occurred_at", nullable=True),
    timestamp("received_at"),
    one_of("kind", _values(FactKind)),
    one_of("source", _values(FactSource)),
    CheckConstraint("(amount_minor IS NULL) = (currency IS NULL)", name="amount_has_currency"),
    Index("uq_payment_facts_natural_key", "payment_id", "natural_key", unique=True),
)
"""Append-only: rows are inserted and read, never updated or deleted."""

operations = Table(
    "operations",
    metadata,
    Column("operation_id", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.payment_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False, unique=True),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    Column("origin", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("target", Text),
    Column("is_whole", Boolean, nullable=False, server_default=false()),
    Column("is_final", Boolean, nullable=False, server_default=false()),
    Column("reason", Text),
    Column("merchant_reference", Text),
    Column("request_key", Text),
    Column("status", Text, nullable=False),
    Column("call", Text, nullable=False),
    Column("key_number", Integer, nullable=False, server_default="1"),
    Column("calls", Integer, nullable=False, server_default="0"),
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("gateway_reference", Text),
    Column("failure_code", Text),
    Column("lease_token", Text),
    timestamp("leased_until", nullable=True),
    timestamp("first_sent_at", nullable=True),
    timestamp("last_sent_at", nullable=True),
    timestamp("next_look_at", nullable=True),
    timestamp("settled_at", nullable=True),
    timestamp("escalated_at", nullable=True),
    timestamp("created_at"),
    timestamp("updated_at"),
    one_of("kind", _values(OperationKind)),
    one_of("status", _values(OperationStatus)),
    one_of("call", _values(CallState)),
    one_of("origin", _values(Origin)),
    CheckConstraint("amount_minor > 0", name="operation_amount_positive"),
    CheckConstraint("key_number > 0 AND calls >= 0 AND looks >= 0", name="operation_counts"),
    Index("ix_operations_payment_id", "payment_id", "operation_id"),
    Index("uq_operations_request_key", "payment_id", "kind", "request_key", unique=True),
    Index("uq_operations_merchant_reference", "payment_id", "kind", "merchant_reference", unique=True),
    Index("ix_operations_due", "next_look_at", postgresql_where=text("next_look_at IS NOT NULL")),
)
"""Captures, voids, refunds and completions. Rows are never deleted: what did not happen stays, and says so."""

disputes = Table(
    "disputes",
    metadata,
    Column("dispute_id", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.payment_id"), nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    timestamp("opened_at"),
    timestamp("closed_at", nullable=True),
    one_of("status", _values(DisputeStatus)),
    Index("uq_disputes_gateway_reference", "payment_id", "gateway_reference", unique=True),
)

payment_references = Table(
    "payment_references",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("account", Text, primary_key=True, server_default=""),  # '' is the account without a name
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
    Index("ix_parked_events_applied", "parked_at", "parked_id", postgresql_where=text("status = 'applied'")),
    Index(
        "ix_parked_events_for_a_person",
        "received_at",
        "parked_id",
        postgresql_where=text("status IN ('unclaimed', 'unreadable')"),
    ),
)

payment_timeline = Table(
    "payment_timeline",
    metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.payment_id"), nullable=False),
    timestamp("at"),
    Column("kind", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("source", Text),
    Column("actor", Text),
    Column("reference", Text),
    Column("amount_minor", BigInteger),
    Column("currency", Text),
    Column("request_id", Text),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    one_of("kind", _values(EntryKind)),
    Index("ix_payment_timeline_payment_id", "payment_id", "position"),
)
"""Append-only, by trigger: what happened to a payment, written in the transaction in which it happened."""

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("entry_id", BigInteger, Identity(always=True), primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.payment_id")),
    Column("payment_version", Integer),
    Column("source_key", Text, unique=True),  # of a settlement: the command that booked it, once
    Column("cause", Text, nullable=False),
    timestamp("at"),
    CheckConstraint(
        "(payment_id IS NULL) = (payment_version IS NULL) AND (payment_id IS NULL) = (source_key IS NOT NULL)",
        name="of_payment_or_settlement",
    ),
    Index("ix_ledger_entries_payment_id", "payment_id", "entry_id"),
)

ledger_postings = Table(
    "ledger_postings",
    metadata,
    Column("entry_id", BigInteger, ForeignKey("ledger_entries.entry_id"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("account", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    currency(),
    Column("amount_minor", BigInteger, nullable=False),
    one_of("account", _values(Account)),
    CheckConstraint("amount_minor <> 0", name="posting_not_zero"),
    Index("ix_ledger_postings_account", "account", "gateway", "currency"),
)
"""Debits are positive, credits negative. A deferred trigger refuses an entry whose lines do not sum to zero in each
currency; entries and lines are never changed or deleted (triggers of 0002)."""

gateway_breakers = Table(
    "gateway_breakers",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("operation_class", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("openings", Integer, nullable=False, server_default="0"),
    Column("reason", Text),
    Column("probe_token", Text),
    timestamp("probe_until", nullable=True),
    timestamp("open_until", nullable=True),
    timestamp("changed_at"),
    one_of("state", _values(BreakerState)),
    one_of("operation_class", _values(OperationClass)),
)
"""One row a breaker that was ever open. ``openings`` in a row without a success lengthen the cool-down."""
