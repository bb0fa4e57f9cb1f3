"""This service's queues and what handles their messages, as data."""

from __future__ import annotations

from services.payment_service.messaging.handlers import WebhookHandler
from services.payment_service.use_cases.ports import Context
from shared.contracts.topology import PAYMENT_WEBHOOKS
from shared.db.session import Database
from shared.messaging.bus import Subscription


def subscriptions(context: Context, database: Database) -> tuple[Subscription, ...]:
    return (Subscription(PAYMENT_WEBHOOKS, WebhookHandler(context), database, concurrency=8),)
