"""Years of a shop's rows, written in minutes: what webhook_ingest and payment_service keep of webhooks long applied.

Keys are those of real rows. The bodies of old deliveries and events are short: nothing that is measured reads them, and
the filling leaves no room in old pages that new rows would be put into, each into another one. Constraints and indexes
are dropped for the filling and made again afterwards; foreign keys and checks come back without looking at the old
rows, and guard new ones as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from tests.bench.stack import connected
from tests.bench.webhooks import About

PAYMENTS_SHARE = 4
"""A payment for so many deliveries: created, authorized, captured, and something else."""
_BODY = "convert_to('{\"event_id\": \"old-' || n || '\"}', 'UTF8')"
_AT = "now() - interval '20 hours' * (1 - n::float8 / %rows%)"
"""Within a day, so that no retention comes and deletes them while we measure."""
_ID = "'01jf' || lpad(to_hex(n), 22, '0')"
_PAYMENT = f"lpad((1 + (n - 1) / {PAYMENTS_SHARE})::text, 8, '0')"
"""The end of the identifiers of the payment that a row is about, as clones are numbered (tests.bench.shopping)."""

DELIVERIES = f"""INSERT INTO webhook_deliveries (id, gateway, dedupe_key, event_id, event_type, trust, key_id,
    received_at, method, path, query, headers, content_type, body, body_digest, body_size, remote_address, request_id)
    SELECT 'whd_' || {_ID}, 'generic', 'old-' || n, 'old-' || n, 'completed', 'full', NULL, {_AT}, 'POST',
    '/api/v1/webhooks/generic', '', '{{"host": "shop.example", "user-agent": "gateway/1.0"}}', 'application/json',
    {_BODY}, decode(md5(n::text) || md5('d' || n), 'hex'), 24, '203.0.113.7', NULL
    FROM generate_series(1, %rows%) n"""
ANNOUNCED = f"""INSERT INTO outbox_messages (transaction_id, message_id, type, subject, sequence, body, created_at,
    available_at, published_at)
    SELECT 3, 'evt_' || {_ID}, 'webhook.received.v1', 'whd_' || {_ID}, 1, '', {_AT}, {_AT}, {_AT}
    FROM generate_series(1, %rows%) n"""
CLAIMED = f"""INSERT INTO inbox_messages (consumer, message_id, status, first_seen_at, handled_at)
    SELECT 'payment_service.webhooks', 'evt_' || {_ID}, 'done', {_AT}, {_AT}
    FROM generate_series(1, %rows%) n"""
FACTS = f"""INSERT INTO payment_facts (payment_id, natural_key, kind, source, object_reference, amount_minor, currency,
    occurred_at, received_at)
    SELECT '%payment%' || {_PAYMENT}, (n % {PAYMENTS_SHARE}) || ':%gateway%' || {_PAYMENT}, 'captured', 'webhook',
    '%gateway%' || {_PAYMENT}, 1850, 'USD', {_AT}, {_AT}
    FROM generate_series(1, %rows%) n"""
TOLD = f"""INSERT INTO outbox_messages (transaction_id, message_id, type, subject, sequence, body, created_at,
    available_at, published_at)
    SELECT 3, 'evt_old' || {_ID}, 'payment.captured.v1', '%payment%' || lpad((1 + (n - 1) / 2)::text, 8, '0'),
    1 + n % 2, {_BODY}, {_AT}, {_AT}, {_AT} FROM generate_series(1, %rows%) n"""
"""These are made of numbers; payments, attempts and references are copies of a real payment's, see ``fill``."""


@dataclass(frozen=True)
class Filling:
    """One table: its statement, and of how many rows."""

    table: str
    statement: str
    rows: int

    @property
    def text(self) -> str:
        return self.statement.replace("%rows%", str(self.rows))


def ingest_fillings(rows: int) -> list[Filling]:
    return [Filling("webhook_deliveries", DELIVERIES, rows), Filling("outbox_messages", ANNOUNCED, rows)]


