"""Cases as runs keep them: one for each disagreement, whoever finds it, however often; closed when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from services.reconciler.domain.cases import (
    Action,
    Case,
    CaseAction,
    CaseKind,
    CaseNote,
    CaseStatus,
    Finding,
    Scenario,
    Subject,
)
from services.reconciler.use_cases.case_ports import CaseFilter
from services.reconciler.use_cases.keep_cases import KeptCases, keep_cases
from shared.contracts.catalogue import read_event
from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.reconciliation_events import ReconciliationCaseOpened, ReconciliationCaseResolved
from tests.integration.reconciler.conftest import BuildWorld, World
from tests.support.waiting import until

RUN = "run_1"


def finding(key: str = "late_payment:pay_1", **changes: Any) -> Finding:
    subject = Subject(gateway="stripe", order_id="ord_1", payment_id="pay_1")
    values: dict[str, Any] = {"currency": "EUR", "expected_minor": 0, "actual_minor": 1_000, "evidence": {"seen": 1}}
    return Finding(CaseKind.ORDERS, Scenario.LATE_PAYMENT, key, subject, **(values | changes))


async def keep(
    world: World, findings: Sequence[Finding], *, looked_at: Sequence[Case] = (), run_id: str | None = RUN
) -> KeptCases:
    context = world.container.context
    async with context.uow() as tx:
        return await keep_cases(tx, findings, looked_at=looked_at, run_id=run_id, context=context)


async def search(world: World, **filters: Any) -> list[Case]:
    async with world.container.context.uow() as tx:
        return await tx.cases.search(CaseFilter(**filters), after=None, limit=1_000)


async def unresolved(world: World) -> list[Case]:
    async with world.container.context.uow() as tx:
        return await tx.cases.unresolved(CaseKind.ORDERS, limit=1_000)


async def accept(world: World, case: Case) -> None:
    changed = replace(
        case,
        status=CaseStatus.RESOLVED,
        resolution="accepted",
        resolved_at=world.clock.now(),
        resolved_by="ann",
        reason="explained by the bank",
    )
    async with world.container.context.uow() as tx:
        await tx.cases.save(changed)


async def published(world: World) -> list[tuple[str, EventData | None]]:
    rows = await world.rows("SELECT body FROM outbox_messages ORDER BY position")
    envelopes = [EventEnvelope.from_json(row["body"]) for row in rows]
    return [(envelope.subject, read_event(envelope)) for envelope in envelopes]


async def test_a_finding_opens_a_case_with_all_that_is_known_and_announces_it(world: World) -> None:
    kept = await keep(world, [finding(action=Action.REFUND, evidence={"order": {"status": "canceled"}, "big": 2**60})])
    (case,) = await search(world)
    assert (kept.counts.opened, kept.counts.resolved) == (1, 0)
    assert (case.status, case.kind, case.scenario) == (CaseStatus.OPEN, CaseKind.ORDERS, Scenario.LATE_PAYMENT)
    assert case.subject == Subject(gateway="stripe", order_id="ord_1", payment_id="pay_1")
    assert (case.expected_minor, case.actual_minor, case.difference_minor) == (0, 1_000, 1_000)
    assert case.evidence == {"order": {"status": "canceled"}, "big": 2**60}
    assert (case.opened_at, case.last_seen_at, case.last_seen_run) == (world.clock.now(), world.clock.now(), RUN)
    ((subject, announced),) = await published(world)
    assert isinstance(announced, ReconciliationCaseOpened)
    assert (subject, announced.case_id, announced.difference_minor) == (case.case_id, case.case_id, 1_000)
    assert (announced.scenario, announced.payment_id, announced.action) == ("late_payment", "pay_1", "refund")


async def test_found_again_it_is_the_same_case_with_what_is_seen_now(world: World) -> None:
    await keep(world, [finding()])
    opened_at = world.clock.now()
    world.clock.move(60)
    kept = await keep(world, [finding(actual_minor=900, evidence={"seen": 2})], run_id="run_2")
    (case,) = await search(world)
    assert kept.counts.opened == 0
    assert (case.actual_minor, case.difference_minor, case.evidence) == (900, 900, {"seen": 2})
    assert (case.opened_at, case.last_seen_at, case.last_seen_run) == (opened_at, world.clock.now(), "run_2")
    assert len(await published(world)) == 1


async def test_a_finding_twice_in_one_run_is_one_case(world: World) -> None:
    kept = await keep(world, [finding(actual_minor=1), finding(actual_minor=2)])
    (case,) = await search(world)
    assert (kept.counts.opened, case.actual_minor) == (1, 2)


async def test_what_no_finding_names_any_more_is_settled_and_its_actions_are_verified(world: World) -> None:
    await keep(world, [finding(), finding("late_payment:pay_2")])
    looked_at = await unresolved(world)
    async with world.container.context.uow() as tx:
        for case in looked_at:
            key = f"{case.case_id}:refund"
            await tx.cases.add_action(CaseAction(case.case_id, 0, Action.REFUND, key, "policy", world.clock.now()))
    world.clock.move(60)
    kept = await keep(world, [finding()], looked_at=looked_at, run_id="run_2")
    (gone,) = await search(world, status=CaseStatus.RESOLVED)
    (left,) = await search(world, unresolved=True)
    assert (kept.counts.opened, kept.counts.resolved) == (0, 1)
    assert (gone.key, gone.resolution, gone.resolved_by) == ("late_payment:pay_2", "settled", "run_2")
    assert gone.resolved_at == world.clock.now()
    async with world.container.context.uow() as tx:
        assert [each.verified_at for each in await tx.cases.actions_of(gone.case_id)] == [world.clock.now()]
        assert [each.verified_at for each in await tx.cases.actions_of(left.case_id)] == [None]
    subject, announced = (await published(world))[-1]
    assert isinstance(announced, ReconciliationCaseResolved)
    assert (subject, announced.resolution, announced.resolved_by) == (gone.case_id, "settled", "run_2")


async def test_nothing_is_settled_that_the_run_did_not_look_at(world: World) -> None:
    await keep(world, [finding()])
    assert (await keep(world, [])).counts.resolved == 0
    assert len(await search(world, unresolved=True)) == 1


async def test_a_case_that_somebody_saw_since_it_was_looked_at_stays_open(world: World) -> None:
    """RC10: the run that read it before must not close what a later one has just found."""
    await keep(world, [finding()])
    looked_at = await unresolved(world)
    world.clock.move(1)
    await keep(world, [finding()], run_id="run_2")
    assert (await keep(world, [], looked_at=looked_at)).counts.resolved == 0
    assert (await keep(world, [], looked_at=await unresolved(world))).counts.resolved == 1


async def test_a_disagreement_that_comes_back_is_a_new_case(world: World) -> None:
    await keep(world, [finding()])
    await keep(world, [], looked_at=await unresolved(world))
    kept = await keep(world, [finding()])
    first, second = sorted(await search(world), key=lambda case: case.case_id)
    assert kept.counts.opened == 1
    assert (first.status, second.status) == (CaseStatus.RESOLVED, CaseStatus.OPEN)


async def test_what_a_person_has_accepted_is_not_reported_again_until_its_amounts_change(world: World) -> None:
    await keep(world, [finding()])
    await accept(world, (await unresolved(world))[0])
    assert (await keep(world, [finding(evidence={"seen": 9})])).counts.opened == 0
    assert (await keep(world, [finding("another key")])).counts.opened == 1
    for other in ({"actual_minor": 1_001}, {"currency": "KWD"}, {"expected_minor": None}):
        assert (await keep(world, [finding(**other)])).counts.opened == 1, other
        # Back at what is explained, the case that was open meanwhile is settled by that.
        assert (await keep(world, [finding()])).counts.resolved == 1


async def test_an_accepted_finding_without_amounts_stays_explained(world: World) -> None:
    nothing: dict[str, Any] = {"currency": None, "expected_minor": None, "actual_minor": None}
    await keep(world, [finding(**nothing)])
    await accept(world, (await unresolved(world))[0])
    assert (await keep(world, [finding(**nothing)])).counts.opened == 0


async def test_commands_that_the_policy_has_not_sent_yet_are_to_be_acted_on(world: World) -> None:
    """RC9: each action of a case once."""
    wanted = [finding("a", action=Action.REFUND), finding("b"), finding("c", action=Action.ACCEPT)]
    ((case, action),) = (await keep(world, wanted)).to_act
    assert (case.key, action) == ("a", Action.REFUND)
    async with world.container.context.uow() as tx:
        sent = CaseAction(case.case_id, 0, action, f"{case.case_id}:refund", "policy", world.clock.now())
        assert await tx.cases.add_action(sent) is True
        assert await tx.cases.add_action(sent) is False
    assert (await keep(world, wanted)).to_act == ()
    for run_id in ("run_2", "run_3"):  # asking moves nothing: it is done anew by each run
        ((case, action),) = (await keep(world, [finding("a", action=Action.SYNC)], run_id=run_id)).to_act
        assert action is Action.SYNC
        async with world.container.context.uow() as tx:
            await tx.cases.add_action(replace(sent, action=action, command_key=f"{case.case_id}:sync:{run_id}"))


async def test_an_operators_request_is_withdrawn_when_the_amounts_change(world: World) -> None:
    """RC17: a second person approves the amount that was shown to the first."""
    await keep(world, [finding()])
    (case,) = await unresolved(world)
    asked = replace(
        case,
        status=CaseStatus.AWAITING_APPROVAL,
        requested_action=Action.REFUND,
        requested_by="ann",
        request_reason="x",
    )
    async with world.container.context.uow() as tx:
        await tx.cases.save(asked)
    await keep(world, [finding(evidence={"more": True})])
    assert (await unresolved(world))[0].status is CaseStatus.AWAITING_APPROVAL
    await keep(world, [finding(actual_minor=2_000)])
    (case,) = await unresolved(world)
    assert (case.status, case.requested_action) == (CaseStatus.OPEN, None)


async def test_two_runs_at_once_keep_one_case_for_each_disagreement(build_world: BuildWorld) -> None:
    """RC10: in any order of their findings, without a deadlock."""
    first, second = await build_world(), await build_world()
    findings = [finding(f"late_payment:pay_{number}") for number in range(60)]
    looked_at: list[Case] = []
    for round_ in range(3):
        half = findings[round_ * 10 :]
        kept = await asyncio.gather(
            keep(first, half, looked_at=looked_at, run_id="run_a"),
            keep(second, half[::-1], looked_at=looked_at[::-1], run_id="run_b"),
            keep(first, half[::2], run_id="run_c"),
        )
        assert sum(each.counts.opened for each in kept) == (60 if round_ == 0 else 0)
        looked_at = await unresolved(first)
    cases = await search(first, unresolved=True)
    assert len({case.key for case in cases}) == len(cases) == 40
    events = [type(event_) for _, event_ in await published(first)]
    assert events.count(ReconciliationCaseOpened) == 60
    assert events.count(ReconciliationCaseResolved) == 20


async def test_a_run_that_waits_for_a_case_has_written_nothing_that_others_wait_for(build_world: BuildWorld) -> None:
    """RC10: all that is there is locked before anything is written, or two runs would wait for each other."""
    first, second = await build_world(), await build_world()
    await keep(first, [finding("b")])
    looked_at = await unresolved(first)
    context = first.container.context
    async with context.uow() as tx:
        await keep_cases(tx, [finding("b")], looked_at=(), run_id="run_a", context=context)
        other = asyncio.create_task(keep(second, [finding("c")], looked_at=looked_at, run_id="run_b"))
        await until(lambda: _is_waiting(first), what="the other run waits")
        await keep_cases(tx, [finding("c")], looked_at=(), run_id="run_a", context=context)
    await other
    assert {case.key for case in await unresolved(first)} >= {"c"}


async def _is_waiting(world: World) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    (row,) = await world.rows(waiting)
    return bool(row["count"])


async def test_five_hundred_findings_are_a_handful_of_statements(world: World) -> None:
    statements: list[str] = []
    engine = world.container.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    findings = [finding(f"late_payment:pay_{number}", action=Action.REFUND) for number in range(500)]
    kept = await keep(world, findings)
    assert (kept.counts.opened, len(kept.to_act)) == (500, 500)
    kept = await keep(world, findings[250:], looked_at=await unresolved(world))
    assert (kept.counts.resolved, len(kept.to_act)) == (250, 250)
    assert len(statements) < 30
    assert len(await published(world)) == 750


async def test_cases_are_listed_newest_first_and_by_every_filter(world: World) -> None:
    other = Finding(
        CaseKind.SETTLEMENT, Scenario.UNKNOWN_LINE, "line", Subject("tabby", file_id="stf_1", line_number=7)
    )
    await keep(world, [finding("a")])
    world.clock.move(5)
    await keep(world, [other])
    both = await search(world)
    assert [case.key for case in both] == ["line", "a"]
    async with world.container.context.uow() as tx:
        assert [case.key for case in await tx.cases.search(CaseFilter(), after=both[0].case_id, limit=1)] == ["a"]
        assert await tx.cases.ages() == {
            ("late_payment", "stripe"): (1, both[1].opened_at),
            ("unknown_line", "tabby"): (1, both[0].opened_at),
        }
        assert [case.key for case in await tx.cases.unresolved(CaseKind.SETTLEMENT, gateway="tabby", limit=5)] == [
            "line"
        ]
        assert await tx.cases.unresolved(CaseKind.SETTLEMENT, gateway="stripe", limit=5) == []
    filters: list[dict[str, Any]] = [
        {"scenario": Scenario.UNKNOWN_LINE},
        {"kind": CaseKind.SETTLEMENT},
        {"gateway": "tabby"},
        {"file_id": "stf_1"},
    ]
    for each in filters:
        assert [case.key for case in await search(world, **each)] == ["line"], each
    for each in [{"order_id": "ord_1"}, {"payment_id": "pay_1"}]:
        assert [case.key for case in await search(world, **each)] == ["a"], each
    assert await search(world, owner="ann") == []
    assert await search(world, unresolved=False) == []


async def test_notes_are_numbered_in_their_order(world: World) -> None:
    await keep(world, [finding()])
    (case,) = await unresolved(world)
    async with world.container.context.uow() as tx:
        for words in ("first", "second"):
            await tx.cases.add_note(CaseNote(case.case_id, 0, "ann", words, world.clock.now()))
        assert [(note.number, note.text) for note in await tx.cases.notes_of(case.case_id)] == [
            (1, "first"),
            (2, "second"),
        ]
        assert await tx.cases.get("case_unknown") is None


@pytest.mark.parametrize("run_id", ["run_9", None])
async def test_who_settled_it_is_said(world: World, run_id: str | None) -> None:
    await keep(world, [finding()], run_id=run_id)
    await keep(world, [], looked_at=await unresolved(world), run_id=run_id)
    (case,) = await search(world)
    assert case.resolved_by == (run_id or "reconciler")
