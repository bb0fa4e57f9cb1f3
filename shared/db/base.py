"""The tables that every service has for messaging and idempotency, as helpers that add them to its own metadata.

Each service lives in a PostgreSQL schema of its own name; the connection's search_path picks it, so the tables here
carry no schema and services may share a server or even a database (ADR 0003).
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import CHAR, JSONB

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


RETIRED = {"uq_outbox_messages_message_id": "outbox_messages"}
"""Constraints (and their tables) that migrations made and that are no more: ``upgrade`` drops them, see there.

No query asks for an event by its id, and every event paid for that index twice, when written and when published."""

VACUUM_OFTEN = {"autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "1000"}
"""For tables whose rows change or go as fast as they come. By default a fifth of the table has to be dead before it is
cleaned up: in a table of ten million rows every claim of the relay would step over two million dead entries by then."""


def metadata_for(service: str) -> MetaData:
    """Metadata of one service, with the messaging and idempotency tables in it."""
    metadata = MetaData(naming_convention=NAMING, info={"service": service})
    _outbox_tables(metadata)
    _inbox_table(metadata)
    _idempotency_table(metadata)
    _lease_table(metadata)
    _retention_table(metadata)
    return metadata


def timestamp(name: str, *, nullable: bool = False, default_now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=func.now() if default_now else None)


def currency(name: str = "currency") -> Column[str]:
    return Column(name, CHAR(3), nullable=False)


def one_of(column: str, values: tuple[str, ...], *, name: str | None = None) -> CheckConstraint:
    """The CHECK of a status column. Text with a CHECK changes more easily than a PostgreSQL enum."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name or f"{column}_known")


def _outbox_tables(metadata: MetaData) -> None:
    Table(
        "outbox_messages",
        metadata,
        Column("position", BigInteger, Identity(always=True), primary_key=True),
        Column("transaction_id", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
        Column("message_id", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("body", LargeBinary, nullable=False),  # the envelope, byte for byte as it is published
        timestamp("created_at", default_now=True),
        timestamp("available_at", default_now=True),
        timestamp("published_at", nullable=True),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("last_error", Text),
        Index("uq_outbox_messages_subject_sequence", "subject", "sequence", unique=True),
        Index("ix_outbox_messages_waiting", "position", postgresql_where=text("published_at IS NULL")),
        Index("ix_outbox_messages_catch_up", "transaction_id", "position"),
        postgresql_with=VACUUM_OFTEN,
    )
    Table(
        "outbox_sequences",
        metadata,
        Column("subject", Text, primary_key=True),
        Column("last_sequence", BigInteger, nullable=False),
    )


def _inbox_table(metadata: MetaData) -> None:
    Table(
        "inbox_messages",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("message_id", Text, primary_key=True),
        Column("status", Text, nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("body", LargeBinary),  # kept only of a message that was given up on, so that it can be redriven
        Column("last_error", Text),
        timestamp("first_seen_at", default_now=True),
        timestamp("handled_at", nullable=True),
        one_of("status", ("failing", "done", "dead")),
        Index("ix_inbox_messages_dead", "consumer", postgresql_where=text("status = 'dead'")),
        postgresql_with=VACUUM_OFTEN,
    )


def _idempotency_table(metadata: MetaData) -> None:
    Table(
        "idempotency_keys",
        metadata,
        Column("caller", Text, primary_key=True),
        Column("route", Text, primary_key=True),
        Column("key_digest", LargeBinary, primary_key=True),  # SHA-256: the key itself seals the stored answer
        Column("fingerprint", LargeBinary, nullable=False),
        Column("response_status", Integer),
        Column("response_headers", JSONB),
        Column("sealed_response", LargeBinary),
        Column("owner_token", Text),
        timestamp("locked_until", nullable=True),
        timestamp("created_at", default_now=True),
        timestamp("expires_at"),
        Index("ix_idempotency_keys_expires_at", "expires_at"),
    )


def _lease_table(metadata: MetaData) -> None:
    Table(
        "leases",
        metadata,
        Column("name", Text, primary_key=True),
        Column("holder", Text, nullable=False),
        Column("fencing_token", BigInteger, nullable=False),
        timestamp("expires_at"),
    )


def _retention_table(metadata: MetaData) -> None:
    Table(
        "retention_marks",
        metadata,
        Column("name", Text, primary_key=True),  # the table that is pruned
        Column("mark", ARRAY(Text)),  # of outbox_messages: the newest that was deleted; else where to go on
        Column("pruned", BigInteger, nullable=False, server_default="0"),  # rows, ever
        timestamp("oldest_at", nullable=True),
        timestamp("finished_at", nullable=True),
    )
