"""Refresh the mirror of payments, orders and parked events from their owners' exports.

Each batch is stored in a transaction of its own, and a version never replaces a newer one: a pull that breaks off, or
is killed, leaves what came whole, and its mark where it was, so that the next one reads the same again.

An export that lacks what it had before is of a database that was restored from an old copy, or of another one (PG13).
Its word about what is not there is not taken: ``LookBack`` says which pull notices what.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from services.reconciler.domain.mirror import KnownOrder, KnownPayment
from services.reconciler.use_cases.look_back import LookBack, OverlapLookBack, WholeLookBack
from services.reconciler.use_cases.mirror_ports import MirrorRepository, Source
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.running import Progress

T = TypeVar("T", KnownPayment, KnownOrder)


@dataclass(frozen=True, slots=True)
class _Export(Generic[T]):
    source: Source
    read: Callable[[datetime | None], AsyncGenerator[Sequence[T], None]]
    store: Callable[[MirrorRepository, Sequence[T]], Awaitable[int]]
    key: Callable[[T], str]


async def pull_exports(context: Context, progress: Progress) -> int:
    """How many documents their owners had no more, or in an older version; the mirror says what they say.

    Raises ServiceUnavailable, ExportBroken, or ExportWentBack.

    Payments come first: an order that was read later may know more than its payment here shows, which nobody takes for
    a disagreement. The other way about, orders would seem not to know what they were told meanwhile.
    """
    exports = context.exports
    payments: _Export[KnownPayment] = _Export(
        Source.PAYMENTS,
        exports.payments,
        lambda mirror, batch: mirror.put_payments(batch),
        lambda each: each.payment_id,
    )
    orders: _Export[KnownOrder] = _Export(
        Source.ORDERS, exports.orders, lambda mirror, batch: mirror.put_orders(batch), lambda each: each.order_id
    )
    went_back = await _pull(payments, context, progress)
    went_back += await _pull(orders, context, progress)
    await _pull_parked_events(context, progress)
    return went_back


async def _pull(export: _Export[T], context: Context, progress: Progress) -> int:
    source, began_at = export.source, context.clock.now()
    since, look_back = await _begin(export, began_at, context)
    done = 0
    await progress(f"pulling_{source.value}")
    async with aclosing(export.read(since)) as batches:
        async for batch in batches:
            async with context.uow() as tx:
                await look_back.see(tx.mirror, batch)
                await export.store(tx.mirror, batch)
            done += len(batch)
            await progress(f"pulling_{source.value}", done)
    went_back = await look_back.end(export.store)
    async with context.uow() as tx:
        await tx.mirror.move_mark(source, began_at, is_whole=since is None, now=context.clock.now())
    return went_back


async def _begin(export: _Export[T], began_at: datetime, context: Context) -> tuple[datetime | None, LookBack[T]]:
    """Since when to read; None: all there is. A mark in the future proves nothing: a clock was wrong once."""
    source, rules = export.source, context.order_rules
    async with context.uow() as tx:
        mark = (await tx.mirror.marks()).get(source)
        whole_at = (await tx.mirror.whole_pulls()).get(source)
        is_recent = whole_at is not None and whole_at <= began_at < whole_at + rules.pull_whole_every
        if mark is None or not is_recent or mark > began_at + rules.pull_overlap or rules.accept_restored:
            return None, WholeLookBack(source, export.key, began_at - rules.pull_overlap, context)
        since, until = min(mark, began_at) - rules.pull_overlap, min(mark, began_at)
        is_watched = source is Source.PAYMENTS
        expected = await tx.mirror.changed_between(source, since, until) if is_watched else set()
    return since, OverlapLookBack(source, export.key, expected)


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
        await tx.mirror.move_mark(Source.PARKED_EVENTS, began_at, is_whole=True, now=context.clock.now())
