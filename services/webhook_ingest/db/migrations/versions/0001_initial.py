"""Deliveries, rejects, replays, and the messaging tables that every service has.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _at(name: str, *, nullable: bool = False, default_now: bool = False) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=nullable, server_default=sa.func.now() if default_now else None
    )


def upgrade() -> None:
    _create_deliveries()
    _create_rejects()
    _create_replays()
    _create_outbox()
    _create_inbox()
    _create_idempotency_keys()
    _create_leases()


def downgrade() -> None:
    for table in (
        "leases",
        "idempotency_keys",
        "inbox_messages",
        "outbox_sequences",
        "outbox_messages",
        "webhook_replays",
        "webhook_reject_counts",
        "webhook_rejects",
        "webhook_deliveries",
    ):
        op.drop_table(table)


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False, server_default=""),
        sa.Column("dedupe_key", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text()),
        sa.Column("event_type", sa.Text()),
        sa.Column("trust", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text()),
        _at("signed_at", nullable=True),
        _at("received_at"),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("headers", JSONB(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("body_size", sa.Integer(), nullable=False),
        sa.Column("remote_address", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint(
            "gateway", "account", "dedupe_key", name="uq_webhook_deliveries_gateway_account_dedupe_key"
        ),
        sa.CheckConstraint("trust IN ('full', 'hint')", name="ck_webhook_deliveries_trust_known"),
    )
    op.create_index("ix_webhook_deliveries_received_at", "webhook_deliveries", ["received_at"])


def _create_rejects() -> None:
    op.create_table(
        "webhook_rejects",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False, server_default=""),
        sa.Column("reason", sa.Text(), nullable=False),
        _at("received_at"),
        sa.Column("remote_address", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("headers", JSONB(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("body_size", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "slot", name="pk_webhook_rejects"),
    )
    op.create_index("ix_webhook_rejects_id", "webhook_rejects", ["id"])
    op.create_table(
        "webhook_reject_counts",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("gateway", name="pk_webhook_reject_counts"),
    )


def _create_replays() -> None:
    op.create_table(
        "webhook_replays",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        _at("requested_at"),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_replays"),
        sa.ForeignKeyConstraint(["delivery_id"], ["webhook_deliveries.id"], name="fk_webhook_replays_delivery_id"),
        sa.CheckConstraint("mode IN ('rederive', 'refetch')", name="ck_webhook_replays_mode_known"),
    )
    op.create_index("ix_webhook_replays_delivery_id", "webhook_replays", ["delivery_id"])


def _create_outbox() -> None:
    op.create_table(
        "outbox_messages",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            nullable=False,
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
        ),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        _at("created_at", default_now=True),
        _at("available_at", default_now=True),
        _at("published_at", nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("position", name="pk_outbox_messages"),
        sa.UniqueConstraint("message_id", name="uq_outbox_messages_message_id"),
    )
    op.create_index("uq_outbox_messages_subject_sequence", "outbox_messages", ["subject", "sequence"], unique=True)
    op.create_index(
        "ix_outbox_messages_waiting", "outbox_messages", ["position"], postgresql_where=sa.text("published_at IS NULL")
    )
    op.create_index("ix_outbox_messages_catch_up", "outbox_messages", ["transaction_id", "position"])
    op.create_table(
        "outbox_sequences",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_outbox_sequences"),
    )


def _create_inbox() -> None:
    op.create_table(
        "inbox_messages",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("last_error", sa.Text()),
        _at("first_seen_at", default_now=True),
        _at("handled_at", nullable=True),
        sa.PrimaryKeyConstraint("consumer", "message_id", name="pk_inbox_messages"),
        sa.CheckConstraint("status IN ('failing', 'done', 'dead')", name="ck_inbox_messages_status_known"),
    )
    op.create_index(
        "ix_inbox_messages_dead", "inbox_messages", ["consumer"], postgresql_where=sa.text("status = 'dead'")
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("response_status", sa.Integer()),
        sa.Column("response_headers", JSONB()),
        sa.Column("sealed_response", sa.LargeBinary()),
        sa.Column("owner_token", sa.Text()),
        _at("locked_until", nullable=True),
        _at("created_at", default_now=True),
        _at("expires_at"),
        sa.PrimaryKeyConstraint("caller", "route", "key_digest", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        _at("expires_at"),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
