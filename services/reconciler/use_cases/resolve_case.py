"""What operators do about a case: explain it, match its line, send a command, take it on, note something.

All of it is kept with who, when and why. Whatever moves money above the limit takes two people (failure RC17).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.reconciler.domain.cases import MONEY_ACTIONS, Action, Case, CaseNote, CaseStatus
from services.reconciler.domain.errors import ActionNotPossible, CaseAlreadyResolved, RunFirst, SecondPersonNeeded
from services.reconciler.domain.mirror import KnownPayment
from services.reconciler.use_cases.act_on_case import act_on_case, can_act_on_case
from services.reconciler.use_cases.keep_cases import announce
from services.reconciler.use_cases.match_line import lock_account_of, match_line
from services.reconciler.use_cases.mirror_ports import Source
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from shared.errors import NotFound

NEVER = datetime(1970, 1, 1, tzinfo=UTC)

ENDINGS = {Action.ACCEPT: "accepted", Action.MATCH: "matched"}
"""What ends a case at once. A command does not: the next run sees its effect, and closes it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants done, and why."""

    action: Action
    reason: str
    by: str
    payment_id: str | None = None
    """To which payment the line belongs (``match``)."""


async def resolve_case(case_id: str, wish: Wish, context: Context) -> Case:
    """The case as it is then. Asked again before a run has looked for its effect, a command is not sent again; after
    that it is another one, which takes as many people.

    Raises NotFound, CaseAlreadyResolved, SecondPersonNeeded (the same person asked twice), ActionNotPossible, and
    RunFirst: money is not moved while another command of the case may still take effect.
    """
    at = context.clock.now()
    async with context.uow() as tx:
        if wish.action is Action.MATCH:
            await lock_account_of(tx, case_id)
        case = await _held(tx, case_id)
        if case.status is CaseStatus.RESOLVED:
            return _as_it_ended(case, wish)
        on_its_way = await _on_its_way(tx, case, context)
        if wish.action in on_its_way:
            return case
        if wish.action in MONEY_ACTIONS and on_its_way:
            raise RunFirst
        if await _takes_two(tx, case, wish, context) and not _approves(case, wish):
            if not await can_act_on_case(tx, case, wish.action, context):
                raise ActionNotPossible  # nobody is asked to approve what cannot be carried out
            return await _ask_for_approval(tx, case, wish, at)
        if wish.action in ENDINGS:
            return await _end(tx, case, wish, at, context)
        return await _send(tx, case, wish, context)


async def assign_case(case_id: str, owner: str | None, *, by: str, context: Context) -> Case:
    """Raises NotFound, CaseAlreadyResolved."""
    async with context.uow() as tx:
        case = await _held(tx, case_id)
        if case.status is CaseStatus.RESOLVED:
            raise CaseAlreadyResolved
        if case.owner == owner:
            return case
        changed = replace(case, owner=owner)
        await tx.cases.save(changed)
        words = f"assigned to {owner}" if owner else "assigned to nobody"
        await tx.cases.add_note(CaseNote(case_id, 0, by, words, context.clock.now()))
    return changed


async def note_on_case(case_id: str, text: str, *, by: str, context: Context) -> Case:
    """Also on a resolved one: what is learnt later belongs to it. Raises NotFound."""
    async with context.uow() as tx:
        case = await _held(tx, case_id)
        await tx.cases.add_note(CaseNote(case_id, 0, by, text, context.clock.now()))
    return case


async def _held(tx: ReconcilerTransaction, case_id: str) -> Case:
    case = await tx.cases.get(case_id, for_update=True)
    if case is None:
        raise NotFound
    return case


def _as_it_ended(case: Case, wish: Wish) -> Case:
    is_repeated = case.resolution == ENDINGS.get(wish.action, "") and case.resolved_by == wish.by
    if not is_repeated:
        raise CaseAlreadyResolved
    return case


def _approves(case: Case, wish: Wish) -> bool:
    """Whether this is the second person. Raises SecondPersonNeeded: it is the first one again."""
    if case.status is not CaseStatus.AWAITING_APPROVAL or case.requested_action is not wish.action:
        return False
    if case.requested_by == wish.by:
        raise SecondPersonNeeded
    return True


async def _takes_two(tx: ReconcilerTransaction, case: Case, wish: Wish, context: Context) -> bool:
    if wish.action not in MONEY_ACTIONS:
        return False
    payment_id = case.subject.payment_id
    payment = await tx.mirror.payment(payment_id) if payment_id else None
    currency = payment.amount.currency if payment else case.currency
    amount = _at_stake(case, payment)
    return context.second_person.is_needed(wish.action, currency=currency, amount_minor=amount)


def _at_stake(case: Case, payment: KnownPayment | None) -> int | None:
    """The most that may move: what the payment was for, or what the case is about, if that is more."""
    amounts = [abs(amount) for amount in (case.expected_minor, case.actual_minor) if amount is not None]
    if payment is not None:
        amounts += [payment.amount.amount_minor, payment.standing.amount_captured]
    return max(amounts, default=None)


async def _ask_for_approval(tx: ReconcilerTransaction, case: Case, wish: Wish, at: datetime) -> Case:
    """Another action that was asked for is withdrawn by this."""
    asked = replace(
        case,
        status=CaseStatus.AWAITING_APPROVAL,
        requested_action=wish.action,
        requested_by=wish.by,
        request_reason=wish.reason,
    )
    await tx.cases.save(asked)
    await _note(tx, case, wish, at, "asked for; a second person has to ask for the same")
    return asked


async def _end(tx: ReconcilerTransaction, case: Case, wish: Wish, at: datetime, context: Context) -> Case:
    if wish.action is Action.MATCH:
        case = await match_line(tx, case, wish.payment_id, context)
    ended = replace(
        _without_request(case),
        status=CaseStatus.RESOLVED,
        resolution=ENDINGS[wish.action],
        resolved_at=at,
        resolved_by=wish.by,
        reason=wish.reason,
    )
    await tx.cases.save(ended)
    await _note(tx, case, wish, at, "done")
    await announce(tx, resolved=[ended])
    return ended


async def _send(tx: ReconcilerTransaction, case: Case, wish: Wish, context: Context) -> Case:
    attempt = 1 + sum(each.action is wish.action for each in await tx.cases.actions_of(case.case_id))
    if not await act_on_case(tx, case, wish.action, asked_by=wish.by, context=context, attempt=attempt):
        if wish.action is Action.SYNC and attempt > 1:  # once a run, however often it is asked for
            return case
        raise ActionNotPossible
    sent = replace(_without_request(case), status=CaseStatus.OPEN)
    await tx.cases.save(sent)
    approved = f"; approved after {case.requested_by} asked for it" if _is_approved(case, wish) else ""
    await _note(tx, case, wish, context.clock.now(), f"sent{approved}")
    return sent


async def _on_its_way(tx: ReconcilerTransaction, case: Case, context: Context) -> frozenset[Action]:
    """What was sent, and no run has looked for its effect since: the case was found again from what the owners said
    after it had its time. Asking the gateway moves nothing."""
    marks = await tx.mirror.marks()
    looked_at = min(marks.get(source, NEVER) for source in (Source.PAYMENTS, Source.ORDERS))
    seen = looked_at if case.last_seen_at >= looked_at else NEVER
    return frozenset(
        each.action
        for each in await tx.cases.actions_of(case.case_id)
        if each.action is not Action.SYNC and each.verified_at is None and each.at + context.order_rules.grace > seen
    )


def _is_approved(case: Case, wish: Wish) -> bool:
    return case.status is CaseStatus.AWAITING_APPROVAL and case.requested_action is wish.action


def _without_request(case: Case) -> Case:
    return replace(case, requested_action=None, requested_by=None, request_reason=None)


async def _note(tx: ReconcilerTransaction, case: Case, wish: Wish, at: datetime, what: str) -> None:
    withdrawn = ""
    if case.status is CaseStatus.AWAITING_APPROVAL and case.requested_action is not wish.action:
        withdrawn = f"; {case.requested_action}, which {case.requested_by} asked for, is withdrawn"
    words = f"{wish.action}: {what}{withdrawn}: {wish.reason}"
    await tx.cases.add_note(CaseNote(case.case_id, 0, wish.by, words, at))
