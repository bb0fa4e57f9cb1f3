"""The queues that order_service consumes, as data."""

from __future__ import annotations

from shared.contracts.topology import ORDER_PAYMENTS, Queue

QUEUES: tuple[Queue, ...] = (ORDER_PAYMENTS,)
