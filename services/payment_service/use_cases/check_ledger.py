"""Does the ledger balance, and does it say what the payments' totals say? Asked again and again, a little at a time.

Each round looks at what has changed since, and at the next stretch of everything there is: so a difference that a
change brings is found within a round or two, one that came otherwise (a restore, a hand at the database) when the walk
comes by, and a round stays cheap however many rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from services.payment_service.use_cases.ports import Context, LedgerMarks, PaymentTransaction
from shared.metrics import LEDGER_IMBALANCE

log = structlog.get_logger()

MAX_CHANGES = 5_000
"""Rows of each table that one round looks at; a backlog is worked off by rounds that follow at once."""
WALK_PAYMENTS = 2_000
WALK_ENTRIES = 10_000
MAX_FOUND = 100
"""So many are kept and told; where there are more, one cause is behind them all."""


@dataclass(slots=True)
class LedgerWatch:
    """How far one process has looked, and what it has found. It starts anew with the process, and so does the walk."""

    before_last: LedgerMarks | None = None
    """Where the round before the last had come to. Looking begins there, because a row gets its number before its
    transaction commits: one that was under way then is seen now."""
    last: LedgerMarks | None = None
    next_payment: str = ""
    next_entry: int = 0
    untied: tuple[str, ...] = ()
    """Payments that did not tie, looked at in every round until they do."""
    unbalanced: tuple[int, ...] = ()


async def check_ledger(watch: LedgerWatch, context: Context) -> bool:
    """One round; True when changes are left to look at. Sets the metric and names what it found in the log.

    The trial balance of a gateway and currency is zero exactly when every entry sums to zero in them, so entries are
    what is looked at.
    """
    async with context.uow() as tx:
        now = await tx.ledger.marks()
        until = now if watch.last is None else _bounded(watch.last, now)
        since = watch.before_last or until
        unbalanced = await _check_entries(tx, watch, since, until, now)
        untied = await _check_payments(tx, watch, since, until)
    _report(watch, unbalanced, untied)
    watch.before_last, watch.last = watch.last or until, until
    return until != now


async def _check_entries(
    tx: PaymentTransaction, watch: LedgerWatch, since: LedgerMarks, until: LedgerMarks, now: LedgerMarks
) -> tuple[int, ...]:
    walk_until = watch.next_entry + WALK_ENTRIES
    walked = await tx.ledger.unbalanced_entries(
        after=watch.next_entry, until=walk_until, known=watch.unbalanced, limit=MAX_FOUND
    )
    changed = await tx.ledger.unbalanced_entries(after=since.entry, until=until.entry, known=(), limit=MAX_FOUND)
    watch.next_entry = walk_until if walk_until < now.entry else 0
    return tuple(sorted({*walked, *changed})[:MAX_FOUND])


async def _check_payments(
    tx: PaymentTransaction, watch: LedgerWatch, since: LedgerMarks, until: LedgerMarks
) -> tuple[str, ...]:
    changed = await tx.ledger.changed_payments(since, until)
    walked = await tx.ledger.some_payments(after=watch.next_payment, limit=WALK_PAYMENTS)
    watch.next_payment = walked[-1] if len(walked) == WALK_PAYMENTS else ""
    return tuple(await tx.ledger.untied_payments(sorted({*changed, *walked, *watch.untied}), limit=MAX_FOUND))


def _bounded(looked_at: LedgerMarks, now: LedgerMarks) -> LedgerMarks:
    return LedgerMarks(
        min(now.entry, looked_at.entry + MAX_CHANGES),
        min(now.fact, looked_at.fact + MAX_CHANGES),
        min(now.timeline, looked_at.timeline + MAX_CHANGES),
    )


def _report(watch: LedgerWatch, unbalanced: tuple[int, ...], untied: tuple[str, ...]) -> None:
    LEDGER_IMBALANCE.labels("trial_balance").set(len(unbalanced))
    LEDGER_IMBALANCE.labels("payment").set(len(untied))
    if (unbalanced, untied) != (watch.unbalanced, watch.untied):
        if unbalanced or untied:
            log.error("ledger_imbalance", entry_ids=list(unbalanced), payment_ids=list(untied))
        else:
            log.info("ledger_balanced_again")
    watch.unbalanced, watch.untied = unbalanced, untied
