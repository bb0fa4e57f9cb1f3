"""This service's queues, as data: it consumes nothing, and publishes webhook.received through its outbox."""

from __future__ import annotations

from collections.abc import Sequence

from shared.contracts.topology import Queue

QUEUES: Sequence[Queue] = ()
