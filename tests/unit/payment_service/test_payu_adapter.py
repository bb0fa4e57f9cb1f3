"""PayU's adapter over scripted answers: the wire as the fact sheet writes it, and what each answer amounts to."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from pydantic import SecretStr

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, Customer, FactKind, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.payu import DEFINITION, PayuSettings
from services.payment_service.gateways.payu.hashes import command_hash, form_hash
from services.payment_service.gateways.port import (
    Capability,
    Delivery,
    GatewayEvent,
    Outcome,
    OutcomeStatus,
    UnreadableWebhook,
)
from shared.errors import (
    GatewayError,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayRejected,
    GatewayUnavailable,
)
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.gateway_world import ScriptedGateway, json_around, says, told
from tests.unit.payment_service.payu_world import (
    A_TRY_JUST_NOW,
    FORM_HASH,
    INR_100,
    INR_499,
    KEY,
    NO_ACTIONS,
    NOT_FOUND,
    OPERATION,
    OURS,
    PAYU_ID,
    QUEUED,
    REFUND_HASH,
    SALT,
    SILENCE,
    VERIFY_HASH,
    a_call,
    a_form_request,
    actions,
    an_action,
    an_entry,
    payu,
    refused,
    verified,
)

# --- what it is -----------------------------------------------------------------------------------------------------


def test_every_capability_is_offered_or_has_a_reason() -> None:
    without = payu(ScriptedGateway(), pre_authorize="").facts
    for facts in (DEFINITION.facts, without):
        assert facts.capabilities | set(facts.not_offered) == set(Capability)
        assert not facts.capabilities & set(facts.not_offered)
    assert Capability.MANUAL_CAPTURE in DEFINITION.facts.capabilities
    assert Capability.MANUAL_CAPTURE not in without.capabilities


def test_it_takes_rupees_and_holds_money_only_where_the_account_is_set_up_for_it() -> None:
    adapter, plain = payu(ScriptedGateway()), payu(ScriptedGateway(), pre_authorize="")
    adapter.check(INR_499, CaptureMode.MANUAL)
    plain.check(INR_499, CaptureMode.AUTOMATIC)
    with pytest.raises(CapabilityNotSupported):
        plain.check(INR_499, CaptureMode.MANUAL)
    with pytest.raises(CurrencyNotSupported):
        adapter.check(Money(49_900, "USD"), CaptureMode.AUTOMATIC)
    with pytest.raises(CurrencyNotSupported):
        adapter.check_operation(OperationKind.REFUND, Money(49_900, "KWD"))


@pytest.mark.parametrize("changes", [{"salt": SecretStr("a|b")}, {"salt": SecretStr(" ")}, {"merchant_key": "a|b"}])
def test_a_key_or_salt_that_makes_hashes_ambiguous_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="PAYU_"):
        payu(ScriptedGateway(), **changes)


# --- the form -------------------------------------------------------------------------------------------------------


def test_the_fact_sheets_vectors() -> None:
    form = {"key": KEY, "txnid": "ord_0001", "amount": "499.00", "productinfo": "Annual plan", "firstname": "Asha"}
    assert form_hash({**form, "email": "asha@example.com", "udf1": "t_42"}, SALT) == FORM_HASH
    assert command_hash(KEY, "verify_payment", "ord_0001", SALT) == VERIFY_HASH
    assert command_hash(KEY, "cancel_refund_transaction", PAYU_ID, SALT) == REFUND_HASH


async def test_opening_a_session_calls_nobody_and_makes_the_same_form_again() -> None:
    gateway = ScriptedGateway()
    request = a_form_request(reference="ord_0001", payment_id="t_42", order_id="", description="Annual plan")
    session = await payu(gateway).create_session(request, repeated=False)
    assert gateway.requests == []
    assert session.next_action.type == "form_post"
    assert session.next_action.url == "https://secure.payu.in/_payment"
    assert session.next_action.fields == {
        "key": KEY,
        "txnid": "ord_0001",
        "amount": "499.00",
        "productinfo": "Annual plan",
        "firstname": "Asha",
        "email": "asha@example.com",
        "phone": "9000090000",
        "surl": request.return_url,
        "furl": request.return_url,
        "curl": request.cancel_url,
        "udf1": "t_42",
        "udf2": "",
        "udf3": "",
        "udf4": "",
        "udf5": "",
        "hash": FORM_HASH,
    }
    assert (session.gateway_reference, session.references) == ("ord_0001", ("ord_0001",))
    assert session.expires_at == request.expires_at
    assert await payu(gateway).create_session(request, repeated=True) == session


async def test_money_is_held_first_only_where_that_is_asked_for() -> None:
    adapter = payu(ScriptedGateway(), salt=SecretStr(f"{SALT}, an-older-one"), checkout_base="http://127.0.0.1:1/x/")
    held = await adapter.create_session(a_form_request(capture=CaptureMode.MANUAL), repeated=False)
    assert held.next_action.fields["pre_authorize"] == "1"
    assert held.next_action.url == "http://127.0.0.1:1/x/_payment"
    taken = (await adapter.create_session(a_form_request(), repeated=False)).next_action.fields
    assert "pre_authorize" not in taken
    assert taken["hash"] == held.next_action.fields["hash"] == form_hash(taken, SALT)  # the first salt signs


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        (Customer("a@b.example", "Zoë Łukasiewicz|Co", None), ("Zoe ukasiewiczCo", "a@b.example", "9999999999")),
        (Customer("a@b.example", "山田太郎", "0044 20 7946 0000"), ("Customer", "a@b.example", "00442079460000")),
        (Customer("ä@b.example", "x" * 80, "12"), ("x" * 60, "customer@example.com", "9999999999")),
        (Customer("a|b@c.example", "O'Neil", "+91 90000-90000"), ("O'Neil", "customer@example.com", "9000090000")),
        (Customer(f"{'a' * 60}@{'b' * 60}.example", "A", None), ("A", "customer@example.com", "9999999999")),
    ],
)
async def test_names_addresses_and_numbers_never_stand_in_the_way(
    customer: Customer, expected: tuple[str, str, str]
) -> None:
    session = await payu(ScriptedGateway()).create_session(
        a_form_request(customer=customer, description="Tee 茶|" * 60), repeated=False
    )
    fields = session.next_action.fields
    assert (fields["firstname"], fields["email"], fields["phone"]) == expected
    assert len(fields["productinfo"]) <= 100
    assert "|" not in "".join(fields.values())


# --- asking ---------------------------------------------------------------------------------------------------------


async def test_asking_is_a_form_with_a_hash_over_key_command_and_first_variable() -> None:
    gateway = ScriptedGateway([NOT_FOUND])
    with pytest.raises(GatewayObjectNotFound):
        await payu(gateway).retrieve((), our_reference=OURS)
    assert str(gateway.sent.url) == "https://info.payu.in/merchant/postservice.php?form=2"
    assert gateway.sent.headers["content-type"] == "application/x-www-form-urlencoded"
    hashed = command_hash(KEY, "verify_payment", OURS, SALT)
    assert gateway.form == {"key": KEY, "command": "verify_payment", "var1": OURS, "hash": hashed}


async def observed(*answers: httpx.Response, known: tuple[str, ...] = ()) -> tuple[Observation, ...]:
    snapshot = await payu(ScriptedGateway(list(answers))).retrieve(known, our_reference=OURS)
    assert snapshot.references == (OURS, PAYU_ID)
    return snapshot.observations


@pytest.mark.parametrize(
    ("status", "unmapped", "kind", "reason"),
    [
        ("failure", "userCancelled", FactKind.CANCELED, "usercancelled"),
        ("failure", "bounced", FactKind.EXPIRED, "bounced"),
        ("failure", "dropped", FactKind.FAILED, "dropped"),
        ("failure", "failed", FactKind.FAILED, "failed"),
        ("failure", "autoRefund", FactKind.FAILED, "autorefund"),
        ("pending", "in progress", FactKind.PROCESSING, None),
        ("pending", "pending", FactKind.PROCESSING, None),
        ("zz_unheard_of", "captured", FactKind.PROCESSING, None),
        ("", "", FactKind.PROCESSING, None),
    ],
)
async def test_what_brought_no_money(status: str, unmapped: str, kind: FactKind, reason: str | None) -> None:
    """A year ago: no form of that day is shown any more. What ends is the page, and not a try that may be paid late."""
    [observation] = await observed(verified(status=status, unmappedstatus=unmapped))
    about = OURS if status == "failure" else PAYU_ID
    assert (observation.kind, observation.object_reference, observation.reason) == (kind, about, reason)


async def test_a_success_in_words_that_nobody_documents_is_under_way() -> None:
    [observation] = await observed(verified(unmappedstatus="zz_unheard_of"), NO_ACTIONS)
    assert observation.kind is FactKind.PROCESSING


async def test_a_shopper_on_the_page_has_tried_nothing_yet() -> None:
    [observation] = await observed(verified(status="pending", unmappedstatus="initiated"))
    assert (observation.kind, observation.object_reference) == (FactKind.SESSION_OPENED, OURS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amt": "508.98", "additional_charges": "9.98"},
        {"amt": "508.98", "additional_charges": "9.98", "transaction_amount": ...},
        {"transaction_amount": ..., "additional_charges": ...},
        {"transaction_amount": 499},
    ],
    ids=["plain", "with surcharge", "surcharge taken off", "amount alone", "as a number"],
)
async def test_a_capture_is_of_the_original_amount(changes: dict[str, Any]) -> None:
    [captured] = await observed(verified(**changes), NO_ACTIONS)
    assert captured == Observation(
        FactKind.CAPTURED, PAYU_ID, INR_499, datetime(2025, 1, 1, 6, 30, tzinfo=UTC)
    )  # the times are India's


async def test_a_wrong_amount_is_told_as_it_is() -> None:
    [captured] = await observed(verified(transaction_amount="1.00"), NO_ACTIONS)
    assert captured.amount == Money(100, "INR")


async def test_a_hold_a_capture_of_ours_and_refunds_of_anybody() -> None:
    automatic = an_action(action="capture", token="", request_id="1", amt="508.98")
    found = actions(
        automatic,
        an_action(request_id="2", action="capture", amt="499.00"),
        an_action(request_id="3", status="success"),
        an_action(request_id="4", token="typed by hand", status="QUEUED", amt="5.00"),
        an_action(request_id="5", token="", status="od_hit", amt="6.00"),
        an_action(request_id="6", status="FAILURE", amt="7.00"),
        an_action(request_id="7", action="chargeback"),
    )
    observations = await observed(verified(unmappedstatus="auth"), found)
    assert told(observations) == {
        ("authorized", PAYU_ID, INR_499),
        ("captured", PAYU_ID, INR_499),
        ("refund_succeeded", "3", INR_100),
        ("refund_pending", "4", Money(500, "INR")),
        ("refund_pending", "5", Money(600, "INR")),
        ("refund_failed", "6", Money(700, "INR")),
    }
    refunds = {o.object_reference: (o.operation, o.about) for o in observations if o.kind.startswith("refund")}
    assert refunds["3"] == (OPERATION, PAYU_ID)
    assert refunds["4"] == (None, PAYU_ID)


async def test_a_hold_that_was_let_go_is_found_among_the_actions() -> None:
    let_go = actions(an_action(action="cancel", amt="499.00"))
    assert ("canceled", PAYU_ID, None) in told(await observed(verified(unmappedstatus="auth"), let_go))
    # However the payment itself reads afterwards, which is documented nowhere.
    later = await observed(verified(status="failure", unmappedstatus="cancelled"), let_go, known=(OURS, PAYU_ID))
    assert ("canceled", PAYU_ID, None) in told(later)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"<html>maintenance</html>"),
        httpx.Response(302, headers={"location": "https://elsewhere.example"}),
        httpx.Response(404, content=b"{}"),
        says({"status": 0, "msg": "Parameter missing"}),
        says({"status": 1, "transaction_details": {"ANOTHER": an_entry()}}),
        verified(txnid="ANOTHER"),
        verified(transaction_amount="499.001"),
        verified(transaction_amount="a lot"),
        verified(mihpayid="none"),
        verified(transaction_amount=..., amt=...),
    ],
)
async def test_what_is_not_understood_says_nothing(answer: httpx.Response) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([answer])).retrieve((), our_reference=OURS)


@pytest.mark.parametrize(
    "answer",
    [
        says({"status": 0, "msg": "Invalid Hash."}),
        says({"status": "0", "msg": "Your key is not allowed"}),
        httpx.Response(403, content=b"no"),
        httpx.Response(200, content=b"Too Many Requests, wait for 60 seconds"),
        says({"status": 0, "msg": "Requests limit reached"}),
    ],
)
async def test_refused_credentials_and_a_throttle_move_nothing(answer: httpx.Response) -> None:
    gateway = ScriptedGateway([answer])
    with pytest.raises(GatewayUnavailable):
        await payu(gateway).refund(a_call())
    # After a try that was not answered, that one may have run.
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([SILENCE, answer])).refund(a_call())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([NOT_FOUND], ["canceled"]),
        ([verified(status="pending", unmappedstatus="initiated"), NO_ACTIONS], ["session_opened", "canceled"]),
        ([verified(status="pending", unmappedstatus="in progress"), NO_ACTIONS], ["processing"]),
        ([verified(status="zz"), NO_ACTIONS], ["processing"]),
        ([verified(status="failure", unmappedstatus="failed"), NO_ACTIONS], ["failed"]),
        ([verified(**A_TRY_JUST_NOW), NO_ACTIONS], ["session_opened", "declined", "canceled"]),
        ([verified(), NO_ACTIONS], ["captured"]),
    ],
)
async def test_closing_ends_what_no_bank_is_working_on(answers: list[httpx.Response], expected: list[str]) -> None:
    snapshot = await payu(ScriptedGateway(list(answers))).close_session(OURS, our_reference=OURS)
    assert [str(o.kind) for o in snapshot.observations] == expected
    if expected[-1] == "canceled":
        assert snapshot.observations[-1].reason == "closed_by_us"


async def test_nothing_is_closed_while_payu_cannot_be_asked() -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([httpx.ConnectError("down")])).close_session(OURS, our_reference=OURS)


# --- money ----------------------------------------------------------------------------------------------------------


async def test_a_refund_carries_our_reference_as_its_token_and_is_looked_at_once() -> None:
    gateway = ScriptedGateway([QUEUED, actions(an_action(status="QUEUED"))])
    outcome = await payu(gateway).refund(a_call())
    sent = dict(httpx.QueryParams(gateway.requests[0].content.decode()))
    assert sent == {
        "key": KEY,
        "command": "cancel_refund_transaction",
        "var1": PAYU_ID,
        "var2": OPERATION,
        "var3": "100.00",
        "hash": REFUND_HASH,
    }
    assert gateway.form["command"] == "check_action_status"
    assert (gateway.form["var1"], gateway.form["var2"]) == (PAYU_ID, "payuid")
    pending = Observation(FactKind.REFUND_PENDING, "130000001", INR_100, about=PAYU_ID, operation=OPERATION)
    assert outcome == Outcome(OutcomeStatus.PENDING, "130000001", observations=(pending,))
    assert len(sent["var2"]) <= 23


@pytest.mark.parametrize("look", [NO_ACTIONS, httpx.Response(500), httpx.Response(200, content=b"<html>")])
async def test_a_refund_that_was_taken_on_stays_so_whatever_the_look_says(look: httpx.Response) -> None:
    outcome = await payu(ScriptedGateway([QUEUED, look, NOT_FOUND])).refund(a_call())
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.PENDING, "130000001")
    assert [o.kind for o in outcome.observations] == [FactKind.REFUND_PENDING]


@pytest.mark.parametrize("code", [106, 227, "106", 109, 105])
async def test_whatever_is_refused_is_looked_for_by_its_token_first(code: int | str) -> None:
    gateway = ScriptedGateway([refused(code), actions(an_action())])
    outcome = await payu(gateway).refund(a_call())
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "130000001")


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([refused(105)], GatewayRejected),
        ([refused("130")], GatewayRejected),
        ([refused(103)], GatewayRejected),
        ([refused(106)], GatewayOutcomeUnknown),
        ([refused(227)], GatewayOutcomeUnknown),
        ([refused(500)], GatewayOutcomeUnknown),
        ([refused(104)], GatewayOutcomeUnknown),
        ([refused(102)], GatewayOutcomeUnknown),
        ([refused(999)], GatewayOutcomeUnknown),
        ([refused(None)], GatewayOutcomeUnknown),
        ([says({"status": 1, "msg": "fine"})], GatewayOutcomeUnknown),
        ([says({"status": 1, "request_id": "1", "mihpayid": "403993715500000002"})], GatewayOutcomeUnknown),
        ([refused(120)], GatewayRateLimited),
        ([refused(214)], GatewayRateLimited),
        ([refused(302)], GatewayRateLimited),
        ([SILENCE, refused(105)], GatewayOutcomeUnknown),
        ([SILENCE, refused(214)], GatewayOutcomeUnknown),
    ],
)
async def test_what_a_refusal_means_when_nothing_is_found(answers: list[Any], error: type[GatewayError]) -> None:
    gateway = ScriptedGateway([*answers, NO_ACTIONS, verified()])
    with pytest.raises(error) as caught:
        await payu(gateway).refund(a_call())
    assert type(caught.value) is error
    if error is GatewayRejected:
        assert caught.value.gateway_code in ("105", "130", "103")  # type: ignore[attr-defined]


async def test_what_has_to_wait_holds_no_other_payment_back() -> None:
    """A time to wait would be taken for a throttle of everything (use_cases/breakers.py)."""
    with pytest.raises(GatewayRateLimited) as caught:
        await payu(ScriptedGateway([refused(214), NO_ACTIONS, verified()])).refund(a_call())
    assert caught.value.retry_after_seconds is None


async def test_a_look_that_fails_leaves_a_refusal_unknown() -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([refused(105), httpx.Response(200, content=b"<html>")])).refund(a_call())


async def test_looking_finds_a_call_by_its_token_alone() -> None:
    others = actions(an_action(token=""), an_action(request_id="2", token="OP00000000000000002B"))
    assert await payu(ScriptedGateway([others])).find_operation(a_call()) is None
    found = await payu(ScriptedGateway([actions(an_action(status="FAILURE"))])).find_operation(a_call())
    assert found is not None
    assert (found.status, found.failure_code) == (OutcomeStatus.FAILED, "refund_failed")
    odd = actions(an_action(status="zz_unheard_of"))
    pending = await payu(ScriptedGateway([odd])).find_operation(a_call())
    assert pending is not None
    assert pending.status is OutcomeStatus.PENDING


async def test_an_empty_list_proves_nothing_where_payu_does_not_know_the_payment() -> None:
    """The keys of another account find nothing either."""
    assert await payu(ScriptedGateway([NO_ACTIONS, verified()])).find_operation(a_call()) is None
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([NO_ACTIONS, NOT_FOUND])).find_operation(a_call())


@pytest.mark.parametrize("changes", [{"amt": "99.00"}, {"action": "capture"}, {"mihpayid": "403993715500000002"}])
async def test_another_action_under_our_token_is_not_believed(changes: dict[str, Any]) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await payu(ScriptedGateway([actions(an_action(**changes))])).find_operation(a_call())


async def test_a_capture_takes_the_whole_hold() -> None:
    gateway = ScriptedGateway([QUEUED, actions(an_action(action="capture", amt="499.00"))])
    outcome = await payu(gateway).capture(a_call(OperationKind.CAPTURE, INR_499))
    sent = dict(httpx.QueryParams(gateway.requests[0].content.decode()))
    assert (sent["command"], sent["var1"], sent["var2"], sent["var3"]) == (
        "capture_transaction",
        PAYU_ID,
        OPERATION,
        "499.00",
    )
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == {("captured", PAYU_ID, INR_499)}
    with pytest.raises(GatewayRejected):
        await payu(ScriptedGateway()).capture(a_call(OperationKind.CAPTURE, INR_100, is_whole=False))


@pytest.mark.parametrize("code", [301, 109, 111])
async def test_what_somebody_else_has_captured_is_captured(code: int) -> None:
    by_hand = actions(an_action(action="capture", token="", amt="499.00"))
    call = a_call(OperationKind.CAPTURE, INR_499)
    outcome = await payu(ScriptedGateway([refused(code), by_hand, verified()])).capture(call)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    with pytest.raises(GatewayOutcomeUnknown if code == 301 else GatewayRejected):
        await payu(ScriptedGateway([refused(code), by_hand, verified(unmappedstatus="auth")])).capture(call)


async def test_a_void_is_sent_only_while_the_money_is_held() -> None:
    """The same command gives captured money back."""
    call = a_call(OperationKind.VOID, INR_499)
    gateway = ScriptedGateway(
        [verified(unmappedstatus="auth"), QUEUED, actions(an_action(action="cancel", amt="499.00"))]
    )
    outcome = await payu(gateway).void(call)
    assert dict(httpx.QueryParams(gateway.requests[1].content.decode()))["command"] == "cancel_refund_transaction"
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == {("canceled", PAYU_ID, None)}
    captured = ScriptedGateway([verified(), NO_ACTIONS, verified()])
    with pytest.raises(GatewayRejected):
        await payu(captured).void(call)
    assert b"cancel_refund" not in b"".join(request.content for request in captured.requests)
    done = ScriptedGateway([verified(status="failure"), actions(an_action(action="cancel", amt="499.00"))])
    assert (await payu(done).void(call)).status is OutcomeStatus.SUCCEEDED
    with pytest.raises(GatewayUnavailable):  # nothing was sent that could move money
        await payu(ScriptedGateway([httpx.ConnectError("down")])).void(call)


async def test_a_void_that_met_captured_money_is_a_refund_that_counts() -> None:
    refund = actions(an_action(amt="499.00"))
    found = await payu(ScriptedGateway([refund])).find_operation(a_call(OperationKind.VOID, INR_499))
    assert found is not None
    assert (found.status, found.failure_code) == (OutcomeStatus.FAILED, "refunded_instead")
    [observation] = found.observations
    assert (observation.kind, observation.operation, observation.about) == (FactKind.REFUND_SUCCEEDED, None, PAYU_ID)


async def test_a_refund_is_repeated_under_its_token_after_silence() -> None:
    gateway = ScriptedGateway([SILENCE, refused(106, "Token already exists."), actions(an_action())])
    outcome = await payu(gateway).refund(a_call())
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert gateway.requests[0].content == gateway.requests[1].content


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_a_list_is_read_hour_by_hour_in_indian_time() -> None:
    rows = [
        {"id": PAYU_ID, "txnid": OURS, "status": "captured", "transaction_fee": "499.00", "amount": "508.98"},
        {"id": "403993715500000002", "txnid": "typed by hand", "status": "failed", "addedon": "2025-01-01 12:00:00"},
        {"id": "403993715500000003", "txnid": OURS, "action": "capture", "status": "SUCCESS", "transaction_fee": "x"},
        {"id": None},
    ]
    answer = says({"status": 1, "msg": "Transaction Fetched Successfully", "Transaction_details": rows})
    gateway = ScriptedGateway([answer])
    since = datetime(2025, 1, 1, 6, 30, tzinfo=UTC)
    page = await payu(gateway).list_window(since, since + timedelta(minutes=90))
    assert (gateway.form["command"], gateway.form["var1"], gateway.form["var2"]) == (
        "get_transaction_info",
        "2025-01-01 12:00:00",
        "2025-01-01 13:00:01",
    )
    first, second, third = page.entries
    assert (first.references, first.our_references) == ((PAYU_ID, OURS), (OURS,))
    assert told(first.observations) == {("captured", PAYU_ID, INR_499)}
    assert (second.our_references, second.observations, second.created_at) == ((), (), since)
    assert third.observations == ()
    last = await payu(gateway).list_window(since, since + timedelta(minutes=90), cursor=page.next_cursor)
    assert gateway.form["var1"] == "2025-01-01 13:00:00"
    assert last.next_cursor is None


async def test_an_empty_list_is_told_from_nonsense() -> None:
    nothing = says({"status": 0, "msg": "No transaction found"})
    since = datetime(2025, 1, 1, tzinfo=UTC)
    assert (await payu(ScriptedGateway([nothing])).list_window(since, since + timedelta(hours=1))).entries == ()
    for answer in (says({"status": 0, "msg": "what?"}), says({"status": 1, "Transaction_details": "x"})):
        with pytest.raises(GatewayOutcomeUnknown):
            await payu(ScriptedGateway([answer])).list_window(since, since + timedelta(hours=1))


# --- webhooks -------------------------------------------------------------------------------------------------------


ADAPTER = payu(ScriptedGateway())


def translated(payload: str, content_type: str = "application/x-www-form-urlencoded") -> GatewayEvent:
    return ADAPTER.translate_webhook(Delivery(content_type, payload, None, A_MOMENT))


PAYMENT = {"mihpayid": PAYU_ID, "status": "success", "unmappedstatus": "captured", "txnid": OURS, "amount": "499.00"}
REFUND = {"action": "refund", "status": "success", "mihpayid": f" {PAYU_ID} ", "merchantTxnId": OURS, "amt": "1.00"}
DISPUTE = {"type": "payments", "event": "dispute", "txn_id": PAYU_ID, "cb_id": "1", "cb_status": "New"}


@pytest.mark.parametrize(
    ("payload", "event_type", "ours"),
    [
        (urlencode(PAYMENT), "payment.success", (OURS,)),
        (urlencode(PAYMENT | {"status": "failure"}), "payment.failure", (OURS,)),
        (json.dumps(PAYMENT), "payment.success", (OURS,)),
        (json.dumps(REFUND), "refund.success", (OURS,)),
        (json.dumps(DISPUTE), "dispute.new", ()),
    ],
)
def test_every_webhook_is_a_reason_to_ask_and_no_more(payload: str, event_type: str, ours: tuple[str, ...]) -> None:
    event = translated(payload)
    assert event == GatewayEvent(event_type, (PAYU_ID,), ours, must_ask=True)


def test_an_id_that_was_masked_as_a_card_number_is_not_needed() -> None:
    event = translated(urlencode(PAYMENT | {"mihpayid": "[PAN:…0001]"}))
    assert (event.references, event.our_references) == ((), (OURS,))
    with pytest.raises(UnreadableWebhook):
        translated(json.dumps(DISPUTE | {"txn_id": "[PAN:…0001]"}))


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "[]",
        "{}",
        "txnid=",
        f"txnid={OURS}&txnid={OURS}",
        "&".join(f"a{number}=1" for number in range(600)),
        json.dumps({"txnid": [OURS], "status": "success"}),
        urlencode({"txnid": "somebody else's", "status": "success"}),
        '{"txnid": 1e99999999999999, "mihpayid": 1e-99999999999999}',
    ],
)
def test_what_names_no_payment_is_unreadable(payload: str) -> None:
    with pytest.raises(UnreadableWebhook):
        translated(payload)


_KEYS = ["txnid", "mihpayid", "status", "action", "event", "merchantTxnId", "txn_id", "cb_status", "data"]


@settings(max_examples=60)
@given(payload=json_around(_KEYS, [OURS, PAYU_ID, "refund", "dispute", "success", ""]))
def test_no_body_raises_anything_of_its_own_or_tells_of_money(payload: str) -> None:
    for text in (payload, urlencode({"txnid": OURS, "x": payload}), payload.replace(":", "=").replace(",", "&")):
        try:
            event = translated(text)
        except UnreadableWebhook:
            continue
        assert event.must_ask
        assert not event.observations


def test_secrets_stay_out_of_texts() -> None:
    adapter = payu(ScriptedGateway())
    assert SALT not in repr(adapter) + repr(PayuSettings(merchant_key=KEY, salt=SecretStr(SALT)))
    assert replace(adapter.facts, name="x").name == "x"
