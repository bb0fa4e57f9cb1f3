"""Keep cases as a run finds them: open new ones, touch those that are still there, close those that are settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from services.reconciler.domain.cases import COMMANDS, Action, Case, Finding
from services.reconciler.use_cases.case_ports import CaseCounts
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from shared.contracts.reconciliation_events import ReconciliationCaseOpened, ReconciliationCaseResolved

SETTLED = "settled"
WITHOUT_A_RUN = "reconciler"


@dataclass(frozen=True, slots=True)
class KeptCases:
    counts: CaseCounts
    to_act: tuple[tuple[Case, Action], ...]
    """What the policy has to send now: each action of a case is sent once (failure RC9)."""


async def keep_cases(
    tx: ReconcilerTransaction,
    findings: Sequence[Finding],
    *,
    looked_at: Sequence[Case],
    run_id: str | None,
    context: Context,
) -> KeptCases:
    """One case for each disagreement, however many runs find it, also at once (failure RC10).

    ``looked_at``: unresolved cases that the run evaluated anew. Those that no finding names are settled, unless another
    run has seen them since they were read: that one knew better. A finding that a person has accepted with the same
    amounts is explained, and settles its case like no finding at all.
    """
    at = context.clock.now()
    by_key = {finding.key: finding for finding in findings}
    # All that is there is locked first and in one order; only then anything is written.
    held = await tx.cases.lock(keys=list(by_key), case_ids=[case.case_id for case in looked_at])
    explained = await tx.cases.accepted(list(by_key.values()))
    seen = [finding for key, finding in sorted(by_key.items()) if key not in explained]
    case_ids = [context.ids.new("case") for _ in seen]
    kept = await tx.cases.put_all(seen, case_ids=case_ids, run_id=run_id, at=at)
    opened = [case for case, is_new in kept if is_new]
    gone = _settled(held, looked_at, seen={finding.key for finding in seen}, explained=explained)
    resolved = await tx.cases.resolve_all(gone, resolution=SETTLED, resolved_by=run_id or WITHOUT_A_RUN, at=at)
    await tx.cases.verify_actions(*gone, at=at)
    await announce(tx, opened=opened, resolved=resolved)
    to_act = await _unsent(tx, [case for case, _ in kept], by_key)
    return KeptCases(CaseCounts(len(opened), len(resolved)), to_act)


async def announce(tx: ReconcilerTransaction, *, opened: Sequence[Case] = (), resolved: Sequence[Case] = ()) -> None:
    await tx.outbox.add_all([(case.case_id, ReconciliationCaseOpened(**_facts(case))) for case in opened])
    await tx.outbox.add_all([(case.case_id, _resolution(case)) for case in resolved])


def _settled(
    held: Sequence[Case], looked_at: Sequence[Case], *, seen: AbstractSet[str], explained: AbstractSet[str]
) -> list[str]:
    read_at = {case.case_id: case.last_seen_at for case in looked_at}
    return [
        case.case_id
        for case in held
        if case.key not in seen
        and (case.key in explained or (case.case_id in read_at and case.last_seen_at <= read_at[case.case_id]))
    ]


async def _unsent(
    tx: ReconcilerTransaction, kept: Sequence[Case], findings: Mapping[str, Finding]
) -> tuple[tuple[Case, Action], ...]:
    wanted = [(case, action) for case in kept if (action := findings[case.key].action) in COMMANDS and action]
    sent = await tx.cases.sent([case.case_id for case, _ in wanted]) if wanted else frozenset()
    # Asking the gateway moves nothing: each run that still finds the case asks anew.
    return tuple(each for each in wanted if each[1] is Action.SYNC or (each[0].case_id, each[1]) not in sent)


def _resolution(case: Case) -> ReconciliationCaseResolved:
    ended = {"resolution": case.resolution, "resolved_by": case.resolved_by}
    return ReconciliationCaseResolved.model_validate(_facts(case) | ended)


def _facts(case: Case) -> dict[str, Any]:
    subject = case.subject
    return {
        "case_id": case.case_id,
        "kind": case.kind.value,
        "scenario": case.scenario.value,
        "gateway": subject.gateway,
        "order_id": subject.order_id,
        "payment_id": subject.payment_id,
        "file_id": subject.file_id,
        "payout_reference": subject.payout_reference,
        "currency": case.currency,
        "expected_minor": case.expected_minor,
        "actual_minor": case.actual_minor,
        "difference_minor": case.difference_minor,
        "action": case.action and case.action.value,
    }
