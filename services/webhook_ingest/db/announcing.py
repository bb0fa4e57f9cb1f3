"""Renders the first events of deliveries when the relay publishes them, not while a gateway waits (ADR 0020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg
import structlog

from services.webhook_ingest.domain.models import EventContents
from services.webhook_ingest.signatures.port import Trust
from services.webhook_ingest.use_cases.announce import first_announcement
from shared.clock import Clock
from shared.db.outbox import WaitingMessage

log = structlog.get_logger()

BYTES_AT_ONCE = 4 * 1024 * 1024
"""Of deliveries' bodies in one claim: it bounds its memory, its message to the broker, and how long its transaction is
open. A second's work or less; whatever its size, the first one is among them."""

BYTES_WITHOUT_A_PAUSE = 64 * 1024
_OTHER_BYTES = 2048  # what a delivery costs whose body is empty, in bytes of body

# Bytes are counted without reading them, and of those that are too many only the id leaves the database.
_CONTENTS = """
    SELECT id, gateway, account, event_id, event_type, trust, received_at, traceparent, is_first OR up_to <= $2 AS fits,
        coalesce(opened_type, content_type) AS content_type,
        CASE WHEN is_first OR up_to <= $2 THEN coalesce(opened_body, body) END AS body
    FROM (
        SELECT *, row_number() OVER ordered = 1 AS is_first,
            sum(octet_length(coalesce(opened_body, body))) OVER ordered AS up_to
        FROM webhook_deliveries WHERE id = ANY(CAST($1 AS text[])) WINDOW ordered AS (ORDER BY id)
    ) AS found
"""


async def render_announcements(
    driver: asyncpg.Connection, messages: Sequence[WaitingMessage], *, clock: Clock, bytes_at_once: int = BYTES_AT_ONCE
) -> Mapping[int, bytes]:
    """The bodies, by position, of first events of deliveries; one statement, in the relay's transaction.

    One whose body is too much for us is logged and announced with an empty payload, which says that it cannot be read;
    the raw bytes stay with the delivery. Readers of events would wait for it for ever, whatever came after it.
    Those beyond ``bytes_at_once`` are answered with nothing, for the next claim. Everything else that runs in this
    process has its turns meanwhile.
    """
    found = await driver.fetch(_CONTENTS, [message.subject for message in messages], bytes_at_once)
    deliveries = {record["id"]: record for record in found}
    bodies: dict[int, bytes] = {}
    unpaused = 0
    for message in messages:
        record = deliveries.get(message.subject)
        body = b"" if record is not None and not record["fits"] else _rendered(message, record)
        if body is not None:
            bodies[message.position] = body
        unpaused += _OTHER_BYTES + (0 if record is None else len(record["body"] or b""))
        if unpaused >= BYTES_WITHOUT_A_PAUSE:
            await clock.sleep(0)
            unpaused = 0
    return bodies


def _rendered(message: WaitingMessage, record: Mapping[str, Any] | None) -> bytes | None:
    if record is None:
        log.error("announcement_without_delivery", event_id=message.message_id, delivery_id=message.subject)
        return None
    try:
        values = {**record, "account": record["account"] or None, "trust": Trust(record["trust"])}
        values.pop("fits")
        contents = EventContents(**values)
        announce = partial(first_announcement, message_id=message.message_id, announced_at=message.created_at)
        try:
            return announce(contents).to_json()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for this delivery for ever
            # Our bug, or bytes that nobody thought of; never the error's text, which may quote the body.
            log.error("announced_without_its_payload", delivery_id=message.subject, error=type(error).__name__)
            return announce(replace(contents, body=b"")).to_json()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other deliveries go on
        log.error("announcement_not_rendered", delivery_id=message.subject, error=type(error).__name__)
        return None
