"""Forget what nobody will ask for: payments dropped long ago, and runs that ended long ago."""

from __future__ import annotations

from datetime import timedelta

import structlog

from services.reconciler.use_cases.ports import Context

log = structlog.get_logger()

BATCH = 5_000


async def forget_old(context: Context, *, keep_days: int) -> bool:
    """One bounded batch; True while there is more.

    A dropped payment is kept this long only so that an old event, arriving late, is recognised as old. Later than that
    it would be watched again, asked about once, and dropped again.
    """
    before = context.clock.now() - timedelta(days=keep_days)
    async with context.uow() as tx:
        payments = await tx.watched.forget_dropped(before, limit=BATCH)
        runs = await tx.runs.forget_ended(before, limit=BATCH)
    if payments or runs:
        log.info("old_rows_forgotten", payments=payments, runs=runs)
    return BATCH in (payments, runs)
