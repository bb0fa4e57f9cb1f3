"""Exchanges, queues and waits of the broker, as data. ``payrail topology apply`` declares them; services only use them.

Nothing declares topology at run time: one queue declared with other arguments silently stops a whole aio-pika
connection (field note M8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.contracts.commands import (
    OrderCancelRequested,
    OrderConfirmRequested,
    PaymentSyncRequested,
    RefundRequested,
    SettlementBooked,
)
from shared.contracts.payment_events import PAYMENT_EVENTS
from shared.contracts.reconciliation_events import CASE_EVENTS
from shared.contracts.webhook_events import WebhookReceived

EVENTS_EXCHANGE = "payrail.events"
"""Topic exchange; the routing key is the event's type."""

DEAD_EXCHANGE = "payrail.dead"
"""Direct exchange; a message that its consumer gave up on, or that the broker stopped redelivering, goes to
``<queue>.dead`` with the queue's name as routing key."""

RETRY_DELAYS_SECONDS: Sequence[float] = (1, 5, 30, 120, 600)
"""The growing waits between attempts of a failing message; the last one repeats until MAX_ATTEMPTS."""

MAX_ATTEMPTS = 8
"""Attempts of one message before it is parked as dead (failure Q12: below the broker's own limit)."""

BROKER_DELIVERY_LIMIT = 20
"""The broker's backstop; ours counts in the inbox table, because RabbitMQ 4.3 no longer counts nacks (field note 4)."""


@dataclass(frozen=True, slots=True)
class Queue:
    """One consumer's quorum queue and the event types bound to it."""

    name: str
    types: tuple[str, ...]
    retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS

    @property
    def dead_letter_queue(self) -> str:
        return f"{self.name}.dead"

    def retry_queue(self, delay_seconds: float) -> str:
        return f"{self.name}.retry.{delay_seconds:g}s"

    def retry_delay_seconds(self, attempt: int) -> float:
        """The wait after the ``attempt``-th failed attempt (counted from 1)."""
        return self.retry_delays_seconds[min(max(attempt, 1), len(self.retry_delays_seconds)) - 1]


PAYMENT_WEBHOOKS = Queue("payment_service.webhooks", (WebhookReceived.TYPE,))
PAYMENT_COMMANDS = Queue(
    "payment_service.commands", (RefundRequested.TYPE, PaymentSyncRequested.TYPE, SettlementBooked.TYPE)
)
PAYMENT_CASES = Queue("payment_service.cases", tuple(model.TYPE for model in CASE_EVENTS))
ORDER_COMMANDS = Queue("order_service.commands", (OrderConfirmRequested.TYPE, OrderCancelRequested.TYPE))
ORDER_PAYMENTS = Queue("order_service.payments", tuple(model.TYPE for model in PAYMENT_EVENTS))
RECONCILER_PAYMENTS = Queue("reconciler.payments", tuple(model.TYPE for model in PAYMENT_EVENTS))

QUEUES: Mapping[str, Queue] = {
    queue.name: queue
    for queue in (
        PAYMENT_WEBHOOKS,
        PAYMENT_COMMANDS,
        PAYMENT_CASES,
        ORDER_PAYMENTS,
        ORDER_COMMANDS,
        RECONCILER_PAYMENTS,
    )
}

TYPES_WITH_A_CONSUMER = frozenset(type_ for queue in QUEUES.values() for type_ in queue.types)
"""An event of one of these that reaches no queue is a fault and stays in the outbox (failure Q7); others may have no
consumer in an installation."""


def retry_delay_seconds(attempt: int) -> float:
    """The wait after the ``attempt``-th failed attempt to publish (counted from 1)."""
    return RETRY_DELAYS_SECONDS[min(max(attempt, 1), len(RETRY_DELAYS_SECONDS)) - 1]
