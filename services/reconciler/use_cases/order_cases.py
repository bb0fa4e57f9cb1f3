"""Cases of one run of the comparison: kept from its findings, and acted on by policy, a batch a transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from services.reconciler.domain.cases import MONEY_ACTIONS, Action, Case, CaseStatus, Finding
from services.reconciler.domain.order_findings import with_evidence
from services.reconciler.use_cases.act_on_case import POLICY, act_on_case
from services.reconciler.use_cases.case_ports import CaseCounts
from services.reconciler.use_cases.keep_cases import KeptCases, keep_cases
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from shared.clock import to_rfc3339

log = structlog.get_logger()

FEW, ONE_IN = 5, 20
"""Of a shop's orders, at most one in so many, and a few at any rate, are canceled or refunded by policy in a day."""
DAY = timedelta(days=1)

Judge = Callable[[ReconcilerTransaction, Case], Awaitable[Finding | None]]


class OrderCases:
    """What one run does to cases. Commands that move money wait until the run has seen how many they are."""

    def __init__(self, run_id: str, context: Context) -> None:
        self.run_id = run_id
        self._context = context
        self.opened = 0
        self.resolved = 0
        self.held_back = 0
        """Cases whose order is not canceled, or payment not refunded, because they are too many for a policy."""
        self._to_send: list[tuple[Case, Action]] = []

    async def keep(
        self, tx: ReconcilerTransaction, findings: Sequence[Finding], *, looked_at: Sequence[Case] = ()
    ) -> None:
        told = await self._with_unverified(tx, findings)
        kept = await keep_cases(tx, told, looked_at=looked_at, run_id=self.run_id, context=self._context)
        self._count(kept.counts)
        await self._act(tx, kept)
        await self._ask(tx, told)

    async def move_money(self, judge: Judge) -> None:
        """One lost payment is a lost payment; hundreds at once are a database that was restored from an old copy, and
        canceling what customers have paid for is not to be undone: then all of them are held for a person, and what
        is held stays so, whatever later runs count. The limit is for a day, whatever the runs' scopes."""
        if not self._to_send:
            return
        async with self._context.settlement_uow() as tx:  # counting may last longer than a request's statement
            orders = await tx.mirror.count_orders()
        allowed = min(self._context.order_rules.cancel_limit, max(FEW, orders // ONE_IN))
        now = self._context.clock.now()
        async with self._context.uow() as tx:
            if len(self._to_send) + await tx.cases.moved_by_policy(since=now - DAY) > allowed:
                await self._hold(tx, [case for case, _ in self._to_send])
                log.error("order_cases_held_back", count=self.held_back, limit=allowed)
                return
        for case, action in self._to_send:
            async with self._context.uow() as tx:
                await self._move(tx, case, action, judge)

    async def _move(self, tx: ReconcilerTransaction, found: Case, action: Action, judge: Judge) -> None:
        """If it is still so: since it was found, a person may have explained it, or asked for something else."""
        case = await tx.cases.get(found.case_id, for_update=True)
        if case is None or case.status is not CaseStatus.OPEN:
            return
        finding = await judge(tx, case)
        if finding is not None and (finding.key, finding.action) == (case.key, action):
            await act_on_case(tx, case, action, asked_by=POLICY, context=self._context)

    async def _hold(self, tx: ReconcilerTransaction, cases: Sequence[Case]) -> None:
        await tx.cases.hold([case.case_id for case in cases], at=self._context.clock.now())
        self.held_back += len(cases)

    async def _with_unverified(self, tx: ReconcilerTransaction, findings: Sequence[Finding]) -> list[Finding]:
        """Those whose command has changed nothing for long say so: a person is needed."""
        before = self._context.clock.now() - self._context.order_rules.unverified_after
        since = await tx.mirror.without_effect([each.key for each in findings], before=before)
        return [
            with_evidence(each, unverified=to_rfc3339(since[each.key])) if each.key in since else each
            for each in findings
        ]

    def _count(self, counts: CaseCounts) -> None:
        self.opened += counts.opened
        self.resolved += counts.resolved

    async def _act(self, tx: ReconcilerTransaction, kept: KeptCases) -> None:
        for case, action in kept.to_act:
            if action in MONEY_ACTIONS:
                await self._put_off(tx, case, action)
            elif action is not Action.SYNC:
                await act_on_case(tx, case, action, asked_by=POLICY, context=self._context)

    async def _put_off(self, tx: ReconcilerTransaction, case: Case, action: Action) -> None:
        if case.held_at is not None:
            self.held_back += 1
        elif len(self._to_send) < self._context.order_rules.cancel_limit:
            self._to_send.append((case, action))
        else:
            await self._hold(tx, [case])

    async def _ask(self, tx: ReconcilerTransaction, findings: Sequence[Finding]) -> None:
        """The gateway is asked anew in each run, as long as the case is there."""
        keys = [finding.key for finding in findings if finding.action is Action.SYNC]
        for case in await tx.cases.lock(keys=keys, case_ids=[]) if keys else []:
            await act_on_case(tx, case, Action.SYNC, asked_by=POLICY, context=self._context)
