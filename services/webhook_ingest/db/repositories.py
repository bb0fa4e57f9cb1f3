"""Every query of webhook_ingest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, exists, insert, select, text
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

MAX_REJECTS_PER_GATEWAY = 1000

_outbox = metadata.tables["outbox_messages"]

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
    """Reads; what is written goes through the DeliveryStore (group_commit.py)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

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


def _values(reject: Reject) -> dict[str, Any]:
    values = {field.name: getattr(reject, field.name) for field in fields(Reject)}
    return values | {"account": reject.account or "", "headers": json.dumps(reject.headers)}


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
        forgotten_at=row["forgotten_at"],
    )
