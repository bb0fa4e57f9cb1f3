"""Every query of webhook_ingest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, exists, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.webhook_ingest.db.tables import metadata, webhook_deliveries, webhook_rejects, webhook_replays
from services.webhook_ingest.domain.models import (
    Announcement,
    Delivery,
    DeliveryFilter,
    DeliverySummary,
    Reject,
    Replay,
    ReplayMode,
)
from services.webhook_ingest.signatures.port import Trust
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.contracts.envelope import EventEnvelope

MAX_REJECTS_PER_GATEWAY = 1000

_outbox = metadata.tables["outbox_messages"]

# The hot path: one statement, one round trip. The event is written only where the delivery is new, and both commit
# together. Column order follows the Delivery model.
_APPEND = text(
    """
    WITH delivery AS (
        INSERT INTO webhook_deliveries (
            id, gateway, account, dedupe_key, event_id, event_type, trust, key_id, signed_at, received_at, method, path,
            query, headers, content_type, body, body_digest, body_size, remote_address, request_id, opened_type,
            opened_body
        ) VALUES (
            :id, :gateway, :account, :dedupe_key, :event_id, :event_type, :trust, :key_id, :signed_at, :received_at,
            :method, :path, :query, CAST(CAST(:headers AS text) AS jsonb), :content_type, :body, :body_digest,
            :body_size, :remote_address, :request_id, :opened_type, :opened_body
        )
        ON CONFLICT (gateway, account, dedupe_key) DO NOTHING
        RETURNING id
    ), announced AS (
        INSERT INTO outbox_messages (message_id, type, subject, sequence, body)
        SELECT CAST(:message_id AS text), CAST(:type AS text), id, 1, CAST(:envelope AS bytea) FROM delivery
    )
    SELECT id FROM delivery
    """
)

_FIRST_OF_ITS_KIND = text(
    """
    SELECT id, body_digest FROM webhook_deliveries
    WHERE gateway = :gateway AND account = :account AND dedupe_key = :dedupe_key
    """
)

_KEEP_REJECT = text(
    """
    WITH counted AS (
        INSERT INTO webhook_reject_counts AS counts (gateway, total) VALUES (:gateway, 1)
        ON CONFLICT (gateway) DO UPDATE SET total = counts.total + 1
        RETURNING total
    )
    INSERT INTO webhook_rejects (
        gateway, slot, id, account, reason, received_at, remote_address, request_id, headers, content_type, body,
        body_digest, body_size
    )
    SELECT :gateway, (total - 1) % :slots, :id, :account, :reason, CAST(:received_at AS timestamptz), :remote_address,
        :request_id, CAST(CAST(:headers AS text) AS jsonb), :content_type, CAST(:body AS bytea),
        CAST(:body_digest AS bytea), CAST(:body_size AS integer)
    FROM counted
    ON CONFLICT (gateway, slot) DO UPDATE SET
        id = excluded.id, account = excluded.account, reason = excluded.reason, received_at = excluded.received_at,
        remote_address = excluded.remote_address, request_id = excluded.request_id, headers = excluded.headers,
        content_type = excluded.content_type, body = excluded.body, body_digest = excluded.body_digest,
        body_size = excluded.body_size
    """
)


class DeliveryRepository:
    def __init__(self, connection: AsyncConnection, *, announced: Callable[[], None]) -> None:
        self._connection = connection
        self._announced = announced

    async def append(self, delivery: Delivery, announcement: EventEnvelope) -> AppendResult:
        """A concurrent twin waits for the first one's commit, then finds it: one delivery, one event (W1)."""
        values = _values(delivery) | {
            "message_id": announcement.id,
            "type": announcement.type,
            "envelope": announcement.to_json(),
        }
        if (await self._connection.execute(_APPEND, values)).first() is not None:
            self._announced()
            return AppendResult(delivery.id, is_duplicate=False, body_digest=delivery.body_digest)
        key = {name: values[name] for name in ("gateway", "account", "dedupe_key")}
        # READ COMMITTED: this statement sees what the insert met, whoever committed it.
        first = (await self._connection.execute(_FIRST_OF_ITS_KIND, key)).one()
        return AppendResult(first.id, is_duplicate=True, body_digest=first.body_digest)

    async def find(self, delivery_id: str) -> Delivery | None:
        statement = select(webhook_deliveries).where(webhook_deliveries.c.id == delivery_id)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _delivery(row)

    async def search(self, criteria: DeliveryFilter) -> list[DeliverySummary]:
        table = webhook_deliveries
        waiting = exists().where(_outbox.c.subject == table.c.id, _outbox.c.published_at.is_(None))
        statement = select(table, waiting.label("waiting")).order_by(table.c.id.desc()).limit(criteria.limit)
        statement = statement.where(*_conditions(criteria, waiting))
        rows = (await self._connection.execute(statement)).mappings()
        return [_summary(row) for row in rows]

    async def announcements_of(self, delivery_id: str) -> list[Announcement]:
        columns = [
            _outbox.c[name]
            for name in ("message_id", "sequence", "created_at", "published_at", "attempts", "last_error")
        ]
        statement = select(*columns).where(_outbox.c.subject == delivery_id).order_by(_outbox.c.sequence)
        return [Announcement(*row) for row in await self._connection.execute(statement)]

    async def select_for_replay(
        self, *, gateway: str, since: datetime, until: datetime, after_id: str | None, limit: int
    ) -> list[Delivery]:
        table = webhook_deliveries
        statement = (
            select(table)
            .where(table.c.gateway == gateway, table.c.received_at >= since, table.c.received_at < until)
            .order_by(table.c.id)
            .limit(limit)
        )
        if after_id is not None:
            statement = statement.where(table.c.id > after_id)
        return [_delivery(row) for row in (await self._connection.execute(statement)).mappings()]


class RejectRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep(self, reject: Reject) -> None:
        await self._connection.execute(_KEEP_REJECT, _values(reject) | {"slots": MAX_REJECTS_PER_GATEWAY})

    async def search(self, *, gateway: str | None, before_id: str | None, limit: int) -> list[Reject]:
        table = webhook_rejects
        statement = select(table).order_by(table.c.id.desc()).limit(limit)
        if gateway is not None:
            statement = statement.where(table.c.gateway == gateway)
        if before_id is not None:
            statement = statement.where(table.c.id < before_id)
        return [_reject(row) for row in (await self._connection.execute(statement)).mappings()]

    async def delete_older_than(self, moment: datetime) -> int:
        result = await self._connection.execute(delete(webhook_rejects).where(webhook_rejects.c.received_at < moment))
        return result.rowcount


class ReplayRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, replay: Replay) -> None:
        values = {field.name: getattr(replay, field.name) for field in fields(Replay)} | {"mode": replay.mode.value}
        await self._connection.execute(insert(webhook_replays).values(values))

    async def of_delivery(self, delivery_id: str) -> Sequence[Replay]:
        statement = (
            select(webhook_replays).where(webhook_replays.c.delivery_id == delivery_id).order_by(webhook_replays.c.id)
        )
        rows = (await self._connection.execute(statement)).mappings()
        return [Replay(**{**row, "mode": ReplayMode(row["mode"])}) for row in rows]


def _conditions(criteria: DeliveryFilter, waiting: ColumnElement[bool]) -> Iterator[ColumnElement[bool]]:
    columns = webhook_deliveries.c
    for name in ("gateway", "account", "event_type"):
        if getattr(criteria, name) is not None:
            yield columns[name] == getattr(criteria, name)
    if criteria.status is not None:
        yield waiting if criteria.status == "pending" else ~waiting
    if criteria.since is not None:
        yield columns.received_at >= criteria.since
    if criteria.until is not None:
        yield columns.received_at < criteria.until
    if criteria.before_id is not None:
        yield columns.id < criteria.before_id


def _values(record: Delivery | Reject) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    values["account"] = record.account or ""
    values["headers"] = json.dumps(record.headers)
    if isinstance(record, Delivery):
        values["trust"] = record.trust.value
    return values


def _record(row: RowMapping, model: type[Delivery] | type[Reject]) -> dict[str, Any]:
    values = {field.name: row[field.name] for field in fields(model)}
    return values | {
        "account": row["account"] or None,
        "headers": tuple((name, value) for name, value in row["headers"]),
    }


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(**(_record(row, Delivery) | {"trust": Trust(row["trust"])}))


def _reject(row: RowMapping) -> Reject:
    return Reject(**_record(row, Reject))


def _summary(row: RowMapping) -> DeliverySummary:
    return DeliverySummary(
        id=row["id"],
        gateway=row["gateway"],
        account=row["account"] or None,
        event_id=row["event_id"],
        event_type=row["event_type"],
        trust=Trust(row["trust"]),
        status="pending" if row["waiting"] else "published",
        received_at=row["received_at"],
        content_type=row["content_type"],
        body_size=row["body_size"],
    )
