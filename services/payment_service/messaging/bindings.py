"""This service's queues and what handles their messages, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.payment_service.messaging.handlers import (
    CaseHandler,
    CommandHandler,
    WebhookBatchHandler,
    WebhookHandler,
)
from services.payment_service.use_cases.ports import Context
from shared.contracts.topology import PAYMENT_CASES, PAYMENT_COMMANDS, PAYMENT_WEBHOOKS
from shared.db.session import Database
from shared.messaging.bus import Subscription


def subscriptions(
    context: Context, database: Database, senders: Mapping[str, Sequence[bytes]]
) -> tuple[Subscription, ...]:
    return (
        Subscription(
            PAYMENT_WEBHOOKS, WebhookHandler(context), database, concurrency=8, batch=WebhookBatchHandler(context)
        ),
        # One that asks a gateway which hangs must not keep a refund waiting.
        Subscription(PAYMENT_COMMANDS, CommandHandler(context, senders), database, concurrency=4),
        Subscription(PAYMENT_CASES, CaseHandler(context), database, concurrency=2),
    )
