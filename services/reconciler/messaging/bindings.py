"""This service's queues and what handles their messages, as data."""

from __future__ import annotations

from services.reconciler.messaging.handlers import PaymentEventsBatch, PaymentEventsHandler
from services.reconciler.use_cases.ports import Context
from shared.contracts.topology import RECONCILER_PAYMENTS
from shared.db.session import Database
from shared.messaging.bus import Subscription


def subscriptions(context: Context, database: Database) -> tuple[Subscription, ...]:
    handler, batch = PaymentEventsHandler(context), PaymentEventsBatch(context)
    return (Subscription(RECONCILER_PAYMENTS, handler, database, concurrency=8, batch=batch),)
