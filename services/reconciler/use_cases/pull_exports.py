"""Refresh the mirror of payments, orders and parked events from their owners' exports.

Each batch is stored in a transaction of its own, and a version never replaces a newer one: a pull that breaks off, or
is killed, leaves what came whole, and its mark where it was, so that the next one reads the same again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TypeVar

from services.reconciler.use_cases.mirror_ports import MirrorRepository, Source
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.running import Progress

T = TypeVar("T")


async def pull_exports(context: Context, progress: Progress) -> None:
    """Raises ServiceUnavailable or ExportBroken.

    Payments come first: an order that was read later may know more than its payment here shows, which nobody takes for
    a disagreement. The other way about, orders would seem not to know what they were told meanwhile.
    """
    exports = context.exports
    await _pull(Source.PAYMENTS, exports.payments, lambda mirror, batch: mirror.put_payments(batch), context, progress)
    await _pull(Source.ORDERS, exports.orders, lambda mirror, batch: mirror.put_orders(batch), context, progress)
    await _pull_parked_events(context, progress)


async def _pull(
    source: Source,
    read: Callable[[datetime | None], AsyncGenerator[Sequence[T], None]],
    store: Callable[[MirrorRepository, Sequence[T]], Awaitable[int]],
    context: Context,
    progress: Progress,
) -> None:
    began_at = context.clock.now()
    async with context.uow() as tx:
        mark = (await tx.mirror.marks()).get(source)
    since = mark - context.order_rules.pull_overlap if mark is not None else None
    done = 0
    await progress(f"pulling_{source.value}")
    async with aclosing(read(since)) as batches:
        async for batch in batches:
            async with context.uow() as tx:
                await store(tx.mirror, batch)
            done += len(batch)
            await progress(f"pulling_{source.value}", done)
    async with context.uow() as tx:
        await tx.mirror.move_mark(source, began_at)


async def _pull_parked_events(context: Context, progress: Progress) -> None:
    """All of them, every time: one that is not exported any more has been claimed."""
    began_at = context.clock.now()
    await progress("pulling_parked_events")
    async with aclosing(context.exports.parked_events()) as batches:
        async for batch in batches:
            async with context.uow() as tx:
                await tx.mirror.put_parked_events(batch, seen_at=began_at)
    async with context.uow() as tx:
        await tx.mirror.forget_parked_events(not_seen_since=began_at)
        await tx.mirror.move_mark(Source.PARKED_EVENTS, began_at)
