"""Payments become watched: by their events, and by a pull that finds those whose events were lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.reconciler.domain.models import SeenPayment, WatchedPayment
from services.reconciler.use_cases.ports import Context, KnownVersion, ReconcilerTransaction


async def watch_payments(tx: ReconcilerTransaction, seen: Sequence[SeenPayment], context: Context) -> int:
    """Record what is newer than what is known; returns how many payments are new here. Repeating it changes nothing.

    As many statements for many payments as for one. Of one payment each news is taken in the order given, as if it had
    come alone.
    """
    versions = await tx.watched.versions(sorted({payment.payment_id for payment in seen}))
    news: dict[str, list[SeenPayment]] = {}
    for payment in seen:
        if _is_news(payment, versions.get(payment.payment_id)):
            news.setdefault(payment.payment_id, []).append(payment)
    # In the order of ids, so that two writers of the same payments wait for each other instead of deadlocking.
    unknown = sorted(news.keys() - versions.keys())
    added = await tx.watched.add([_first_seen(news[payment_id], context) for payment_id in unknown])
    await _tell(tx, {payment_id: told for payment_id, told in news.items() if payment_id not in added}, context)
    return len(added)


def _is_news(seen: SeenPayment, known: KnownVersion | None) -> bool:
    if known is None or known.version < seen.version:
        return True
    # Events do not say when a hold ends; the list does, with the version that an event has told already.
    return known.version == seen.version and seen.capture_before not in (None, known.capture_before)


def _first_seen(news: Sequence[SeenPayment], context: Context) -> WatchedPayment:
    watched = WatchedPayment.first_seen(news[0], context.timetable, context.moment())
    return _told(watched, news[1:], context)


async def _tell(tx: ReconcilerTransaction, news: Mapping[str, Sequence[SeenPayment]], context: Context) -> None:
    """What is said of payments that are known, by this time at the latest."""
    if not news:
        return
    known = await tx.watched.lock(sorted(news))
    told = [_told(watched, news[payment_id], context) for payment_id, watched in known.items()]
    await tx.watched.save_all([watched for watched in told if watched != known[watched.payment_id]])


def _told(watched: WatchedPayment, news: Sequence[SeenPayment], context: Context) -> WatchedPayment:
    for seen in news:
        watched = watched.told(seen, context.timetable, context.moment())
    return watched
