"""Payments become watched: by their events, and by a pull that finds those whose events were lost."""

from __future__ import annotations

from collections.abc import Sequence

from services.reconciler.domain.models import SeenPayment, WatchedPayment
from services.reconciler.use_cases.ports import Context, KnownVersion, ReconcilerTransaction


async def watch_payments(tx: ReconcilerTransaction, seen: Sequence[SeenPayment], context: Context) -> int:
    """Record what is newer than what is known; returns how many payments are new here. Repeating it changes nothing."""
    versions = await tx.watched.versions([payment.payment_id for payment in seen])
    added = 0
    # In the order of ids, so that two writers of the same payments wait for each other instead of deadlocking.
    for payment in sorted(seen, key=lambda each: each.payment_id):
        if _is_news(payment, versions.get(payment.payment_id)):
            added += await _watch(tx, payment, context)
    return added


def _is_news(seen: SeenPayment, known: KnownVersion | None) -> bool:
    if known is None or known.version < seen.version:
        return True
    # Events do not say when a hold ends; the list does, with the version that an event has told already.
    return known.version == seen.version and seen.capture_before not in (None, known.capture_before)


async def _watch(tx: ReconcilerTransaction, seen: SeenPayment, context: Context) -> bool:
    moment = context.moment()
    first = WatchedPayment.first_seen(seen, context.timetable, moment)
    if await tx.watched.add(first):
        return True
    known = await tx.watched.get_for_update(seen.payment_id)
    if known is not None:
        told = known.told(seen, context.timetable, moment)
        if told != known:
            await tx.watched.save(told)
    return False
