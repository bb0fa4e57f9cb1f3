"""Settle again what is open, without any new file: payments that are known by now, cases, what is overdue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from services.reconciler.domain.cases import Case, CaseKind, Finding, Scenario, Subject
from services.reconciler.domain.limited_findings import MAX_FINDINGS_PER_SCENARIO, Limited
from services.reconciler.domain.loose_lines import fee_differs, unknown_line
from services.reconciler.domain.models import RunRequest
from services.reconciler.domain.payouts import judge_payout
from services.reconciler.domain.settlement_holding import foreign_file
from services.reconciler.use_cases.book_settlement import book_settlement
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.running import Progress, RunOutcome
from services.reconciler.use_cases.settlement_totals import Totals, totals_of_account
from services.reconciler.use_cases.settling import due_of, judge_touched, keep_and_act

MAX_CASES = 20_000
MAX_PAYOUTS = 10_000
MAX_HELD = 100
OF_FILES = frozenset(
    {
        Scenario.BAD_ROWS,
        Scenario.FILE_INCOMPLETE,
        Scenario.FILE_REFUSED,
        Scenario.FILE_TOTALS_DIFFER,
        Scenario.LINE_CHANGED,
    }
)
"""What files say does not change: these end when the same file comes again in order, or by a person."""


async def settle_again(run_id: str, request: RunRequest, context: Context, progress: Progress) -> RunOutcome:
    """One transaction per account, after which everything of it is as it can be known now."""
    totals: list[Totals] = []
    async with context.settlement_uow() as tx:
        accounts = await tx.settlement.accounts(request.gateway)
    checked = opened = resolved = 0
    for number, (gateway, account) in enumerate(accounts):
        await progress("settling_again", number, len(accounts))
        async with context.settlement_uow() as tx:
            again = _Again(tx, gateway, account, run_id, context)
            done = await again.settle()
            totals += await totals_of_account(tx, gateway, account, context, now=context.clock.now())
        checked, opened, resolved = checked + done.checked, opened + done.cases_opened, resolved + done.cases_resolved
    return RunOutcome(checked=checked, cases_opened=opened, cases_resolved=resolved, totals=tuple(totals))


class _Again:
    def __init__(self, tx: ReconcilerTransaction, gateway: str, account: str, run_id: str, context: Context) -> None:
        self._tx = tx
        self._gateway = gateway
        self._account = account
        self._run_id = run_id
        self._context = context
        self._name = f"{gateway}:{account}"
        self._unresolved: list[Case] = []

    async def settle(self) -> RunOutcome:
        settlement = self._tx.settlement
        await settlement.lock_account(self._gateway, self._account)
        matched = await settlement.match_again(self._gateway, self._account)
        looked_at = await self._cases()
        what_is_due = await due_of(self._tx, self._gateway, self._account, self._context)
        await settlement.touch(matched)
        await settlement.touch_open(self._gateway, self._account, what_is_due)
        await settlement.pair_touched()
        subject = Subject(gateway=self._gateway, account=self._account)
        limited = Limited(subject, self._name, always={case.key for case in looked_at}, counts_always=True)
        await judge_touched(limited, self._tx, what_is_due)
        limited.add(await self._lines(looked_at))
        limited.add(await self._payouts())
        looked_at += await self._book_held(limited)
        findings = list(limited.findings())
        counts = await keep_and_act(self._tx, findings, looked_at, self._run_id, self._context)
        return RunOutcome(checked=len(looked_at), cases_opened=counts.opened, cases_resolved=counts.resolved)

    async def _cases(self) -> list[Case]:
        """Those that are judged anew here. What a file had too much of to open a case for each, a person looks at."""
        self._unresolved = await self._tx.cases.unresolved(CaseKind.SETTLEMENT, gateway=self._gateway, limit=MAX_CASES)
        return [
            case
            for case in self._unresolved
            if case.subject.account == self._account
            and case.scenario not in OF_FILES
            and (not case.evidence.get("summary") or case.key.endswith(f":rest:{self._name}"))
        ]

    async def _book_held(self, limited: Limited) -> list[Case]:
        """Files that are foreign no more, or accepted as they are, go to the ledger; the cases that end with it."""
        settlement, ended = self._tx.settlement, set()
        for file_id in await settlement.held_files(self._gateway, self._account, limit=MAX_HELD):
            file = await self._tx.files.get(file_id, for_update=True)
            assert file is not None, "files are not deleted"
            await settlement.sum_lines(file)
            lines = await settlement.acquaintance()
            finding = foreign_file(file, lines)
            if lines.is_foreign and finding.key not in await self._tx.cases.accepted([finding]):
                continue
            if await book_settlement(self._tx, file, self._context):
                await settlement.hold_booking(file, is_held=False)
                ended.add(finding.key)
                unknown, count = await settlement.unmatched(file_id, limit=MAX_FINDINGS_PER_SCENARIO + 1)
                candidates = await settlement.candidates(unknown)
                found = [unknown_line(line, of) for line, of in zip(unknown, candidates, strict=True)]
                limited.add(found)
                if count > len(found):
                    limited.count_rest(Scenario.UNKNOWN_LINE, count - len(found))
        return [case for case in self._unresolved if case.key in ended]

    async def _lines(self, looked_at: Sequence[Case]) -> list[Finding]:
        """Of cases about single lines: the line that has a payment by now is explained."""
        rule = self._context.settlement_rules.fees.get(self._gateway)
        wanted = {case.key for case in looked_at if _is_of_line(case)}
        identities = sorted({_identity(key) for key in wanted})
        lines = await self._tx.settlement.named(self._gateway, self._account, identities) if identities else []
        unmatched = [line for line in lines if line.payment_id is None]
        candidates = await self._tx.settlement.candidates(unmatched)
        found = [unknown_line(line, of) for line, of in zip(unmatched, candidates, strict=True)]
        if rule is not None:
            found += [finding for line in lines if (finding := fee_differs(line, rule))]
        return [finding for finding in found if finding.key in wanted]

    async def _payouts(self) -> list[Finding]:
        rules, now = self._context.settlement_rules, self._context.clock.now()
        settlement = self._tx.settlement
        is_usual = await settlement.states_payouts(self._gateway, self._account)
        payouts = await settlement.payouts_to_judge(
            self._gateway,
            self._account,
            before=now - timedelta(days=rules.payout_days),
            tolerance_minor=rules.payout_rounding_minor,
            limit=MAX_PAYOUTS,
        )
        judged = [judge_payout(payout, rules, is_stated_usually=is_usual, now=now) for payout in payouts]
        return [finding for finding in judged if finding is not None]


def _is_of_line(case: Case) -> bool:
    is_unknown = case.scenario is Scenario.UNKNOWN_LINE and case.subject.payment_id is None
    return is_unknown or case.scenario is Scenario.FEE_DIFFERS


def _identity(key: str) -> int:
    """Of a LooseLine's name, at the end of a key: signed, as it is stored."""
    value = int(key.rsplit(":", 2)[1], 16)
    return value - 2**64 if value >= 2**63 else value
