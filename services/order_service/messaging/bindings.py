"""This service's queues and what handles their messages, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.order_service.messaging.handlers import CommandsHandler, PaymentEventsBatch, PaymentEventsHandler
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.settling_ports import PaymentBatchFactory
from shared.contracts.topology import ORDER_COMMANDS, ORDER_PAYMENTS
from shared.db.session import Database
from shared.messaging.bus import Subscription


def subscriptions(
    deps: Dependencies,
    database: Database,
    senders: Mapping[str, Sequence[bytes]],
    batches: PaymentBatchFactory,
) -> tuple[Subscription, ...]:
    return (
        Subscription(ORDER_PAYMENTS, PaymentEventsHandler(deps), database, batch=PaymentEventsBatch(deps, batches)),
        Subscription(ORDER_COMMANDS, CommandsHandler(deps, senders), database, concurrency=2),
    )
