"""Send what is due, many at a time, and write down how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from services.gateway_sandbox.domain.deliveries import Delivery, DeliveryState, next_try_at
from services.gateway_sandbox.use_cases.sandbox import Sandbox

log = structlog.get_logger()

LEASE_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SendResult:
    """``status`` is None when no answer came; ``error`` then says why, in a word."""

    status: int | None
    error: str | None = None

    @property
    def is_accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookSender(Protocol):
    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> SendResult: ...


@dataclass(slots=True)
class Deliverer:
    """``urls`` is where each gateway's webhooks go. At most ``concurrency`` deliveries are under way."""

    sandbox: Sandbox
    sender: WebhookSender
    urls: Mapping[str, str]
    concurrency: int
    timeout_seconds: float
    wait_multiplier: float

    async def deliver_due(self) -> bool:
        """Claim and send one batch; True when there may be more at once.

        A claim is a lease: if this process is killed while sending, the delivery is due again when the lease ends.
        """
        now = self.sandbox.ports.clock.now()
        lease_until = now + timedelta(seconds=self.timeout_seconds + LEASE_MARGIN_SECONDS)
        async with self.sandbox.uow() as tx:
            claimed = await tx.deliveries.claim(now, lease_until, self.concurrency)
        released = await asyncio.gather(*(self._deliver(delivery) for delivery in claimed))
        return len(claimed) == self.concurrency or any(released)

    async def _deliver(self, delivery: Delivery) -> bool:
        """True when a held delivery may go out now."""
        gateway = self.sandbox.gateways.get(delivery.gateway)
        if gateway is None:  # switched off since; its lease keeps it for the day it is switched on again
            return False
        body = delivery.body.encode()
        headers = {"Content-Type": "application/json; charset=utf-8"}
        headers.update(gateway.sign(body, self.sandbox.ports.clock.now()))
        result = await self.sender.send(self.urls[delivery.gateway], headers, body)
        return await self._write_down(delivery, result)

    async def _write_down(self, delivery: Delivery, result: SendResult) -> bool:
        now = self.sandbox.ports.clock.now()
        delivery.last_status, delivery.last_error = result.status, result.error
        if result.is_accepted:
            delivery.state, delivery.delivered_at = DeliveryState.DELIVERED, now
        else:
            again_at = next_try_at(delivery, now, self.wait_multiplier)
            delivery.state = DeliveryState.PENDING if again_at else DeliveryState.ABANDONED
            delivery.next_try_at = again_at or now
            log.info(
                "webhook_not_accepted",
                gateway=delivery.gateway,
                event_id=delivery.event_id,
                tries=delivery.tries,
                status=result.status,
                error=result.error,
            )
        async with self.sandbox.uow() as tx:
            await tx.deliveries.save_result(delivery)
            return result.is_accepted and await tx.deliveries.release_held_before(delivery, now) > 0
