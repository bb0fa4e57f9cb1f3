"""What operators decide: effects in rows and commands in the outbox, once, and by two people where money moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from services.reconciler.domain.cases import Action
from services.reconciler.domain.mirror import KnownPayment
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases import resolve_case as module
from services.reconciler.use_cases.act_on_case import act_on_case
from services.reconciler.use_cases.keep_cases import keep_cases
from services.reconciler.use_cases.measure_cases import measure_cases
from shared.money import Money
from tests.integration.reconciler.cases import (
    CASES,
    FILE_ID,
    ORDER_ID,
    PAYMENT_ID,
    late_payment,
    opens,
    post,
    read,
    stores_a_line,
    unknown_line,
)
from tests.integration.reconciler.conftest import BuildWorld, World

KEY = "ab" * 32


@pytest.fixture
async def world(build_world: BuildWorld) -> World:
    return await build_world(command_signing_key=KEY)


async def knows_the_payment(world: World, amount: Money | None = None) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    amount = amount or Money(12_500, "KWD")
    payment = KnownPayment(
        payment_id=PAYMENT_ID,
        order_id=ORDER_ID,
        gateway="stripe",
        gateway_reference="pi_1",
        account="",
        status=PaymentStatus.CAPTURED,
        version=3,
        amount=amount,
        standing=Standing(amount_authorized=amount.amount_minor, amount_captured=amount.amount_minor),
        amount_excess=0,
        conflict=None,
        duplicate_of=None,
        unknown_since=None,
        created_at=at,
        updated_at=at,
        references=("pi_1",),
        movements=(),
    )
    async with world.container.context.uow() as tx:
        await tx.mirror.put_payments([payment])


async def resolve(
    world: World, case_id: str, action: str, *, by: str = "ann", expect: int = 200, **body: Any
) -> dict[str, Any]:
    wanted = {"action": action, "reason": "the bank says so"} | body
    answer = await post(world, f"{CASES}/{case_id}/resolve", wanted, subject=by)
    assert answer.status_code == expect, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def commands(world: World) -> list[tuple[str, dict[str, Any]]]:
    rows = await world.rows("SELECT body FROM outbox_messages WHERE type NOT LIKE 'reconciliation.%' ORDER BY position")
    envelopes = [json.loads(bytes(row["body"])) for row in rows]
    return [(each["type"], each["data"]) for each in envelopes]


async def test_accepting_explains_a_case_and_tells_everybody(world: World) -> None:
    (case_id,) = await opens(world, late_payment())
    case = await resolve(world, case_id, "accept")
    assert (case["status"], case["resolution"], case["resolved_by"]) == ("resolved", "accepted", "ann")
    assert case["reason"] == "the bank says so"
    assert case["notes"][0]["text"] == "accept: done: the bank says so"
    assert await world.events() == ["reconciliation.case_opened.v1", "reconciliation.case_resolved.v1"]
    again = await resolve(world, case_id, "accept")
    assert (again["resolved_at"], len(again["notes"])) == (case["resolved_at"], 1)
    for action, by in (("accept", "bob"), ("sync", "ann"), ("refund", "ann")):
        refused = await resolve(world, case_id, action, by=by, expect=409)
        assert refused["code"] == "case_resolved"
    assert (await post(world, f"{CASES}/{case_id}/assign", {"owner": "bob"})).status_code == 409
    assert (await post(world, f"{CASES}/{case_id}/notes", {"text": "later"})).status_code == 201


async def test_what_was_accepted_does_not_come_back_with_the_next_run(world: World) -> None:
    (case_id,) = await opens(world, late_payment())
    await resolve(world, case_id, "accept")
    context = world.container.context
    async with context.uow() as tx:
        kept = await keep_cases(tx, [late_payment()], looked_at=(), run_id="run_2", context=context)
    assert kept.counts.opened == 0


async def test_a_command_is_sent_once_and_leaves_the_case_to_the_next_run(world: World) -> None:
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment())
    cases = [await resolve(world, case_id, "confirm_order") for _ in range(2)]
    for case in cases:
        assert (case["status"], [each["action"] for each in case["actions"]]) == ("open", ["confirm_order"])
    assert (cases[1]["actions"][0]["asked_by"], cases[1]["actions"][0]["verified_at"]) == ("ann", None)
    ((type_, data),) = await commands(world)
    assert (type_, data["command_key"]) == ("order.confirm_requested.v1", f"{case_id}:confirm_order")
    assert len(cases[1]["notes"]) == 1


async def test_what_cannot_be_done_is_refused_and_leaves_nothing(world: World) -> None:
    await knows_the_payment(world)
    payment_id = f"pay_{'9' * 26}"
    (case_id,) = await opens(world, late_payment(payment_id=payment_id))
    refused = await resolve(world, case_id, "confirm_order", expect=422)
    assert refused["code"] == "action_not_possible"
    refused = await resolve(world, case_id, "match", expect=422, payment_id=PAYMENT_ID)
    assert "not about a line" in refused["detail"]
    case = await read(world, f"{CASES}/{case_id}")
    assert (case["status"], case["notes"], case["actions"]) == ("open", [], [])


@pytest.mark.parametrize("key", [KEY, None])
async def test_nobody_is_asked_to_approve_what_cannot_be_carried_out(build_world: BuildWorld, key: str | None) -> None:
    """A refund without a payment to refund, or a key to sign it with, never waits for a second person."""
    world = await build_world(**({"command_signing_key": key} if key else {}))
    await knows_the_payment(world)
    for finding in (unknown_line(), *([] if key else [late_payment()])):
        (case_id,) = await opens(world, finding)
        for action in ("refund", "cancel_order"):
            refused = await resolve(world, case_id, action, expect=422)
            assert refused["code"] == "action_not_possible"
        case = await read(world, f"{CASES}/{case_id}")
        assert (case["status"], case["request"], case["notes"]) == ("open", None, [])


async def test_a_refund_takes_two_people(world: World) -> None:
    """RC17: whoever has stolen one session moves nothing."""
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment())
    asked = await resolve(world, case_id, "refund")
    assert asked["status"] == "awaiting_approval"
    assert asked["request"] == {"action": "refund", "by": "ann", "reason": "the bank says so"}
    again = await resolve(world, case_id, "refund", expect=409)
    assert again["code"] == "second_person_needed"
    assert await commands(world) == []
    done = await resolve(world, case_id, "refund", by="bob", reason="I looked too")
    assert (done["status"], done["request"]) == ("open", None)
    ((type_, data),) = await commands(world)
    assert (type_, data["payment_id"], data["command_key"]) == ("refund.requested.v1", PAYMENT_ID, f"{case_id}:refund")
    assert [(note["author"], note["text"]) for note in done["notes"]] == [
        ("ann", "refund: asked for; a second person has to ask for the same: the bank says so"),
        ("bob", "refund: sent; approved after ann asked for it: I looked too"),
    ]
    for by in ("ann", "bob", "eve"):
        repeated = await resolve(world, case_id, "refund", by=by)
        assert (repeated["status"], len(repeated["actions"])) == ("open", 1)
    assert len(await commands(world)) == 1


async def test_a_different_action_withdraws_what_was_asked_for(world: World) -> None:
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment())
    await resolve(world, case_id, "refund")
    other = await resolve(world, case_id, "cancel_order", by="bob")
    assert (other["status"], other["request"]["action"], other["request"]["by"]) == (
        "awaiting_approval",
        "cancel_order",
        "bob",
    )
    # ann's request is gone: her asking again is a first request, and bob's cancellation is withdrawn by it.
    assert (await resolve(world, case_id, "refund"))["request"]["by"] == "ann"
    synced = await resolve(world, case_id, "sync", by="bob")
    assert (synced["status"], synced["request"]) == ("open", None)
    assert "refund, which ann asked for, is withdrawn" in synced["notes"][-1]["text"]
    assert [type_ for type_, _ in await commands(world)] == ["payment.sync_requested.v1"]


async def test_two_people_at_once_send_one_refund(world: World) -> None:
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment())
    people = ("ann", "bob", "eve", "joe")
    wish = {"action": "refund", "reason": "all of us"}
    answers = await asyncio.gather(*(post(world, f"{CASES}/{case_id}/resolve", wish, subject=by) for by in people * 2))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len(await commands(world)) == 1


async def test_up_to_the_limit_one_person_is_enough(build_world: BuildWorld) -> None:
    world = await build_world(command_signing_key=KEY, second_person_above_minor="100,KWD=12500")
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment())
    assert (await resolve(world, case_id, "refund"))["status"] == "open"
    assert len(await commands(world)) == 1


async def test_the_limit_is_compared_with_the_most_that_may_move(build_world: BuildWorld) -> None:
    """The case is about 12.500; the payment that would be given back is more."""
    world = await build_world(command_signing_key=KEY, second_person_above_minor="12500")
    await knows_the_payment(world, Money(12_501, "KWD"))
    (case_id,) = await opens(world, late_payment())
    assert (await resolve(world, case_id, "refund"))["status"] == "awaiting_approval"


async def test_a_line_is_matched_by_a_person(world: World) -> None:
    await knows_the_payment(world, Money(1_000, "EUR"))
    await stores_a_line(world, file_id=FILE_ID, payment_id=None, line_number=7)
    (case_id,) = await opens(world, unknown_line())
    other = await resolve(world, case_id, "match", expect=422, payment_id=f"pay_{'7' * 26}")
    assert "No such payment" in other["detail"]
    case = await resolve(world, case_id, "match", payment_id=PAYMENT_ID)
    assert (case["status"], case["resolution"], case["payment_id"]) == ("resolved", "matched", PAYMENT_ID)
    (line,) = await world.rows("SELECT payment_id, matched_by FROM settlement_lines")
    assert line == {"payment_id": PAYMENT_ID, "matched_by": "person"}


async def test_without_a_key_no_command_is_sent(build_world: BuildWorld) -> None:
    world = await build_world()
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment())
    refused = await resolve(world, case_id, "confirm_order", expect=422)
    assert "COMMAND_SIGNING_KEY" in refused["detail"]


@pytest.fixture
def broken_after_sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    async def sends_and_dies(*arguments: Any, **options: Any) -> bool:
        assert await act_on_case(*arguments, **options)
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(module, "act_on_case", sends_and_dies)
        yield


@pytest.mark.usefixtures("broken_after_sending")
async def test_killed_in_the_middle_nothing_was_sent(world: World) -> None:
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment())
    wish = module.Wish(Action.CONFIRM_ORDER, "because", "ann")
    with pytest.raises(RuntimeError):
        await module.resolve_case(case_id, wish, world.container.context)
    assert await commands(world) == []
    assert (await read(world, f"{CASES}/{case_id}"))["actions"] == []


async def test_without_any_case_it_shows_that_somebody_measures(world: World) -> None:
    await measure_cases(world.container.context)
    assert 'payrail_case_action_unverified_seconds{action="refund"} 0.0' in (await world.http.get("/metrics")).text


async def test_ages_are_measured_and_go_to_zero_when_cases_are_settled(world: World) -> None:
    await knows_the_payment(world)
    (case_id,) = await opens(world, late_payment(gateway="tabby"))
    await resolve(world, case_id, "confirm_order")
    await resolve(world, case_id, "sync")
    world.clock.move(3_600)
    await measure_cases(world.container.context)
    labels = '{gateway="tabby",scenario="late_payment"}'
    metrics = (await world.http.get("/metrics")).text
    assert f"payrail_cases_open{labels} 1.0" in metrics
    assert f"payrail_case_oldest_seconds{labels} 3601.0" in metrics
    assert 'payrail_case_action_unverified_seconds{action="confirm_order"} 3600.0' in metrics
    assert 'unverified_seconds{action="sync"}' not in metrics
    await resolve(world, case_id, "accept")
    await measure_cases(world.container.context)
    metrics = (await world.http.get("/metrics")).text
    assert f"payrail_cases_open{labels} 0.0" in metrics
    assert 'payrail_case_action_unverified_seconds{action="confirm_order"} 0.0' in metrics
