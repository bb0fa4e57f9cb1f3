"""Match a line with the payment that a person names, and judge that payment at once by what the line says of it."""

from __future__ import annotations

from dataclasses import replace

from services.reconciler.domain.cases import Case, CaseKind, Subject
from services.reconciler.domain.errors import ActionNotPossible
from services.reconciler.domain.limited_findings import Limited
from services.reconciler.domain.payment_books import OF_A_PAYMENT
from services.reconciler.use_cases.case_ports import CaseFilter
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.settling import due_of, judge_touched, keep_and_act

MAX_CASES_OF_PAYMENT = 1_000


async def lock_account_of(tx: ReconcilerTransaction, case_id: str) -> None:
    """Before the case itself is locked: whoever settles a file locks in this order too."""
    case = await tx.cases.get(case_id)
    if case is not None and case.subject.gateway is not None:
        await tx.settlement.lock_account(case.subject.gateway, case.subject.account or "")


async def match_line(tx: ReconcilerTransaction, case: Case, payment_id: str | None, context: Context) -> Case:
    """The case, about the payment. What the line does not say of it as we do is another case from now on.

    Under the lock of the account. Raises ActionNotPossible.
    """
    subject = case.subject
    if subject.file_id is None or subject.line_number is None:
        raise ActionNotPossible("This case is not about a line of a settlement file; there is nothing to match.")
    if payment_id is None or await tx.mirror.payment(payment_id) is None:
        raise ActionNotPossible("No such payment is known here; name the payment_id that the line belongs to.")
    if not await tx.settlement.match_by_person(subject.file_id, subject.line_number, payment_id):
        raise ActionNotPossible(
            "The line is matched to another payment, or is not there any more, or its gateway, account or currency is"
            " not the payment's."
        )
    matched = replace(case, subject=replace(subject, payment_id=payment_id))
    await _judge(tx, matched.subject, payment_id, context)
    return matched


async def _judge(tx: ReconcilerTransaction, subject: Subject, payment_id: str, context: Context) -> None:
    gateway, account = subject.gateway or "", subject.account or ""
    known = CaseFilter(kind=CaseKind.SETTLEMENT, unresolved=True, payment_id=payment_id)
    found = await tx.cases.search(known, after=None, limit=MAX_CASES_OF_PAYMENT)
    looked_at = [each for each in found if each.scenario in OF_A_PAYMENT]
    limited = Limited(subject, payment_id, always={each.key for each in looked_at})
    await judge_touched(limited, tx, await due_of(tx, gateway, account, context))
    await keep_and_act(tx, list(limited.findings()), looked_at, None, context)
