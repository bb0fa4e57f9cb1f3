"""Captures, voids and refunds: reserved, called, recorded, once, whatever is repeated, refused, lost or killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import IntegrityError

from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import Capability, OutcomeStatus
from services.payment_service.use_cases.request_operation import Asked, Wanted, request_operation
from shared.money import Money
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import KEY, ORDERED, Do, FakeMoney, open_shop
from tests.support.waiting import until


def key(number: int) -> str:
    return f"a-key-of-the-merchant-{number:04}"


async def patiently(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """As a client does it: a busy database (503) is asked again under the same key."""
    while (answer := await call()).status_code == 503:
        assert answer.json()["code"] == "database_unavailable"
    return answer


# --- the happy ways ---------------------------------------------------------------------------------------------------


async def test_a_refund_is_made_and_told(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    answer = await shop.refund(payment_id, 500, body={"reason": "returned", "reference": "RMA-1"})

    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["status"], made["outcome_known"], made["origin"], made["actor"]) == (
        "succeeded",
        True,
        "api",
        "back-office",
    )
    assert (made["amount"]["amount_minor"], made["reason"], made["reference"]) == (500, "returned", "RMA-1")
    assert made["gateway_reference"] == shop.account(payment_id).refunds[0].reference
    assert answer.headers["location"] == f"/api/v1/refunds/{made['id']}"
    assert (await shop.ask(f"refunds/{made['id']}")).json() == made
    assert (await shop.ask(f"payments/{payment_id}/refunds")).json()["data"] == [made]
    assert await shop.totals(payment_id) == {"authorized": ORDERED, "captured": ORDERED, "refunded": 500}
    events = await shop.events(payment_id)
    assert (events["refund.created"], events["refund.succeeded"]) == (1, 1)
    await shop.assert_books_agree(payment_id)


async def test_what_is_left_is_taken_where_no_amount_is_named(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    assert (await shop.refund(payment_id, 500, key=key(1))).status_code == 201
    rest = await shop.refund(payment_id, key=key(2))
    assert rest.json()["amount"]["amount_minor"] == ORDERED - 500
    more = await shop.refund(payment_id, key=key(3))
    assert (more.status_code, more.json()["code"]) == (409, "refund_exceeds_captured")


async def test_several_captures_and_the_final_one_releases_the_rest(build_world: BuildWorld) -> None:
    """RF14."""
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    first = await shop.capture(payment_id, 500, key=key(1), body={"final": False})
    assert (first.status_code, first.json()["final"]) == (201, False), first.text
    second = await shop.capture(payment_id, 700, key=key(2), body={"final": True})
    assert (second.status_code, second.json()["final"]) == (201, True)

    assert await shop.totals(payment_id) == {"authorized": 1200, "captured": 1200}
    assert shop.account(payment_id).is_held_no_more == "released"
    third = await shop.capture(payment_id, 1, key=key(3))
    assert (third.status_code, third.json()["code"]) == (409, "capture_exceeds_authorized")
    log = (await shop.ask(f"payments/{payment_id}/captures")).json()["data"]
    assert [(entry["amount"]["amount_minor"], entry["actor"]) for entry in log] == [
        (500, "back-office"),
        (700, "back-office"),
    ]
    assert (await shop.events(payment_id))["capture.succeeded"] == 2
    await shop.assert_books_agree(payment_id)


async def test_more_than_is_held_is_not_captured(build_world: BuildWorld) -> None:
    """RF13."""
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    answer = await shop.capture(payment_id, ORDERED + 1)
    assert (answer.status_code, answer.json()["code"]) == (409, "capture_exceeds_authorized")
    assert shop.gateway.called("capture") == []
    assert await shop.operations(payment_id) == []


async def test_a_hold_is_released(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    answer = await shop.void(payment_id)
    assert (answer.status_code, answer.json()["status"]) == (201, "succeeded"), answer.text
    assert (await shop.ask(f"voids/{answer.json()['id']}")).status_code == 200
    assert (await shop.ask(f"payments/{payment_id}")).json()["status"] == "canceled"
    assert await shop.totals(payment_id) == {}


async def test_a_void_after_a_partial_capture_releases_the_rest(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    await shop.capture(payment_id, 500, key=key(1), body={"final": False})
    answer = await shop.void(payment_id, key=key(2))
    assert (answer.status_code, answer.json()["amount"]["amount_minor"]) == (201, ORDERED - 500)
    assert await shop.totals(payment_id) == {"authorized": 500, "captured": 500}
    await shop.assert_books_agree(payment_id)


async def test_what_was_not_captured_is_not_refunded(build_world: BuildWorld) -> None:
    """RF3."""
    shop = await open_shop(build_world)
    answer = await shop.refund(await shop.held(), 1)
    assert (answer.status_code, answer.json()["code"]) == (409, "payment_not_captured")
    assert shop.gateway.called("refund") == []


# --- the same request again -------------------------------------------------------------------------------------------


async def test_the_same_key_replays_its_answer_and_says_so(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    first, again = await shop.refund(payment_id, 500), await shop.refund(payment_id, 500)
    assert (again.status_code, again.json()) == (201, first.json())
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert len(shop.account(payment_id).refunds) == 1


async def test_the_same_key_with_another_body_is_refused(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id, other_payment = await shop.captured(), await shop.captured()
    await shop.refund(payment_id, 500)
    for answer in (
        await shop.refund(payment_id, 501),
        await shop.refund(payment_id, 500, body={"reason": "another"}),
        await shop.refund(other_payment, 500),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert len(shop.account(payment_id).refunds) == 1


@pytest.mark.parametrize(
    ("sent", "code"), [(None, "idempotency_key_missing"), ("short", "idempotency_key_invalid"), ("x" * 65, None)]
)
async def test_without_a_good_key_no_money_moves(build_world: BuildWorld, sent: str | None, code: str | None) -> None:
    shop = await open_shop(build_world)
    captured, held = await shop.captured(), await shop.held()
    for answer in (
        await shop.refund(captured, 500, key=sent),
        await shop.capture(held, key=sent),
        await shop.void(held, key=sent),
    ):
        assert answer.status_code == 400
        assert answer.json()["code"] == (code or "idempotency_key_invalid")
    assert await shop.world.rows("SELECT * FROM operations") == []


async def test_a_request_that_is_still_running_says_when_to_come_back(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    answered = asyncio.Event()
    shop.gateway.will("refund", answered)
    running = asyncio.create_task(shop.refund(payment_id, 500))
    await until(lambda: shop.gateway.called("refund"), what="the call to the gateway")
    again = await shop.refund(payment_id, 500)
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_key_in_flight")
    assert int(again.headers["retry-after"]) >= 1
    answered.set()
    assert (await running).status_code == 201


async def test_a_merchants_reference_is_used_once(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id, other_payment = await shop.captured(), await shop.captured()
    body = {"reason": "returned", "reference": "RMA-1"}
    assert (await shop.refund(payment_id, 500, body=body, key=key(1))).status_code == 201
    again = await shop.refund(payment_id, 500, body=body, key=key(2))
    assert (again.status_code, again.json()["code"]) == (409, "reference_already_used")
    assert (await shop.refund(other_payment, 500, body=body, key=key(3))).status_code == 201
    assert len(shop.account(payment_id).refunds) == 1


async def test_a_key_that_was_pruned_still_means_the_same_refund(build_world: BuildWorld) -> None:
    """PY21."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    first = await shop.refund(payment_id, 500)
    assert await shop.world.run("DELETE FROM idempotency_keys") == 1
    again = await shop.refund(payment_id, 500)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(shop.gateway.called("refund")) == 1
    await shop.world.run("DELETE FROM idempotency_keys")
    other = await shop.refund(payment_id, 501)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_what_was_done_is_told_while_the_gateway_is_away(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    first = await shop.refund(payment_id, 500)
    await shop.world.run("DELETE FROM idempotency_keys")
    shop.gateways.is_available = False
    assert (await shop.refund(payment_id, 500)).json() == first.json()


async def test_the_same_request_at_once_without_its_stored_key_is_one_operation(build_world: BuildWorld) -> None:
    """PY21: the row itself guards, under the payment's lock."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    wanted, asked = Wanted(OperationKind.REFUND, Money(500, "EUR")), Asked("back-office", "one-request")
    made = await asyncio.gather(*(request_operation(payment_id, wanted, asked, shop.context) for _ in range(8)))
    assert len({operation.operation_id for operation in made}) == 1
    assert len(shop.gateway.called("refund")) == 1


async def test_another_callers_key_is_another_key(build_world: BuildWorld) -> None:
    """PY20."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    mine = await shop.refund(payment_id, 500, subject="back-office")
    theirs = await shop.refund(payment_id, 500, subject="warehouse")
    assert theirs.status_code == 201
    assert "idempotent-replayed" not in theirs.headers
    assert theirs.json()["id"] != mine.json()["id"]
    assert theirs.json()["actor"] == "warehouse"
    assert [refund.amount.amount_minor for refund in shop.account(payment_id).refunds] == [500, 500]


async def test_one_key_for_a_capture_and_a_void_is_two_requests(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    assert (await shop.capture(payment_id, 500, body={"final": False})).status_code == 201
    assert (await shop.void(payment_id)).status_code == 201


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_the_order_keeps_its_first_payment_whatever_is_learnt_of_it_later(build_world: BuildWorld) -> None:
    """PY7: the second is marked when it gets its money, and the first never."""
    shop = await open_shop(build_world)
    order_id = shop.world.new_id("ord")
    first, second = await shop.captured(order_id=order_id), await shop.captured(order_id=order_id)
    assert (await shop.refund(first, 500)).json()["status"] == "succeeded"
    seen = [(await shop.ask(f"payments/{payment_id}")).json() for payment_id in (first, second)]
    assert [payment["duplicate_of"] for payment in seen] == [None, first]


async def test_a_payment_does_not_grow_younger_where_two_clocks_differ(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    before = (await shop.ask(f"payments/{payment_id}")).json()
    shop.clock.move(-5)
    assert (await shop.refund(payment_id, 500)).json()["status"] == "succeeded"
    after = (await shop.ask(f"payments/{payment_id}")).json()
    assert after["version"] > before["version"]
    assert after["updated_at"] == before["updated_at"]


async def test_a_double_click_refunds_once(build_world: BuildWorld) -> None:
    """RF1."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    answers = await asyncio.gather(*(patiently(partial(shop.refund, payment_id, 500)) for _ in range(50)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"idempotency_key_in_flight"}
    assert len({a.json()["id"] for a in answers if a.status_code == 201}) == 1
    assert [refund.amount.amount_minor for refund in shop.account(payment_id).refunds] == [500]
    assert await shop.statuses(payment_id) == ["succeeded"]


async def test_many_refunds_at_once_never_give_back_more_than_was_taken(build_world: BuildWorld) -> None:
    """RF2 (Hyperswitch #13182)."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    answers = await asyncio.gather(
        *(patiently(partial(shop.refund, payment_id, 100, key=key(number))) for number in range(50))
    )
    made = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 409]
    assert (len(made), len(refused)) == (19, 31)
    assert {answer.json()["code"] for answer in refused} == {"refund_exceeds_captured"}
    assert shop.account(payment_id).refunded == 1900
    assert (await shop.totals(payment_id))["refunded"] == 1900
    await shop.assert_books_agree(payment_id)


async def test_a_capture_and_a_void_at_once_leave_one_winner(build_world: BuildWorld) -> None:
    """RF16."""
    shop = await open_shop(build_world)
    for number in range(12):
        payment_id = await shop.held()
        calls = [shop.capture(payment_id, key=key(number)), shop.void(payment_id, key=key(number))]
        answers = await asyncio.gather(*(calls if number % 2 else reversed(calls)))
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        (refused,) = [answer.json()["code"] for answer in answers if answer.status_code == 409]
        assert refused in ("operation_in_progress", "payment_not_capturable")
        assert await shop.statuses(payment_id) == ["succeeded"]
        await shop.assert_books_agree(payment_id)


@pytest.mark.parametrize(
    "assignment",
    [
        "amount_refunded = amount_captured + 1",
        "amount_refund_pending = amount_captured + 1",
        "amount_disputed = amount_captured + 1",
        "amount_captured = amount_authorized + 1",
        "amount_capture_pending = 1",
        "amount_refunded = -1",
        "amount_capture_pending = -1",
        "amount_excess = -1",
        "amount_dispute_lost = 1",
    ],
)
async def test_the_database_refuses_what_the_code_should_never_write(build_world: BuildWorld, assignment: str) -> None:
    shop = await open_shop(build_world)
    await shop.captured()
    with pytest.raises(IntegrityError, match="violates check constraint"):
        await shop.world.run(f"UPDATE payments SET {assignment}")


# --- who may, and what is not there -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "scopes", "status"),
    [
        ("captures", "captures:write", 409),
        ("void", "captures:write", 409),
        ("refunds", "refunds:write", 201),
        ("captures", "refunds:write", 403),
        ("void", "refunds:write payments:write", 403),
        ("refunds", "captures:write payments:write", 403),
        ("refunds", "payments:read", 403),
    ],
)
async def test_each_kind_of_operation_needs_its_scope(
    build_world: BuildWorld, path: str, scopes: str, status: int
) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    body = {"reason": "returned"} if path == "refunds" else {}
    answer = await shop.send(f"{payment_id}/{path}", body, scopes=scopes)
    assert answer.status_code == status, answer.text


async def test_nobody_reads_or_writes_without_a_token(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    made = (await shop.refund(payment_id, 500)).json()
    for method, path in (
        ("POST", f"payments/{payment_id}/captures"),
        ("POST", f"payments/{payment_id}/void"),
        ("POST", f"payments/{payment_id}/refunds"),
        ("GET", f"payments/{payment_id}/refunds"),
        ("GET", f"refunds/{made['id']}"),
    ):
        answer = await shop.http.request(method, f"/api/v1/{path}", json={}, headers={"Idempotency-Key": KEY})
        assert answer.status_code == 401, path
    assert (await shop.ask(f"refunds/{made['id']}", scopes="refunds:write")).status_code == 403


async def test_what_is_not_there_is_not_found(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    made = (await shop.refund(await shop.captured(), 500)).json()
    for answer in (
        await shop.refund("pay_unknown", 1, key=key(11)),
        await shop.capture("pay_unknown", 1, key=key(12)),
        await shop.void("pay_unknown", key=key(13)),
        await shop.ask("payments/pay_unknown/refunds"),
        await shop.ask("payments/pay_unknown/captures"),
        await shop.ask("refunds/ref_unknown"),
        await shop.ask(f"captures/{made['id']}"),  # it is a refund
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("refunds", {}),
        ("refunds", {"reason": "r", "amount": {"amount_minor": 0, "currency": "EUR"}}),
        ("refunds", {"reason": "r", "amount": {"amount_minor": -5, "currency": "EUR"}}),
        ("refunds", {"reason": "r", "amount": {"amount_minor": 5, "currency": "USD"}}),
        ("refunds", {"reason": "r", "amount": {"amount_minor": 5.5, "currency": "EUR"}}),
        ("refunds", {"reason": "r", "amount": {"amount_minor": True, "currency": "EUR"}}),
        ("refunds", {"reason": "r\x00"}),
        ("refunds", {"reason": "r", "reference": "no spaces"}),
        ("refunds", {"reason": "r", "unheard": 1}),
        ("captures", {"final": "yes"}),
        ("captures", {"amount": {"amount_minor": 10**30, "currency": "EUR"}}),
        ("void", {"amount": 5}),
    ],
)
async def test_what_is_not_understood_moves_nothing(build_world: BuildWorld, path: str, body: dict[str, Any]) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    answer = await shop.send(f"{payment_id}/{path}", body)
    assert answer.status_code == 422, answer.text
    assert await shop.operations(payment_id) == []


async def test_a_gateway_without_refunds_says_so(build_world: BuildWorld) -> None:
    """RF20."""
    gateway = FakeMoney()
    lacking = frozenset(Capability) - {Capability.REFUND, Capability.VOID, Capability.MANUAL_CAPTURE}
    gateway.facts = replace(gateway.facts, capabilities=lacking)
    shop = await open_shop(build_world, gateway)
    payment_id = await shop.captured()
    for answer in (await shop.refund(payment_id), await shop.void(payment_id), await shop.capture(payment_id)):
        assert (answer.status_code, answer.json()["code"]) == (422, "capability_not_supported")
    assert await shop.operations(payment_id) == []


async def test_an_open_breaker_refuses_before_any_row(build_world: BuildWorld) -> None:
    """PY16."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    shop.gateways.is_available = False
    answer = await shop.refund(payment_id, 500)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_unavailable")
    assert await shop.operations(payment_id) == []
    shop.gateways.is_available = True
    assert (await shop.refund(payment_id, 500)).status_code == 201


# --- what the gateway does with it ------------------------------------------------------------------------------------


async def test_a_refusal_frees_the_reservation(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    shop.gateway.will("refund", Do.REJECT)
    answer = await shop.refund(payment_id, key=key(1))
    assert (answer.status_code, answer.json()["status"], answer.json()["failure_code"]) == (201, "failed", "refused")
    events = await shop.events(payment_id)
    assert (events["refund.created"], events["refund.failed"]) == (1, 1)
    assert (await shop.refund(payment_id, key=key(2))).json()["status"] == "succeeded"
    await shop.assert_books_agree(payment_id)


@pytest.mark.parametrize("by", ["webhook", "look", "sync"])
async def test_a_pending_refund_that_fails_later_gives_its_budget_back(build_world: BuildWorld, by: str) -> None:
    """RF4."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    shop.gateway.will("refund", Do.PENDING)
    answer = await shop.refund(payment_id, key=key(1))
    assert (answer.status_code, answer.json()["status"], answer.json()["outcome_known"]) == (202, "submitted", True)
    assert (await shop.totals(payment_id))["refund_pending"] == ORDERED
    assert (await shop.refund(payment_id, 1, key=key(2))).json()["code"] == "refund_exceeds_captured"

    (refund,) = shop.account(payment_id).refunds
    refund.status = OutcomeStatus.FAILED
    if by == "webhook":
        await shop.tell(payment_id, shop.gateway.of_refund(refund))
    elif by == "sync":
        await shop.sync(payment_id)
    else:
        await shop.settle_down()
    assert await shop.statuses(payment_id) == ["failed"]
    assert "refund_pending" not in await shop.totals(payment_id)
    assert (await shop.events(payment_id))["refund.failed"] == 1
    assert (await shop.refund(payment_id, key=key(3))).json()["status"] == "succeeded"
    assert len(shop.gateway.called("refund")) == 2


async def test_a_refund_that_came_back_after_its_success_is_reversed(build_world: BuildWorld) -> None:
    """RF4."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.refund(payment_id, key=key(1))
    (refund,) = shop.account(payment_id).refunds
    refund.status = OutcomeStatus.FAILED
    await shop.tell(payment_id, shop.gateway.of_refund(refund))
    assert await shop.statuses(payment_id) == ["reversed"]
    events = await shop.events(payment_id)
    assert (events["refund.succeeded"], events["refund.reversed"], events["refund.failed"]) == (1, 1, 0)
    assert await shop.totals(payment_id) == {"authorized": ORDERED, "captured": ORDERED}
    assert (await shop.refund(payment_id, key=key(2))).json()["status"] == "succeeded"


async def test_a_capture_whose_record_says_failed_is_told(build_world: BuildWorld) -> None:
    """RF15: mapped, and no endless retry."""
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    shop.gateway.will("capture", Do.FAIL)
    answer = await shop.capture(payment_id)
    assert (answer.json()["status"], answer.json()["failure_code"]) == ("failed", "declined")
    await shop.settle_down(hours=30)
    assert len(shop.gateway.called("capture")) == 1
    assert (await shop.events(payment_id))["capture.failed"] == 1
    assert await shop.totals(payment_id) == {"authorized": ORDERED}
