"""Deliveries as rows: one statement stores a batch with its outbox rows, and commits by itself (ADR 0020).

Nothing of SQLAlchemy and no reflection on this path: a delivery is turned into a tuple once, and a batch into one list
per column, which PostgreSQL unnests.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple

from services.webhook_ingest.domain.models import Delivery
from shared.contracts.webhook_events import WebhookReceived
from shared.db.outbox import LATER

Key = tuple[str, str, str]
"""Gateway, account ('' for none) and dedupe key: what makes two deliveries the same one."""


class Row(NamedTuple):
    """A delivery as its table has it."""

    id: str
    gateway: str
    account: str
    dedupe_key: str
    event_id: str | None
    event_type: str | None
    trust: str
    key_id: str | None
    signed_at: datetime | None
    received_at: datetime
    method: str
    path: str
    query: str
    headers: str
    content_type: str
    body: bytes
    body_digest: bytes
    body_size: int
    remote_address: str
    request_id: str | None
    opened_type: str | None
    opened_body: bytes | None
    traceparent: str | None

    @property
    def key(self) -> Key:
        return self[1:4]

    @property
    def size(self) -> int:
        """Bytes, for limits: near what the row takes in memory, in a statement and in the spool."""
        return _OTHER_BYTES + len(self.body) + len(self.headers) + len(self.opened_body or b"")


_TYPES = {
    "signed_at": "timestamptz",
    "received_at": "timestamptz",
    "body": "bytea",
    "body_digest": "bytea",
    "body_size": "integer",
    "opened_body": "bytea",
}
_OTHER_BYTES = 512  # of all the columns that are not counted, roughly

_names = ", ".join(Row._fields)
_values = ", ".join("CAST(headers AS jsonb)" if name == "headers" else name for name in Row._fields)
_arrays = ", ".join(
    f"CAST(${place} AS {_TYPES.get(name, 'text')}[])" for place, name in enumerate(Row._fields, start=1)
)

LOCK_MILLISECONDS = 200
"""For a row that somebody holds. It is set by the statement for itself, which costs no round trip and leaves nothing
behind on the connection."""

# The first event's id is its delivery's with another prefix, so the outbox row needs nothing that a second try (a lost
# COMMIT, a drained spool) would not know. Its body is empty: it is rendered from the delivery when it is published, by
# a relay that can; to any other one it is not due for a thousand years.
# Whatever unique index a row meets, it is not inserted: a try of the same delivery that was thought lost may be there.
INSERT = f"""
    WITH given AS (
        SELECT * FROM unnest({_arrays}) WITH ORDINALITY AS given ({_names}, place)
    ), stored AS (
        INSERT INTO webhook_deliveries ({_names})
        SELECT {_values} FROM given
        WHERE (SELECT set_config('lock_timeout', '{LOCK_MILLISECONDS}', true)) IS NOT NULL ORDER BY place
        ON CONFLICT DO NOTHING
        RETURNING id
    ), announced AS (
        INSERT INTO outbox_messages (message_id, type, subject, sequence, body, available_at)
        SELECT 'evt_' || substr(id, 5), '{WebhookReceived.TYPE}', id, 1, '', now() + {LATER} FROM stored ORDER BY id
    )
    SELECT id FROM stored
"""  # noqa: S608 - names of columns, no input


def key_digest(of: str = "") -> str:
    """SQL of what is unique: 16 bytes made of a delivery's key, ``of`` ("stored.") a table or none.

    An index over the key itself is twice as large, and in the order of the database's collation, which is slow and may
    change with the operating system. Names of gateways and accounts contain no line break. Backslashes are doubled
    because the cast, the only one to bytes that an index may contain, would read them. Written as PostgreSQL writes it
    back, so that the test that compares schemas can.
    """
    key = f"((({of}gateway || chr(10)) || {of}account) || chr(10)) || {of}dedupe_key"
    digest = f"sha256(replace({key}, chr(92), chr(92) || chr(92))::bytea)"
    return f"(encode(substr({digest}, 1, 16), 'hex'::text)::uuid)"


# READ COMMITTED: a statement of its own sees what the insert met, whoever committed it meanwhile.
# Whether it is the same is asked of the digest, which has the index, and of the key itself.
FIND = f"""
    SELECT first.gateway, first.account, first.dedupe_key, first.id, first.body_digest
    FROM unnest(CAST($1 AS text[]), CAST($2 AS text[]), CAST($3 AS text[])) AS given (gateway, account, dedupe_key)
    CROSS JOIN LATERAL (
        SELECT * FROM webhook_deliveries AS stored
        WHERE {key_digest("stored.")} = {key_digest("given.")}
        AND (stored.gateway, stored.account, stored.dedupe_key) = (given.gateway, given.account, given.dedupe_key)
        LIMIT 1
    ) AS first
"""  # noqa: S608 - names of columns, no input


def row_of(delivery: Delivery) -> Row:
    return Row(
        delivery.id,
        delivery.gateway,
        delivery.account or "",
        delivery.dedupe_key,
        delivery.event_id,
        delivery.event_type,
        delivery.trust.value,
        delivery.key_id,
        delivery.signed_at,
        delivery.received_at,
        delivery.method,
        delivery.path,
        delivery.query,
        "[" + ",".join([f"[{quoted(name)},{quoted(value)}]" for name, value in delivery.headers]) + "]",
        delivery.content_type,
        delivery.body,
        delivery.body_digest,
        delivery.body_size,
        delivery.remote_address,
        delivery.request_id,
        delivery.opened_type,
        delivery.opened_body,
        delivery.traceparent,
    )


def columns_of(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    return list(zip(*rows, strict=True))
