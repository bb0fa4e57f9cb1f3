"""webhook_ingest's tables. Raw bytes are BYTEA: PostgreSQL's text refuses NUL, webhooks do not (W12)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.webhook_ingest.db.delivery_rows import key_digest
from shared.db.base import VACUUM_OFTEN, metadata_for, one_of, timestamp

SERVICE = "webhook_ingest"

metadata = metadata_for(SERVICE)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column(
        "account", Text, nullable=False, server_default=""
    ),  # '' is the endpoint without an account: NULLs are never equal
    Column("dedupe_key", Text, nullable=False),
    Column("event_id", Text),
    Column("event_type", Text),
    Column("trust", Text, nullable=False),
    Column("key_id", Text),
    timestamp("signed_at", nullable=True),
    timestamp("received_at"),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_digest", LargeBinary, nullable=False),
    Column("body_size", Integer, nullable=False),
    Column("remote_address", Text, nullable=False),
    Column("request_id", Text),
    Column("opened_type", Text),
    Column("opened_body", LargeBinary),
    Column("traceparent", Text),  # of the request; the event that is rendered later carries it
    timestamp("forgotten_at", nullable=True),  # its contents are gone; the key and what it was stay
    CheckConstraint("(opened_type IS NULL) = (opened_body IS NULL)", name="opened_has_type"),
    one_of("trust", ("full", "hint")),
    # For ever, not for the tolerance of a timestamp (SEC-42): this is what makes a replayed delivery a duplicate.
    Index("uq_webhook_deliveries_key", text(key_digest()), unique=True),
    Index("ix_webhook_deliveries_received_at", "received_at"),
    postgresql_with=VACUUM_OFTEN,  # emptied rows leave room, which new ones take
)

webhook_rejects = Table(
    "webhook_rejects",
    metadata,
    # A ring: the slot of the newest takes the place of the oldest, so the bound needs no clean-up and cannot be raced.
    Column("gateway", Text, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("account", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False),
    timestamp("received_at"),
    Column("remote_address", Text, nullable=False),
    Column("request_id", Text),
    Column("headers", JSONB, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_digest", LargeBinary, nullable=False),
    Column("body_size", Integer, nullable=False),
    Index("ix_webhook_rejects_id", "id"),
)

webhook_reject_counts = Table(
    "webhook_reject_counts",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("total", BigInteger, nullable=False, server_default=text("0")),
)

webhook_replays = Table(
    "webhook_replays",
    metadata,
    Column("id", Text, primary_key=True),
    Column("delivery_id", Text, ForeignKey("webhook_deliveries.id"), nullable=False),
    Column("mode", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    timestamp("requested_at"),
    Column("event_id", Text, nullable=False),
    one_of("mode", ("rederive", "refetch")),
    Index("ix_webhook_replays_delivery_id", "delivery_id"),
)
