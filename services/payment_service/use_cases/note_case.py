"""Tell in a payment's timeline what the reconciler found about it, and how that was settled."""

from __future__ import annotations

from datetime import datetime

from services.payment_service.domain.case_timeline import CaseNews, case_entry
from services.payment_service.use_cases.ports import Context
from shared.contracts.reconciliation_events import CaseEventData, ReconciliationCaseResolved
from shared.unit_of_work import InboxClaim


async def note_case(case: CaseEventData, at: datetime, claim: InboxClaim, context: Context) -> None:
    """One entry per event, however often it is delivered. A case without a payment, or about one that is not ours, is
    only claimed: an orphan at the gateway has no timeline here."""
    async with context.uow() as tx:
        if not await tx.inbox.claim(claim):
            return
        if case.payment_id is not None and await tx.payments.get(case.payment_id) is not None:
            await tx.timeline.add(case.payment_id, case_entry(_news(case, at)))


def _news(case: CaseEventData, at: datetime) -> CaseNews:
    over = case if isinstance(case, ReconciliationCaseResolved) else None
    return CaseNews(
        case_id=case.case_id,
        kind=case.kind,
        scenario=case.scenario,
        at=at,
        currency=case.currency,
        expected_minor=case.expected_minor,
        actual_minor=case.actual_minor,
        difference_minor=case.difference_minor,
        action=case.action,
        resolution=over.resolution if over is not None else None,
        resolved_by=over.resolved_by if over is not None else None,
    )
