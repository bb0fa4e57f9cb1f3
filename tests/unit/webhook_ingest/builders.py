"""Deliveries and rows for the tests of how they are stored."""

from __future__ import annotations

import hashlib
from typing import Any

from services.webhook_ingest.db.delivery_rows import Row, row_of
from services.webhook_ingest.domain.models import Delivery
from services.webhook_ingest.signatures.port import Trust
from shared.ids import TimeOrderedIds
from tests.support.clock import A_MOMENT, FakeClock, SeededRandomness

_ids = TimeOrderedIds(FakeClock(), SeededRandomness(77))


def a_delivery(key: str = "evt_1", **changes: Any) -> Delivery:
    body = b'{"id":"' + key.encode("utf-8", "surrogatepass") + b'","email":"jo@example.com"}'
    values: dict[str, Any] = {
        "id": _ids.new("whd"),
        "gateway": "stripe",
        "account": None,
        "dedupe_key": f"id:{key}",
        "event_id": key,
        "event_type": "payment_intent.succeeded",
        "trust": Trust.FULL,
        "key_id": "0a1b2c3d",
        "signed_at": A_MOMENT,
        "received_at": A_MOMENT,
        "method": "POST",
        "path": "/api/v1/webhooks/stripe",
        "query": "",
        "headers": (("Content-Type", "application/json"), ("Stripe-Signature", "t=1,v1=aa")),
        "content_type": "application/json",
        "body": body,
        "body_digest": hashlib.sha256(body).digest(),
        "body_size": len(body),
        "remote_address": "203.0.113.9",
        "request_id": "req_1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    return Delivery(**(values | changes))


def a_row(key: str = "evt_1", **changes: Any) -> Row:
    return row_of(a_delivery(key, **changes))
