"""What settling a file and settling again have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from services.reconciler.domain.cases import Case, Finding
from services.reconciler.domain.limited_findings import Limited
from services.reconciler.domain.payment_books import judge_payment
from services.reconciler.domain.settlement_rules import Due, due
from services.reconciler.use_cases.act_on_case import POLICY, act_on_case
from services.reconciler.use_cases.case_ports import CaseCounts
from services.reconciler.use_cases.keep_cases import keep_cases
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction


async def judge_touched(limited: Limited, tx: ReconcilerTransaction, what_is_due: Due) -> None:
    """Judge the books of the touched payments, a page at a time."""
    async for page in tx.settlement.touched_books():
        for books in page:
            limited.add(judge_payment(books, what_is_due))


async def due_of(
    tx: ReconcilerTransaction,
    gateway: str,
    account: str,
    context: Context,
    *,
    covers: tuple[datetime | None, datetime | None] = (None, None),
) -> Due:
    """What must have been settled by now; ``covers``: the times of a file that is not marked read yet."""
    covered = (await tx.settlement.covered(gateway, account)).with_file(*covers)
    return due(context.settlement_rules, gateway, covered, now=context.clock.now())


async def cases_of(tx: ReconcilerTransaction, case_ids: Iterable[str]) -> list[Case]:
    return [case for case_id in case_ids if (case := await tx.cases.get(case_id)) is not None]


async def keep_and_act(
    tx: ReconcilerTransaction,
    findings: Sequence[Finding],
    looked_at: Sequence[Case],
    run_id: str | None,
    context: Context,
) -> CaseCounts:
    kept = await keep_cases(tx, findings, looked_at=looked_at, run_id=run_id, context=context)
    for case, action in kept.to_act:
        await act_on_case(tx, case, action, asked_by=POLICY, context=context)
    return kept.counts
