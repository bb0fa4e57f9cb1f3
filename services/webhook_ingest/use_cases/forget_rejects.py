"""Refused deliveries are kept for days, not for ever (SEC-46)."""

from __future__ import annotations

from datetime import timedelta

import structlog

from services.webhook_ingest.use_cases.ports import UnitOfWorkPort
from shared.ports import Ports

log = structlog.get_logger()


async def forget_rejects(retention_days: int, *, uow: UnitOfWorkPort, ports: Ports) -> bool:
    """Returns False: one statement takes all there is (at most a thousand rows per gateway)."""
    async with uow() as tx:
        forgotten = await tx.rejects.delete_older_than(ports.clock.now() - timedelta(days=retention_days))
    if forgotten:
        log.info("rejects_forgotten", count=forgotten)
    return False
