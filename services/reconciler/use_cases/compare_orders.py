"""Compare orders with payments, keep cases of what disagrees, and send what the policy does about it.

The mirror is refreshed first. Then everything goes by batches, each in one transaction: what it finds, the cases of it
and their commands are there together or not at all. Nothing is remembered between batches that a repetition would need,
so a run may be killed anywhere and done again (failure RC10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from services.reconciler.domain.cases import MONEY_ACTIONS, Case, CaseKind, Finding, Scenario
from services.reconciler.domain.decisions import OrphanPolicy, Verdict, decide, is_behind
from services.reconciler.domain.models import RunRequest
from services.reconciler.domain.order_findings import (
    PAIR_SCENARIOS,
    as_found,
    of_pair,
    of_parked_event,
    of_unknown_outcome,
)
from services.reconciler.use_cases.case_ports import CaseFilter
from services.reconciler.use_cases.compare_gateway_lists import compare_gateway_lists, shows_money
from services.reconciler.use_cases.mirror_ports import Pair, PairKey, ParkedEvent, Scope, Source
from services.reconciler.use_cases.order_cases import OrderCases
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.pull_exports import pull_exports
from services.reconciler.use_cases.running import Progress, RunOutcome
from shared.clock import to_rfc3339

SLICE = 100_000
"""Pairs that one statement compares. Each statement may read all orders once, so few of them; and what it finds is held
in memory, which is two ids for each pair, at the worst."""

BATCH = 200
"""Findings in one transaction."""


async def compare_orders(run_id: str, request: RunRequest, context: Context, progress: Progress) -> RunOutcome:
    """Raises ServiceUnavailable, ExportBroken or ExportWentBack: nothing is compared with half of a side. What was done
    before stays, and does no harm."""
    began_at = context.clock.now()
    went_back = await pull_exports(context, progress)
    async with context.uow() as tx:
        marks = await tx.mirror.marks()
        knows_orders = await tx.mirror.knows_orders()
    # Both sides have been read until then; what is younger than the grace may still be on its way.
    read_until = min(marks[Source.PAYMENTS], marks[Source.ORDERS], context.clock.now())
    settled_before = read_until - context.order_rules.grace
    scope = Scope(settled_before, request.gateway, request.window_from, request.window_to)
    cases = OrderCases(run_id, context)
    # Without a single order it is not the payments that are orphans.
    orphan_policy = context.order_rules.orphan_policy if knows_orders else OrphanPolicy.CASE
    comparison = _Comparison(scope, cases, orphan_policy, context, progress)
    await comparison.pairs()
    await comparison.unanswered()
    await comparison.parked_events()
    missed = await compare_gateway_lists(cases, request, settled_before, context, progress)
    await comparison.review(began_at)
    await progress("acting")
    await cases.move_money(comparison.judge_again)
    async with context.settlement_uow() as tx:
        totals = await tx.mirror.totals(scope)
    return RunOutcome(
        matched=comparison.checked - comparison.disagreeing,
        checked=comparison.checked,
        failed=missed + cases.held_back + went_back,
        cases_opened=cases.opened,
        cases_resolved=cases.resolved,
        totals=tuple(totals),
    )


class _Comparison:
    def __init__(
        self, scope: Scope, cases: OrderCases, orphan_policy: OrphanPolicy, context: Context, progress: Progress
    ) -> None:
        self._scope = scope
        self._cases = cases
        self._orphan_policy = orphan_policy
        self._context = context
        self._progress = progress
        self.checked = 0
        self.disagreeing = 0

    async def pairs(self) -> None:
        """Every pair in the scope; only what may disagree leaves the database."""
        after: str | None = ""
        while after is not None:
            async with self._context.settlement_uow() as tx:  # its statements may last longer than a request's
                found = await tx.mirror.slice(self._scope, after=after, limit=SLICE)
            await self._judge(found.suspects)
            after = found.next_after
            self.checked += found.scanned
            await self._progress("comparing", self.checked)
        await self._orders_of_nothing()

    async def _orders_of_nothing(self) -> None:
        after = ""
        while True:
            async with self._context.settlement_uow() as tx:
                keys = await tx.mirror.orders_of_nothing(self._scope, after=after, limit=BATCH)
            await self._judge(keys)
            self.checked += len(keys)
            if len(keys) < BATCH:
                return
            after = keys[-1].order_id

    async def _judge(self, keys: Sequence[PairKey]) -> None:
        for batch in _batches(keys):
            async with self._context.uow() as tx:
                judged = [self._finding(pair, self._scope.settled_before) for pair in await tx.mirror.pairs(batch)]
                findings = [finding for finding in judged if finding is not None]
                if findings:
                    await self._cases.keep(tx, findings)
            self.disagreeing += len(findings)
            await self._progress("deciding", self.checked)

    def _finding(self, pair: Pair, settled_before: datetime | None) -> Finding | None:
        verdict: Verdict | None = decide(
            pair.order,
            pair.payment,
            payment_id=pair.key.payment_id,
            settled_before=settled_before,
            others=pair.others,
            orphan_policy=self._orphan_policy,
        )
        if verdict is None:
            return None
        return of_pair(pair.key.order_id, pair.key.payment_id, verdict, pair.order, pair.payment)

    async def judge_again(self, tx: ReconcilerTransaction, case: Case) -> Finding | None:
        """A pair's case as it is now."""
        key = _pair_of(case)
        assert key is not None, "only pairs have money to move"
        [pair] = await tx.mirror.pairs([key])
        return self._finding(pair, self._scope.settled_before)

    async def unanswered(self) -> None:
        """Calls to gateways of which nobody could find out what they did."""
        before = self._context.clock.now() - self._context.order_rules.unknown_outcome_after
        after = ""
        while True:
            async with self._context.uow() as tx:
                payments = await tx.mirror.unanswered(
                    before=before, gateway=self._scope.gateway, after=after, limit=BATCH
                )
                if payments:
                    await self._cases.keep(tx, [of_unknown_outcome(payment) for payment in payments])
            if len(payments) < BATCH:
                return
            after = payments[-1].payment_id

    async def parked_events(self) -> None:
        after = ""
        while True:
            async with self._context.uow() as tx:
                events = await tx.mirror.parked_events(gateway=self._scope.gateway, after=after, limit=BATCH)
                if events:
                    await self._cases.keep(tx, [await _parked(tx, event) for event in events])
            if len(events) < BATCH:
                return
            after = events[-1].parked_id

    async def review(self, began_at: datetime) -> None:
        """Look again at every open case that this run has not found: it is settled, or lies outside the window."""
        after: str | None = None
        filter_ = CaseFilter(unresolved=True, kind=CaseKind.ORDERS, gateway=self._scope.gateway)
        while True:
            async with self._context.uow() as tx:
                cases = await tx.cases.search(filter_, after=after, limit=BATCH)
                looked_at = [case for case in cases if not self._was_seen(case, began_at)]
                if looked_at:
                    await self._cases.keep(tx, await self._still_there(tx, looked_at), looked_at=looked_at)
            await self._progress("reviewing")
            if len(cases) < BATCH:
                return
            after = cases[-1].case_id

    def _was_seen(self, case: Case, began_at: datetime) -> bool:
        return case.last_seen_run == self._cases.run_id and case.last_seen_at >= began_at

    async def _still_there(self, tx: ReconcilerTransaction, cases: Sequence[Case]) -> list[Finding]:
        pairs = {case.case_id: _pair_of(case) for case in cases}
        keys = [key for key in pairs.values() if key is not None]
        found = dict(zip(keys, await tx.mirror.pairs(keys), strict=True))
        findings: dict[str, Finding] = {}
        for case in cases:
            key = pairs[case.case_id]
            again = self._again(case, found[key]) if key is not None else await self._seen_otherwise(tx, case)
            if again is not None:
                findings[again.key] = again
        return list(findings.values())

    def _again(self, case: Case, pair: Pair) -> Finding | None:
        """Whatever its age: what has changed a moment ago and still disagrees is not settled. Another disagreement of
        the pair, though, has to be as old as any.

        Nor is it settled by an older copy of the payment than the order's, which proves nothing. And where money was
        to be moved, the same scenario with another version is no effect of that: closed now, it would be opened again,
        and the money asked for once more under another key (RC9)."""
        now = self._finding(pair, None)
        if now is not None and now.key == case.key:
            return now
        is_unproven = is_behind(pair.order, pair.payment) and case.scenario is not Scenario.ROLLED_BACK
        is_the_same = now is not None and now.scenario is case.scenario and case.action in MONEY_ACTIONS
        if is_unproven or is_the_same:
            return as_found(case)
        return self._finding(pair, self._scope.settled_before)

    async def _seen_otherwise(self, tx: ReconcilerTransaction, case: Case) -> Finding | None:
        if case.scenario is Scenario.UNCLAIMED_WEBHOOK:
            event = await tx.mirror.parked_event(str(case.evidence.get("parked_id")))
            return await _parked(tx, event) if event is not None else None
        payment = await tx.mirror.payment(case.subject.payment_id) if case.subject.payment_id is not None else None
        if case.scenario is Scenario.UNKNOWN_OUTCOME:
            if payment is None or payment.unknown_since is None:
                return None
            again = of_unknown_outcome(payment)
            return again if again.key == case.key else None  # else it was answered, and another call was not
        assert case.scenario is Scenario.UNKNOWN_AT_US, f"{case.scenario} is no scenario of orders"
        if payment is not None:
            return None if shows_money(payment) else as_found(case)
        subject, references = case.subject, case.evidence.get("references", ())
        is_known = subject.gateway and await tx.mirror.known_by(subject.gateway, subject.account, references)
        return None if is_known else as_found(case)


async def _parked(tx: ReconcilerTransaction, event: ParkedEvent) -> Finding:
    known = await tx.mirror.known_by(event.gateway, event.account, event.references) if event.references else {}
    return of_parked_event(
        event.parked_id,
        event.gateway,
        event.account,
        known,
        references=event.references,
        details={
            "delivery_id": event.delivery_id,
            "event_type": event.event_type,
            "status": event.status,
            "received_at": to_rfc3339(event.received_at),
        },
    )


def _pair_of(case: Case) -> PairKey | None:
    subject = case.subject
    if case.scenario not in PAIR_SCENARIOS:
        return None
    assert subject.order_id is not None, "a pair has an order"
    assert subject.payment_id is not None, "a pair has a payment"
    return PairKey(subject.order_id, subject.payment_id)


def _batches(keys: Sequence[PairKey]) -> Iterator[Sequence[PairKey]]:
    return (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))
