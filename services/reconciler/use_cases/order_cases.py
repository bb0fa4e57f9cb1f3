"""Cases of one run of the comparison: kept from its findings, and acted on by policy, a batch a transaction."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.reconciler.domain.cases import Action, Case, Finding
from services.reconciler.domain.order_findings import with_evidence
from services.reconciler.use_cases.act_on_case import POLICY, act_on_case
from services.reconciler.use_cases.case_ports import CaseCounts
from services.reconciler.use_cases.keep_cases import KeptCases, keep_cases
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from shared.clock import to_rfc3339

log = structlog.get_logger()


class OrderCases:
    """What one run does to cases. Commands that cancel orders wait until the run has seen how many they are."""

    def __init__(self, run_id: str, context: Context) -> None:
        self.run_id = run_id
        self._context = context
        self.opened = 0
        self.resolved = 0
        self.held_back = 0
        """Orders that are not canceled, because they are too many for a policy."""
        self._to_cancel: list[Case] = []
        self._cancels = 0

    async def keep(
        self, tx: ReconcilerTransaction, findings: Sequence[Finding], *, looked_at: Sequence[Case] = ()
    ) -> None:
        told = await self._with_unverified(tx, findings)
        kept = await keep_cases(tx, told, looked_at=looked_at, run_id=self.run_id, context=self._context)
        self._count(kept.counts)
        await self._act(tx, kept)
        await self._ask(tx, told)

    async def cancel_orders(self) -> None:
        """One lost payment is a lost payment; hundreds at once are a database that was restored from an old copy, and
        canceling what customers have paid for is not to be undone: then all of them wait for a person."""
        if self._cancels > self._context.order_rules.cancel_limit:
            self.held_back = self._cancels
            log.error("order_cancels_held_back", count=self._cancels, limit=self._context.order_rules.cancel_limit)
            return
        for case in self._to_cancel:
            async with self._context.uow() as tx:
                await act_on_case(tx, case, Action.CANCEL_ORDER, asked_by=POLICY, context=self._context)

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
            if action is Action.CANCEL_ORDER:
                self._cancels += 1
                if self._cancels <= self._context.order_rules.cancel_limit:
                    self._to_cancel.append(case)
            elif action is not Action.SYNC:
                await act_on_case(tx, case, action, asked_by=POLICY, context=self._context)

    async def _ask(self, tx: ReconcilerTransaction, findings: Sequence[Finding]) -> None:
        """The gateway is asked anew in each run, as long as the case is there."""
        keys = [finding.key for finding in findings if finding.action is Action.SYNC]
        for case in await tx.cases.lock(keys=keys, case_ids=[]) if keys else []:
            await act_on_case(tx, case, Action.SYNC, asked_by=POLICY, context=self._context)
