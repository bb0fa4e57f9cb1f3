"""PayU's odd answers: what cannot be read, is about another try, or only sounds like an answer, proves nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.payment_service.domain.models import (
    CaptureMode,
    Customer,
    Fact,
    FactKind,
    FactSource,
    Observation,
    PaymentStatus,
    Terms,
)
from services.payment_service.domain.operations import OperationKind
from services.payment_service.domain.transitions import reduce_facts
from shared.errors import GatewayOutcomeUnknown, GatewayRateLimited, GatewayRejected, GatewayUnavailable
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.gateway_world import ScriptedGateway, says, told
from tests.unit.payment_service.payu_world import (
    A_TRY_JUST_NOW,
    INR_499,
    NO_ACTIONS,
    OPERATION,
    OURS,
    PAYU_ID,
    a_call,
    a_form_request,
    actions,
    an_action,
    payu,
    refused,
    verified,
)

ANOTHER = "403993715500000002"
THROTTLED = "Too Many Requests"
HOUR = timedelta(hours=1)


async def asked(*answers: httpx.Response, known: tuple[str, ...] = (OURS,)) -> tuple[Observation, ...]:
    return (await payu(ScriptedGateway(list(answers))).retrieve(known, our_reference=OURS)).observations


# --- a throttle -----------------------------------------------------------------------------------------------------


async def test_a_shopper_whose_name_is_a_throttle_holds_nobody_back() -> None:
    customer = Customer("a@example.com", THROTTLED)
    form = await payu(ScriptedGateway()).create_session(a_form_request(customer=customer), repeated=False)
    name = form.next_action.fields["firstname"]
    assert name == THROTTLED  # PayU sends it back with every answer
    echoed = verified(firstname=name, productinfo="Requests limit reached")
    assert [o.kind for o in await asked(echoed, NO_ACTIONS)] == [FactKind.CAPTURED]
    row = {"id": PAYU_ID, "txnid": OURS, "status": "captured", "transaction_fee": "499.00", "firstname": name}
    page = says({"status": 1, "msg": "ok", "Transaction_details": [row]})
    listed = await payu(ScriptedGateway([page])).list_window(A_MOMENT, A_MOMENT + HOUR)
    assert len(listed.entries) == 1


@pytest.mark.parametrize(
    "answer",
    [
        says({"status": 1, "msg": THROTTLED}),
        says([{"firstname": THROTTLED}]),
        httpx.Response(200, content=b' {"firstname": "Too Many Requests", "status"'),
        httpx.Response(502, content=b'{"status": 1, "msg": "Too Many Requests"}'),
    ],
)
async def test_the_words_count_only_where_payu_says_no(answer: httpx.Response) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await asked(answer)


@pytest.mark.parametrize(
    "answer",
    [
        says({"status": 0, "msg": "Too many requests, wait for 60 seconds"}),
        says({"status": "0", "msg": "Requests limit reached"}),
        says({"msg": THROTTLED}),
        httpx.Response(200, content=b"<html>Too Many Requests</html>"),
    ],
)
async def test_a_throttle_is_known_by_its_words(answer: httpx.Response) -> None:
    with pytest.raises(GatewayRateLimited) as caught:
        await asked(answer)
    assert caught.value.retry_after_seconds == 60


# --- several tries under one txnid ----------------------------------------------------------------------------------


def status_of(*observations: Observation) -> PaymentStatus:
    facts = [Fact(observation, FactSource.API, A_MOMENT) for observation in observations]
    return reduce_facts(Terms(INR_499, CaptureMode.AUTOMATIC), facts).status


@pytest.mark.parametrize("unmapped", ["failed", "dropped", "autoRefund", "userCancelled", "bounced", "", "zz_unheard"])
async def test_a_try_that_failed_does_not_end_what_the_next_one_may_pay(unmapped: str) -> None:
    first = await asked(verified(**A_TRY_JUST_NOW | {"unmappedstatus": unmapped}))
    assert status_of(*first) is PaymentStatus.REQUIRES_ACTION
    second = await asked(verified(mihpayid=ANOTHER, status="pending", unmappedstatus="in progress"))
    assert status_of(*first, *second) is PaymentStatus.PROCESSING
    paid = await asked(verified(mihpayid=ANOTHER), NO_ACTIONS)
    assert status_of(*first, *second, *paid) is PaymentStatus.CAPTURED
    declined = {(o.object_reference, o.reason) for o in first if o.kind is FactKind.DECLINED}
    assert declined == (set() if unmapped == "bounced" else {(PAYU_ID, unmapped.lower() or "failed")})


async def test_a_pending_try_is_not_ended_by_another_that_payu_shows_in_its_place() -> None:
    """Which of several it shows is documented nowhere."""
    pending = await asked(verified(mihpayid=ANOTHER, status="pending", unmappedstatus="in progress"))
    later = await asked(verified(**A_TRY_JUST_NOW), known=(OURS, ANOTHER))
    assert status_of(*pending, *later) is PaymentStatus.PROCESSING
    a_day_on = verified(status="failure", unmappedstatus="failed", addedon="2025-12-30 08:30:00")
    much_later = await asked(a_day_on, known=(OURS, PAYU_ID, ANOTHER))
    assert status_of(*pending, *much_later) is PaymentStatus.PROCESSING


@pytest.mark.parametrize(
    ("addedon", "expected"),
    [
        ("2026-01-01 08:34:05", PaymentStatus.FAILED),  # 24 hours before A_MOMENT
        ("2026-01-01 08:34:06", PaymentStatus.REQUIRES_ACTION),
        ("2026-01-03 08:00:00", PaymentStatus.REQUIRES_ACTION),
        ("0000-00-00 00:00:00", PaymentStatus.REQUIRES_ACTION),
        (None, PaymentStatus.REQUIRES_ACTION),
    ],
)
async def test_a_failure_is_the_end_once_no_form_of_its_day_is_shown(
    addedon: str | None, expected: PaymentStatus
) -> None:
    failed = await asked(verified(**A_TRY_JUST_NOW | {"addedon": addedon}))
    assert status_of(*failed) is expected
    if expected is PaymentStatus.REQUIRES_ACTION:
        closed = await payu(ScriptedGateway([verified(**A_TRY_JUST_NOW)])).close_session(OURS, our_reference=OURS)
        assert status_of(*failed, *closed.observations) is PaymentStatus.CANCELED


async def test_a_late_hold_counts_after_its_page_has_ended() -> None:
    ended = await asked(verified(status="failure", unmappedstatus="bounced"))
    assert status_of(*ended) is PaymentStatus.EXPIRED
    held = await asked(verified(unmappedstatus="auth"), NO_ACTIONS)
    assert status_of(*ended, *held) is PaymentStatus.AUTHORIZED


# --- actions that cannot be read ------------------------------------------------------------------------------------

UNREAD = [
    says({"status": 0, "msg": "You do not have permission for this command"}),
    says({"status": 0, "msg": "error", "error_code": 500, "transaction_details": "Something went wrong"}),
    says({"status": 1, "msg": "ok", "transaction_details": {PAYU_ID: {"1": ["x"]}}}),
    says({"status": 0, "transaction_details": {"1": {"2": {"3": {"4": {"5": {"6": {"7": 1}}}}}}}}),
    says({"status": 0, "msg": "", "transaction_details": 5}),
    says({"status": 1, "msg": "0 out of 1"}),
    says({"status": 0, "msg": THROTTLED}),
    httpx.Response(500),
    httpx.Response(200, content=b"<html>maintenance</html>"),
    actions(an_action(mihpayid=None)),
    actions(an_action(mihpayid=ANOTHER)),
]


@pytest.mark.parametrize("answer", UNREAD)
async def test_money_is_not_kept_back_for_actions_that_cannot_be_read(answer: httpx.Response) -> None:
    assert told(await asked(verified(), answer)) == {("captured", PAYU_ID, INR_499)}
    with pytest.raises((GatewayOutcomeUnknown, GatewayUnavailable)):  # a hold may have been let go
        await asked(verified(unmappedstatus="auth"), answer)


async def test_actions_are_read_row_by_row() -> None:
    rows = actions(
        an_action(request_id="1", amt=None),
        an_action(request_id="2", amt="a lot"),
        an_action(request_id="3", mihpayid=None),
        an_action(request_id="4", amt="5.00"),
    )
    kinds = [(str(o.kind), o.object_reference) for o in await asked(verified(), rows)]
    assert kinds == [("captured", PAYU_ID), ("refund_succeeded", "4")]
    let_go = actions(an_action(request_id="1", amt=None), an_action(request_id="2", action="cancel", amt=None))
    assert ("canceled", PAYU_ID, None) in told(await asked(verified(unmappedstatus="auth"), let_go))


@pytest.mark.parametrize(
    "answer",
    [
        says({"status": 0, "msg": "No action found"}),
        says({"status": "0", "msg": "error", "transaction_details": "No action status found"}),
        says({"status": 0, "msg": "0 out of 1 Transactions Fetched", "error_code": "", "transaction_details": {}}),
        says({"status": 0, "msg": "x", "transaction_details": {PAYU_ID: "Not Found"}}),
    ],
)
async def test_payus_word_that_there_is_none_is_known(answer: httpx.Response) -> None:
    held = await asked(verified(unmappedstatus="auth"), answer)
    assert told(held) == {("authorized", PAYU_ID, INR_499)}
    assert await payu(ScriptedGateway([answer, verified()])).find_operation(a_call()) is None


@pytest.mark.parametrize(
    "body",
    [
        {"status": 0, "msg": "error", "error_code": 500, "transaction_details": "Something went wrong, try later"},
        {"status": 0, "msg": "error", "error_code": 500, "transaction_details": {PAYU_ID: "Not found"}},
        {"status": 0, "msg": "0 out of 1", "transaction_details": {PAYU_ID: "Request timed out, try later"}},
        {"status": 0, "msg": "10 out of 10 fetched", "transaction_details": {}},
        {"status": 1, "msg": "ok", "transaction_details": {PAYU_ID: "No action found"}},
        {"msg": "not found"},
        {"status": 0, "transaction_details": {PAYU_ID: "No action found", "x": "try later"}},
    ],
)
async def test_no_other_text_proves_that_nothing_ran(body: dict[str, Any]) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([says(body), verified()])).find_operation(a_call())
    with pytest.raises(GatewayOutcomeUnknown):  # nor does a refusal, while that is all that a look brings
        await payu(ScriptedGateway([refused(105), says(body), verified()])).refund(a_call())


async def test_a_row_that_cannot_be_read_may_be_the_one_that_is_looked_for() -> None:
    rows = actions(an_action(request_id="1", mihpayid=None), an_action(request_id="2", token="another"))
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([rows])).find_operation(a_call())
    found = actions(an_action(request_id="1", mihpayid=None), an_action(request_id="2", token=OPERATION))
    outcome = await payu(ScriptedGateway([found])).find_operation(a_call())
    assert outcome is not None
    assert outcome.gateway_reference == "2"


@pytest.mark.parametrize(
    "answer",
    [
        says({"status": 1, "msg": "Request Queued", "error_code": 105}),
        says({"msg": "no", "error_code": 105}),
        says({"status": 1, "msg": "Request Queued", "error_code": 302}),
    ],
)
async def test_a_code_refuses_only_what_payu_says_no_to(answer: httpx.Response) -> None:
    for call in (a_call(), a_call(OperationKind.CAPTURE, INR_499)):
        gateway = ScriptedGateway([answer, NO_ACTIONS, verified(unmappedstatus="auth")])
        with pytest.raises(GatewayOutcomeUnknown):
            await (payu(gateway).refund if call.kind is OperationKind.REFUND else payu(gateway).capture)(call)


# --- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [{}, {"id": None}, {"mihpayid": PAYU_ID}, {"id": "none"}, {"id": [PAYU_ID]}])
async def test_a_payment_of_ours_is_never_left_out_of_a_list_in_silence(named: dict[str, Any]) -> None:
    row = {"txnid": OURS, "status": "captured", "transaction_fee": "499.00", **named}
    gateway = ScriptedGateway([says({"status": 1, "msg": "ok", "Transaction_details": [row]})])
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(gateway).list_window(A_MOMENT, A_MOMENT + HOUR)
    somebody_elses = says({"status": 1, "msg": "ok", "Transaction_details": [row | {"txnid": "typed by hand"}]})
    assert (await payu(ScriptedGateway([somebody_elses])).list_window(A_MOMENT, A_MOMENT + HOUR)).entries == ()


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "2", "2026-01-02", "2026-01-02T03:30:00", "2026-01-02T01:00:00+00:00", "2026-01-03T00:00:00+00:00"],
)
async def test_a_cursor_of_nobodys_is_our_mistake(cursor: str) -> None:
    gateway = ScriptedGateway()
    with pytest.raises(GatewayRejected) as caught:
        await payu(gateway).list_window(A_MOMENT, A_MOMENT + HOUR, cursor=cursor)
    assert (caught.value.gateway_code, gateway.requests) == ("bad_cursor", [])


async def test_an_error_is_no_empty_list() -> None:
    since = datetime(2025, 1, 1, tzinfo=UTC)
    for answer in (
        says({"status": 0, "msg": "Not found", "error_code": 500}),
        says({"msg": "No transaction found"}),
        says({"status": 0, "msg": "10 out of 20"}),
    ):
        with pytest.raises(GatewayOutcomeUnknown):
            await payu(ScriptedGateway([answer])).list_window(since, since + HOUR)
