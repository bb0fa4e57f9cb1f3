"""The background work: webhook deliveries, sessions that expire, stored answers that are forgotten."""

from __future__ import annotations

from services.gateway_sandbox.bootstrap import Container
from shared.tasks import supervise


async def run_worker(container: Container) -> None:
    """Runs until cancelled."""
    await supervise(
        {
            "sandbox-deliveries": container.deliveries.run,
            "sandbox-expiry": container.expiry.run,
            "sandbox-cleaning": container.cleaning.run,
        }
    )