def payment_fillings(rows: int, about: About) -> list[Filling]:
    """What was said about the payments that are there already, as copies of the one that this is about."""

    def of_payments(statement: str) -> str:
        return statement.replace("%payment%", about.payment_id[:-8]).replace("%gateway%", about.gateway_reference[:-8])

    return [
        Filling("payment_facts", of_payments(FACTS), rows),
        Filling("inbox_messages", CLAIMED, rows),
        Filling("outbox_messages", of_payments(TOLD), rows // 2),
    ]


async def fill(url: str, schema: str, fillings: Sequence[Filling]) -> None:
    """One table after the other."""
    for filling in fillings:
        async with connected(url, schema) as connection:
            await _unbothered(connection)
            async with rebuilt(connection, filling.table), connection.transaction():
                if not await connection.fetchval(f"SELECT EXISTS (SELECT FROM {filling.table})"):
                    # What a transaction writes to a table that it has emptied itself is not logged (wal_level=minimal).
                    await connection.execute(f"TRUNCATE {filling.table}")
                await connection.execute(filling.text)


async def _unbothered(connection: asyncpg.Connection) -> None:
    await connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '768MB'; SET work_mem = '256MB'")


class rebuilt:  # noqa: N801 - reads as the context that it is
    """Without constraints, indexes and triggers meanwhile, but for NOT NULL and generated values."""

    def __init__(self, connection: asyncpg.Connection, table: str) -> None:
        self._connection = connection
        self._table = table
        self._again: list[str] = []

    async def __aenter__(self) -> None:
        constraints = await self._connection.fetch(
            """SELECT conname, contype::text, conrelid::regclass::text AS on_table, pg_get_constraintdef(oid) AS text
            FROM pg_constraint WHERE (conrelid = $1::text::regclass OR confrelid = $1::text::regclass)
            AND contype IN ('p', 'u', 'f', 'c') ORDER BY contype = 'f', contype = 'c'""",
            self._table,
        )
        indexes = await self._connection.fetch(
            """SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS text FROM pg_index
            WHERE indrelid = $1::text::regclass AND indexrelid NOT IN (SELECT conindid FROM pg_constraint)""",
            self._table,
        )
        for row in reversed(constraints):
            await self._connection.execute(f"ALTER TABLE {row['on_table']} DROP CONSTRAINT {row['conname']}")
        for row in indexes:
            await self._connection.execute(f"DROP INDEX {row['name']}")
        unlooked = {"f": " NOT VALID", "c": " NOT VALID"}
        self._again = [row["text"] for row in indexes] + [
            f"ALTER TABLE {row['on_table']} ADD CONSTRAINT {row['conname']} {row['text']}"
            + ("" if "NOT VALID" in row["text"] else unlooked.get(row["contype"], ""))
            for row in constraints
        ]
        await self._connection.execute(f"ALTER TABLE {self._table} DISABLE TRIGGER USER")

    async def __aexit__(self, *_: object) -> None:
        for statement in self._again:
            await self._connection.execute(statement)
        await self._connection.execute(f"ALTER TABLE {self._table} ENABLE TRIGGER USER")


MEANWHILE = """INSERT INTO webhook_deliveries (id, gateway, dedupe_key, trust, received_at, method, path, query,
    headers, content_type, body, body_digest, body_size, remote_address)
    SELECT 'whd_01jg' || lpad(to_hex(n), 22, '0'), 'generic', 'since-' || n, 'full', now(), 'POST', '/w', '',
    '{}', 'a/b', '', sha256(n::text::bytea), 0, '203.0.113.7' FROM generate_series($1::int, $2::int) n"""
_A_ROW_FOR = 60


async def stir(url: str, rows: int, *, again: bool = False) -> None:
    """As a while after a checkpoint: some three deliveries for each page of the index that recognises them.

    Of any page the first change after a checkpoint is logged with the whole page. A busy shop changes all pages of this
    index many times until the next one; a benchmark that begins with a checkpoint would measure first changes only.
    """
    async with connected(url, "webhook_ingest") as connection:
        await _unbothered(connection)
        count = max(1, rows // _A_ROW_FOR)
        await connection.execute(MEANWHILE, 1 + count * again, count + count * again)


async def tidy(url: str, schema: str) -> None:
    """As a server leaves it that has had time: vacuumed, analyzed, on the disk."""
    async with connected(url, schema) as connection:
        await connection.execute("VACUUM (ANALYZE, FREEZE)")
        await connection.execute("CHECKPOINT")
