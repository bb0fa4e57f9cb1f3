"""The MyFatoorah adapter, against the fact sheet (myfatoorah.md): what goes out, and what each answer means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from structlog.testing import capture_logs

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, Customer, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.myfatoorah import DEFINITION, MyFatoorah, MyFatoorahSettings
from services.payment_service.gateways.myfatoorah.amounts import Account, decimal_of
from services.payment_service.gateways.myfatoorah.customer import fields_of
from services.payment_service.gateways.port import Capability, MoneyCall, OutcomeStatus, UnreadableWebhook
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
)
from shared.money import Money
from tests.support.adapter_calls import a_money_call
from tests.support.clock import A_MOMENT, fake_ports
from tests.unit.payment_service.gateway_world import (
    EXPIRES_AT,
    Answer,
    ScriptedGateway,
    a_delivery,
    a_request,
    json_around,
    says,
    told,
)

REFERENCE, OPERATION = "PR00000000000000001A", "OP00000000000000001A"
INVOICE, PAYMENT = "701234", "0100701234000000001"
KWD_12, KWD_5 = Money(12_345, "KWD"), Money(5_000, "KWD")
WEBHOOK_URL = "https://pay.example/api/v1/webhooks/myfatoorah"


def adapter_over(*answers: Answer, **changes: Any) -> tuple[MyFatoorah, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    values = {"api_token": "token-1", "country": "KWT", "api_base": "https://mf.test/", **changes}
    caller = gateway.caller()
    tools = Tools(caller, fake_ports(clock=gateway.clock), WEBHOOK_URL, is_production=False)
    return MyFatoorah(MyFatoorahSettings(**values), tools), gateway


def accepts(data: Any) -> httpx.Response:
    return says({"IsSuccess": True, "Message": "", "ValidationErrors": None, "Data": data})


def refuses(status: int = 400, name: str = "InvoiceValue", message: str = "Invalid data") -> httpx.Response:
    errors = [{"Name": name, "Error": "must be greater than 0"}]
    return says({"IsSuccess": False, "Message": message, "ValidationErrors": errors, "Data": None}, status)


def an_attempt(status: str = "Succss", **changes: Any) -> dict[str, Any]:
    attempt = {
        "PaymentId": PAYMENT,
        "TransactionStatus": status,
        "TransactionDate": "2026-01-02T06:00:00.000",
        "TransationValue": "12.345",
        "Currency": "KD",
        "PaidCurrency": "USD",
        "PaidCurrencyValue": "40.10",
        "ErrorCode": "MF002" if status == "Failed" else "",
    }
    return attempt | changes


def an_invoice(status: str = "Pending", *attempts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    invoice = {
        "InvoiceId": 701234,
        "InvoiceStatus": status,
        "CustomerReference": REFERENCE,
        "UserDefinedField": "pay_1",
        "ExpiryDate": "January 1, 2099",
        "ExpiryTime": "13:30:17.8120000",
        "InvoiceValue": 12.345,
        "InvoiceDisplayValue": "12.345 KD",
        "InvoiceTransactions": list(attempts),
    }
    return invoice | changes


def a_refund(status: str = "Pending", **changes: Any) -> dict[str, Any]:
    refund = {
        "RefundId": 5501,
        "RefundStatus": status,
        "InvoiceId": 701234,
        "Amount": 5,
        "RefundReference": "2026000011",
        "ExternalIdentifier": OPERATION,
        "RefundAmount": 4.9,
        "BaseCurrency": "KWD",
    }
    return refund | changes


def paid_with(value: Any, currency: str) -> dict[str, Any]:
    return an_invoice("Paid", an_attempt(TransationValue=value, Currency=currency))


NO_REFUNDS = accepts({"RefundStatusResult": []})
NO_LOG = accepts({"Items": [], "Pagination": {"PageSize": 500, "PageNumber": 1, "PagesCount": 1, "ItemsCount": 0}})
HELD = "pay_1;hold=12.345"


def a_call(kind: OperationKind = OperationKind.REFUND, amount: Money = KWD_5, **changes: Any) -> MoneyCall:
    mine = {
        "kind": kind,
        "amount": amount,
        "target": PAYMENT,
        "is_whole": False,
        "references": (INVOICE, PAYMENT),
        "first_sent_at": A_MOMENT,
    }
    return a_money_call(**{**mine, **changes})


def sent_json(gateway: ScriptedGateway, index: int = -1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gateway.requests[index].content, parse_float=Decimal)
    return found


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_an_invoice_is_asked_for_as_documented_with_an_exact_number() -> None:
    adapter, gateway = adapter_over(accepts({"InvoiceId": 701234, "InvoiceURL": "https://mf.test/i/1"}))
    customer = Customer("sara@example.com", "سارة O'Test (VIP)", "+965 9000-0000")
    session = await adapter.create_session(a_request(amount=Money(12_340, "KWD"), customer=customer), repeated=False)
    assert str(gateway.sent.url) == "https://mf.test/v2/SendPayment"
    assert gateway.sent.headers["authorization"] == "Bearer token-1"
    assert b'"InvoiceValue":12.340,' in gateway.sent.content
    local = EXPIRES_AT.astimezone(UTC) + timedelta(hours=3)
    assert sent_json(gateway) == {
        "CustomerName": "سارة O Test VIP",
        "CustomerEmail": "sara@example.com",
        "MobileCountryCode": "965",
        "CustomerMobile": "90000000",
        "InvoiceValue": Decimal("12.340"),
        "DisplayCurrencyIso": "KWD",
        "CallBackUrl": "https://pay.example/api/v1/payments/pay_1/return?from=page",
        "ErrorUrl": "https://pay.example/api/v1/payments/pay_1/return?from=cancel",
        "Language": "EN",
        "CustomerReference": REFERENCE,
        "CustomerIdentifier": REFERENCE,
        "UserDefinedField": "pay_1",
        "ExpiryDate": local.strftime("%Y-%m-%dT%H:%M:%S"),
        "WebhookUrl": WEBHOOK_URL,
        "NotificationOption": "LNK",
    }
    assert (session.gateway_reference, session.references) == (INVOICE, (INVOICE,))
    assert (session.next_action.type, session.next_action.url) == ("redirect", "https://mf.test/i/1")
    assert told(session.observations) == {("session_opened", INVOICE, None)}


async def test_a_hold_asks_for_the_methods_id_first_and_says_how_much_it_holds() -> None:
    methods = [{"PaymentMethodId": 1, "PaymentMethodCode": "kn"}, {"PaymentMethodId": 2, "PaymentMethodCode": "vm"}]
    adapter, gateway = adapter_over(
        accepts({"PaymentMethods": methods}), accepts({"InvoiceId": "701234", "PaymentURL": "https://mf.test/p/1"})
    )
    request = a_request(amount=KWD_12, capture=CaptureMode.MANUAL)
    session = await adapter.create_session(request, repeated=False)
    assert [each.url.path for each in gateway.requests] == ["/v2/InitiatePayment", "/v2/ExecutePayment"]
    assert sent_json(gateway, 0) == {"InvoiceAmount": Decimal("12.345"), "CurrencyIso": "KWD"}
    sent = sent_json(gateway)
    assert (sent["PaymentMethodId"], sent["ProcessingDetails"]) == (2, {"AutoCapture": False})
    assert sent["UserDefinedField"] == HELD
    assert "NotificationOption" not in sent
    assert session.next_action.url == "https://mf.test/p/1"
    without, _ = adapter_over(accepts({"PaymentMethods": methods[:1]}))
    with pytest.raises(GatewayRejected) as refusal:
        await without.create_session(request, repeated=False)
    assert refusal.value.gateway_code == "no_method"


async def test_an_unanswered_invoice_is_not_sent_again_by_itself() -> None:
    adapter, gateway = adapter_over(httpx.ReadTimeout("silence"))
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.create_session(a_request(amount=KWD_12), repeated=False)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    "first",
    [refuses(name="Key"), accepts(an_invoice()), accepts(an_invoice("Pending", ExpiryDate="January 1, 2020"))],
    ids=["there is none", "nobody was shown it", "it has expired"],
)
async def test_a_repeated_session_is_a_new_invoice_while_there_is_no_money_on_the_first(first: httpx.Response) -> None:
    adapter, gateway = adapter_over(first, accepts({"InvoiceId": 701235, "InvoiceURL": "https://mf.test/i/2"}))
    session = await adapter.create_session(a_request(amount=KWD_12), repeated=True)
    assert sent_json(gateway, 0) == {"Key": REFERENCE, "KeyType": "CustomerReference"}
    assert session.gateway_reference == "701235"


async def test_a_repeated_session_whose_first_is_paid_is_that_one() -> None:
    adapter, gateway = adapter_over(accepts(an_invoice("Paid", an_attempt())))
    session = await adapter.create_session(a_request(amount=KWD_12), repeated=True)
    assert len(gateway.requests) == 1
    assert session.references == (INVOICE, PAYMENT)
    assert session.next_action.url == a_request().return_url
    assert told(session.observations) == {("captured", PAYMENT, KWD_12)}


@pytest.mark.parametrize(
    "data",
    [
        {"InvoiceId": 701234},
        {"InvoiceId": 701234, "InvoiceURL": "javascript:alert(1)"},
        {"InvoiceId": 701234, "InvoiceURL": "https://mf.test/i/1", "CustomerReference": "another"},
        {"InvoiceId": None, "InvoiceURL": "https://mf.test/i/1"},
        [],
    ],
)
async def test_an_answer_that_is_no_page_of_ours_is_not_understood(data: Any) -> None:
    adapter, _ = adapter_over(accepts(data))
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.create_session(a_request(amount=KWD_12), repeated=False)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuses(), GatewayRejected),
        (refuses(200), GatewayRejected),
        (says({"IsSuccess": False, "Message": None, "FieldsErrors": [{"Name": "Amount"}]}, 400), GatewayRejected),
        (says({"Message": "not here"}, 404), GatewayRejected),
        (refuses(401), GatewayUnavailable),
        (httpx.Response(403, content=b"<html>Forbidden</html>"), GatewayUnavailable),
        (refuses(400, message="The token is invalid or has expired"), GatewayUnavailable),
        (httpx.Response(429, content=b"quota"), GatewayUnavailable),
        (httpx.Response(400, content=b'"a bare string"'), GatewayOutcomeUnknown),
        (httpx.Response(408), GatewayOutcomeUnknown),
        (httpx.Response(302, headers={"location": "https://elsewhere.test"}), GatewayOutcomeUnknown),
        (httpx.Response(502, content=b"<html>Bad gateway</html>"), GatewayOutcomeUnknown),
        (httpx.Response(200, content=b"<html>Please stand by</html>"), GatewayOutcomeUnknown),
        (says({"IsSuccess": "true", "Data": {}}), GatewayOutcomeUnknown),
        (says({"IsSuccess": True, "Data": None}), GatewayOutcomeUnknown),
    ],
)
async def test_what_an_answer_means_for_an_invoice(answer: httpx.Response, error: type[Exception]) -> None:
    adapter, _ = adapter_over(answer)
    with pytest.raises(error) as raised:
        await adapter.create_session(a_request(amount=KWD_12), repeated=False)
    assert type(raised.value) is error or issubclass(type(raised.value), error)
    assert "must be greater" not in str(raised.value), "what the gateway says may quote what we sent"


def test_an_account_takes_its_own_currency_and_nothing_is_converted() -> None:
    adapter, _ = adapter_over()
    assert adapter.facts.currencies == frozenset({"KWD"})
    adapter.check(KWD_12, CaptureMode.MANUAL)
    for amount in (Money(1000, "USD"), Money(1000, "SAR"), Money(0, "KWD")):
        with pytest.raises(CurrencyNotSupported):
            adapter.check(amount, CaptureMode.AUTOMATIC)
        with pytest.raises(CurrencyNotSupported):
            adapter.check_operation(OperationKind.REFUND, amount)


def test_an_account_without_holds_or_without_its_log_says_so() -> None:
    adapter, _ = adapter_over(holds=False, disputes=False)
    with pytest.raises(CapabilityNotSupported):
        adapter.check(KWD_12, CaptureMode.MANUAL)
    for capability in (Capability.MANUAL_CAPTURE, Capability.PARTIAL_CAPTURE, Capability.VOID, Capability.DISPUTES):
        assert capability not in adapter.facts.capabilities
        assert capability in adapter.facts.not_offered
    for facts in (adapter.facts, DEFINITION.facts):
        assert facts.capabilities | set(facts.not_offered) == set(Capability)
        assert not facts.capabilities & set(facts.not_offered)


@pytest.mark.parametrize(
    ("changes", "base", "currency"),
    [
        ({"country": "kwt"}, "https://api.myfatoorah.com", "KWD"),
        ({"country": "BHR"}, "https://api.myfatoorah.com", "BHD"),
        ({"country": "SAU"}, "https://api-sa.myfatoorah.com", "SAR"),
        ({"country": "ARE"}, "https://api-ae.myfatoorah.com", "AED"),
        ({"country": "QAT"}, "https://api-qa.myfatoorah.com", "QAR"),
        ({"country": "EGY"}, "https://api-eg.myfatoorah.com", "EGP"),
        ({"country": "SAU", "api_base": "https://apitest.myfatoorah.com"}, "https://apitest.myfatoorah.com", "KWD"),
        ({"country": "JOR", "base_currency": "usd"}, "https://api.myfatoorah.com", "USD"),
    ],
)
def test_host_and_currency_are_the_countrys(changes: dict[str, Any], base: str, currency: str) -> None:
    settings = MyFatoorahSettings(**{"api_token": "token-1", **changes})
    assert (settings.base, settings.currency) == (base, currency)
    assert DEFINITION.required == ("MYFATOORAH_API_TOKEN", "MYFATOORAH_COUNTRY")
    with pytest.raises(ValueError, match="BASE_CURRENCY"):
        adapter_over(base_currency="XX")


# --- retrieving ----------------------------------------------------------------------------------------------------

PASSED = {"ExpiryDate": "January 1, 2020", "ExpiryTime": "00:00:00"}


def ended(hours_ago: float) -> dict[str, str]:
    moment = A_MOMENT.astimezone(UTC) + timedelta(hours=3 - hours_ago)
    return {"ExpiryDate": f"{moment:%B} {moment.day}, {moment.year}", "ExpiryTime": f"{moment:%H:%M:%S.%f}0"}


SECOND = {"PaymentId": "02", "TransactionDate": "2026-01-02T07:00:00.000"}


@pytest.mark.parametrize(
    ("invoice", "expected"),
    [
        (an_invoice(), {("session_opened", INVOICE, None)}),
        (an_invoice("Pending", an_attempt("InProgress")), {("processing", INVOICE, None)}),
        (an_invoice("Pending", an_attempt("Whatever")), {("processing", INVOICE, None)}),
        (an_invoice("Whatever", an_attempt()), {("processing", INVOICE, None)}),
        (an_invoice("Pending", an_attempt()), {("processing", INVOICE, None)}),
        (an_invoice("Paid"), {("processing", INVOICE, None)}),
        (an_invoice("Pending", an_attempt("Failed")), {("session_opened", INVOICE, None), ("declined", PAYMENT, None)}),
        (
            an_invoice("Pending", an_attempt("Failed"), **PASSED),
            {("failed", INVOICE, None), ("declined", PAYMENT, None)},
        ),
        (an_invoice(**PASSED), {("expired", INVOICE, None)}),
        (an_invoice(**ended(0.01)), {("expired", INVOICE, None)}),
        (an_invoice(**ended(-0.01)), {("session_opened", INVOICE, None)}),
        (an_invoice("Pending", an_attempt("InProgress"), **ended(2)), {("processing", INVOICE, None)}),
        (an_invoice("Pending", an_attempt("InProgress"), **ended(25)), {("expired", INVOICE, None)}),
        (an_invoice(ExpiryDate="04/03/2020"), {("session_opened", INVOICE, None)}),
        (an_invoice("Pending", an_attempt("Authorize"), **PASSED), {("authorized", PAYMENT, KWD_12)}),
        (an_invoice("Pending", an_attempt("Canceled"), UserDefinedField=HELD), {("canceled", PAYMENT, None)}),
        (
            an_invoice("Pending", an_attempt("Canceled")),
            {("session_opened", INVOICE, None), ("declined", PAYMENT, None)},
        ),
        (
            an_invoice("Pending", an_attempt("InProgress"), an_attempt("Failed", **SECOND), **ended(2)),
            {("processing", INVOICE, None), ("declined", "02", None)},
        ),
        (
            an_invoice("Pending", an_attempt("Canceled"), an_attempt("InProgress", **SECOND), UserDefinedField=HELD),
            {("released", PAYMENT, None), ("processing", INVOICE, None)},
        ),
        (
            an_invoice("Pending", an_attempt("Canceled"), an_attempt("Authorize", **SECOND), UserDefinedField=HELD),
            {("released", PAYMENT, None), ("authorized", "02", KWD_12)},
        ),
        (
            an_invoice(
                "Pending",
                an_attempt("Canceled"),
                an_attempt("InProgress", **SECOND),
                **{"UserDefinedField": HELD, **ended(25)},
            ),
            {("canceled", PAYMENT, None)},
        ),
        (an_invoice("Canceled", an_attempt()), {("processing", INVOICE, None)}),
        (an_invoice("Canceled", an_attempt("InProgress")), {("processing", INVOICE, None)}),
        (an_invoice("Canceled", an_attempt("InProgress"), **ended(25)), {("canceled", INVOICE, None)}),
        (an_invoice("Canceled"), {("canceled", INVOICE, None)}),
        (
            an_invoice("Canceled", an_attempt("Authorize")),
            {("canceled", INVOICE, None), ("canceled", PAYMENT, None)},
        ),
    ],
)
async def test_what_an_invoice_without_taken_money_says(invoice: dict[str, Any], expected: set[Any]) -> None:
    adapter, gateway = adapter_over(accepts(invoice))
    snapshot = await adapter.retrieve((INVOICE,), our_reference=REFERENCE)
    assert told(snapshot.observations) == expected
    assert len(gateway.requests) == 1
    assert sent_json(gateway) == {"Key": INVOICE, "KeyType": "InvoiceId"}


@pytest.mark.parametrize(
    ("invoice", "expected"),
    [
        (an_invoice("Paid", an_attempt()), {("captured", PAYMENT, KWD_12)}),
        (an_invoice("PAID", an_attempt("Success")), {("captured", PAYMENT, KWD_12)}),
        (
            an_invoice("Paid", an_attempt(TransationValue="1,012.345 KD")),
            {("captured", PAYMENT, Money(1_012_345, "KWD"))},
        ),
        (
            an_invoice("Paid", an_attempt(TransationValue=12.3, Currency="KWD")),
            {("captured", PAYMENT, Money(12_300, "KWD"))},
        ),
        (
            an_invoice("Paid", an_attempt(TransationValue="12.34", Currency="SR")),
            {("captured", PAYMENT, Money(1234, "SAR"))},
        ),
        (
            an_invoice("Paid", an_attempt("Failed", PaymentId="01"), an_attempt()),
            {("captured", PAYMENT, KWD_12), ("declined", "01", None)},
        ),
        (
            an_invoice("DuplicatePayment", an_attempt(), an_attempt(PaymentId="02")),
            {("captured", PAYMENT, KWD_12), ("captured", "02", KWD_12)},
        ),
        (
            an_invoice("Paid", an_attempt(TransationValue="5.000"), InvoiceValue="5.000 KD", UserDefinedField=HELD),
            {("captured", PAYMENT, KWD_5), ("released", PAYMENT, None)},
        ),
        (
            an_invoice("Paid", an_attempt(), InvoiceValue=5, UserDefinedField=HELD),
            {("captured", PAYMENT, KWD_5), ("released", PAYMENT, None)},
        ),
        (an_invoice("Paid", an_attempt(), UserDefinedField=HELD), {("captured", PAYMENT, KWD_12)}),
    ],
)
async def test_what_a_paid_invoice_says(invoice: dict[str, Any], expected: set[Any]) -> None:
    adapter, _ = adapter_over(accepts(invoice), NO_REFUNDS, NO_LOG)
    snapshot = await adapter.retrieve((INVOICE,), our_reference=REFERENCE)
    assert told(snapshot.observations) == expected


@pytest.mark.parametrize(
    "attempt", [an_attempt(Currency="??"), an_attempt(TransationValue="a lot"), an_attempt(TransationValue=-1)]
)
async def test_money_that_cannot_be_read_is_not_guessed_at(attempt: dict[str, Any]) -> None:
    adapter, _ = adapter_over(accepts(an_invoice("Paid", attempt)), NO_REFUNDS, NO_LOG)
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.retrieve((INVOICE,), our_reference=REFERENCE)


async def test_refunds_come_with_the_invoice_those_of_the_portal_too() -> None:
    refunds = [
        a_refund("Refunded"),
        a_refund("Canceled", RefundId=5502, Amount="1.000"),
        a_refund("Pending", RefundId="5503", ExternalIdentifier=None),
        a_refund("Whatever", RefundId=5504, ExternalIdentifier="ticket 12"),
    ]
    adapter, gateway = adapter_over(
        accepts(an_invoice("Paid", an_attempt())), accepts({"RefundStatusResult": refunds}), NO_LOG
    )
    snapshot = await adapter.retrieve((INVOICE,), our_reference=REFERENCE)
    returned = [o for o in snapshot.observations if o.about == PAYMENT]
    assert [(o.kind, o.object_reference, o.amount, o.operation) for o in returned] == [
        (FactKind.REFUND_SUCCEEDED, "5501", KWD_5, OPERATION),
        (FactKind.REFUND_FAILED, "5502", Money(1000, "KWD"), OPERATION),
        (FactKind.REFUND_PENDING, "5503", KWD_5, None),
        (FactKind.REFUND_PENDING, "5504", KWD_5, None),
    ]
    assert sent_json(gateway, 1) == {"Key": INVOICE, "KeyType": "InvoiceId"}


async def test_an_invoice_of_somebody_elses_is_not_followed() -> None:
    adapter, gateway = adapter_over(accepts(an_invoice(CustomerReference="another")), refuses(name="Key"))
    with pytest.raises(GatewayObjectNotFound):
        await adapter.retrieve((PAYMENT, "999"), our_reference=REFERENCE)
    assert [sent_json(gateway, index)["Key"] for index in range(2)] == ["999", REFERENCE]


async def test_closing_says_canceled_only_of_a_page_that_nobody_is_paying_on() -> None:
    adapter, _ = adapter_over(accepts(an_invoice("Pending", an_attempt("Failed"))))
    snapshot = await adapter.close_session(INVOICE, our_reference=REFERENCE)
    assert ("canceled", INVOICE, None) in told(snapshot.observations)
    busy, _ = adapter_over(accepts(an_invoice("Pending", an_attempt("InProgress"))))
    snapshot = await busy.close_session(INVOICE, our_reference=REFERENCE)
    assert told(snapshot.observations) == {("processing", INVOICE, None)}


# --- money ---------------------------------------------------------------------------------------------------------


async def test_a_refund_is_filed_and_nothing_more() -> None:
    filed = {"Key": PAYMENT, "RefundId": 5501, "Amount": 5.000, "ExternalIdentifier": OPERATION}
    adapter, gateway = adapter_over(accepts(filed))
    outcome = await adapter.refund(a_call())
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.PENDING, "5501")
    assert gateway.sent.url.path == "/v2/MakeRefund"
    assert b'"Amount":5.000,' in gateway.sent.content
    assert sent_json(gateway) == {
        "KeyType": "PaymentId",
        "Key": PAYMENT,
        "Amount": Decimal("5.000"),
        "Comment": "damaged",
        "ExternalIdentifier": OPERATION,
        "ServiceChargeOnCustomer": False,
        "AmountDeductedFromSupplier": 0,
    }


async def test_a_refund_without_answer_is_never_sent_again_but_looked_for() -> None:
    adapter, gateway = adapter_over(httpx.ReadTimeout("silence"))
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.refund(a_call())
    assert len(gateway.requests) == 1
    assert adapter.facts.key_valid_for is None
    paid = accepts(an_invoice("Paid", an_attempt()))
    looking, gateway = adapter_over(paid, accepts({"RefundStatusResult": [a_refund("Canceled")]}))
    found = await looking.find_operation(a_call())
    assert found is not None
    assert (found.status, found.failure_code) == (OutcomeStatus.FAILED, "refund_canceled")
    assert [each.url.path for each in gateway.requests] == ["/v2/GetPaymentStatus", "/v2/GetRefundStatus"]
    nothing, _ = adapter_over(paid, accepts({"RefundStatusResult": [a_refund(ExternalIdentifier="another")]}))
    assert await nothing.find_operation(a_call()) is None


@pytest.mark.parametrize(
    "listed",
    [
        {},
        {"RefundStatusResult": None},
        {"RefundStatusResult": [a_refund(ExternalIdentifier=None)]},
        {"RefundStatusResult": [a_refund("Whatever", Amount="5.000", ExternalIdentifier="")]},
    ],
)
async def test_no_list_and_a_refund_of_our_amount_without_a_name_prove_no_absence(listed: dict[str, Any]) -> None:
    adapter, _ = adapter_over(accepts(an_invoice("Paid", an_attempt())), accepts(listed))
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.find_operation(a_call())


async def test_a_nameless_refund_of_another_amount_is_not_ours_nor_is_any_after_a_refusal() -> None:
    paid = accepts(an_invoice("Paid", an_attempt()))
    another = accepts({"RefundStatusResult": [a_refund(ExternalIdentifier=None, Amount=6)]})
    adapter, _ = adapter_over(paid, another)
    assert await adapter.find_operation(a_call()) is None
    of_the_portal = accepts({"RefundStatusResult": [a_refund(ExternalIdentifier=None)]})
    refused, _ = adapter_over(refuses(name="Amount"), paid, of_the_portal)
    with pytest.raises(GatewayRejected):
        await refused.refund(a_call())


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.VOID])
@pytest.mark.parametrize("status", ["Pending", "Canceled"])
async def test_of_an_attempt_that_has_paid_nothing_is_decided_before_its_invoice_says_so(
    kind: OperationKind, status: str
) -> None:
    adapter, gateway = adapter_over(accepts(an_invoice(status, an_attempt(), UserDefinedField=HELD)))
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.find_operation(a_call(kind))
    with pytest.raises(GatewayOutcomeUnknown):
        await (adapter.capture if kind is OperationKind.CAPTURE else adapter.void)(a_call(kind))
    assert {each.url.path for each in gateway.requests} == {"/v2/GetPaymentStatus"}


@pytest.mark.parametrize(
    "answers",
    [(refuses(name="Key"),), (accepts(an_invoice("Paid", an_attempt())), refuses(name="Key")), (says({}, 500),)],
)
async def test_what_is_refused_to_be_shown_is_no_proof_of_absence(answers: tuple[Answer, ...]) -> None:
    adapter, _ = adapter_over(*answers)
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.find_operation(a_call())


async def test_a_refused_refund_is_refused_unless_it_is_there() -> None:
    paid = accepts(an_invoice("Paid", an_attempt()))
    adapter, _ = adapter_over(refuses(name="Amount"), paid, NO_REFUNDS)
    with pytest.raises(GatewayRejected) as refusal:
        await adapter.refund(a_call())
    assert refusal.value.gateway_code == "Amount"
    there, _ = adapter_over(refuses(), paid, accepts({"RefundStatusResult": [a_refund()]}))
    assert (await there.refund(a_call())).status is OutcomeStatus.PENDING


@pytest.mark.parametrize("change", [{"Amount": 6}, {"ExternalIdentifier": "another"}, {"RefundId": None}])
async def test_an_answer_about_another_refund_leaves_the_outcome_unknown(change: dict[str, Any]) -> None:
    adapter, _ = adapter_over(accepts({"RefundId": 5501, "Amount": "5.000", "ExternalIdentifier": OPERATION} | change))
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.refund(a_call())


@pytest.mark.parametrize(
    ("kind", "sent", "after", "expected"),
    [
        (
            OperationKind.CAPTURE,
            {"Operation": "Capture", "Amount": Decimal("5.000"), "Key": INVOICE, "KeyType": "InvoiceId"},
            an_invoice("Paid", an_attempt(TransationValue="5.000"), InvoiceValue=5, UserDefinedField=HELD),
            {("captured", PAYMENT, KWD_5), ("released", PAYMENT, None)},
        ),
        (
            OperationKind.VOID,
            {"Operation": "Release", "Key": INVOICE, "KeyType": "InvoiceId"},
            an_invoice("Pending", an_attempt("Canceled"), UserDefinedField=HELD),
            {("canceled", PAYMENT, None)},
        ),
    ],
)
async def test_a_hold_is_looked_at_before_and_after_it_is_decided(
    kind: OperationKind, sent: dict[str, Any], after: dict[str, Any], expected: set[Any]
) -> None:
    held = accepts(an_invoice("Pending", an_attempt("Authorize"), UserDefinedField=HELD))
    adapter, gateway = adapter_over(held, accepts({}), accepts(after))
    call = a_call(kind)
    outcome = await (adapter.capture(call) if kind is OperationKind.CAPTURE else adapter.void(call))
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, PAYMENT)
    assert told(outcome.observations) == expected
    assert gateway.requests[1].url.path == "/v2/UpdatePaymentStatus"
    assert sent_json(gateway, 1) == sent
    done, gateway = adapter_over(accepts(after))
    again = await (done.capture(call) if kind is OperationKind.CAPTURE else done.void(call))
    assert (again.status, len(gateway.requests)) == (OutcomeStatus.SUCCEEDED, 1)


async def test_a_capture_that_does_not_show_yet_is_unknown_and_one_refused_is_refused() -> None:
    held = accepts(an_invoice("Pending", an_attempt("Authorize"), UserDefinedField=HELD))
    adapter, _ = adapter_over(held, accepts({}), held)
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.capture(a_call(OperationKind.CAPTURE))
    refused, _ = adapter_over(held, refuses(), held)
    with pytest.raises(GatewayRejected):
        await refused.capture(a_call(OperationKind.CAPTURE))
    deaf, gateway = adapter_over(says({}, 503))
    with pytest.raises(GatewayUnavailable):  # nothing was sent but a question
        await deaf.capture(a_call(OperationKind.CAPTURE))
    foreign, gateway = adapter_over(accepts(an_invoice("Pending", an_attempt("Authorize"), CustomerReference="x")))
    with pytest.raises(GatewayRejected):
        await foreign.void(a_call(OperationKind.VOID))
    assert len(gateway.requests) == 1


# --- the log of webhooks -------------------------------------------------------------------------------------------

EVENT_DATA = {
    "Invoice": {"Id": INVOICE, "Status": "PAID", "ExternalIdentifier": REFERENCE, "UserDefinedField": "pay_1"},
    "Transaction": {"Status": "SUCCESS", "PaymentId": PAYMENT},
    "Amount": {"BaseCurrency": "KWD", "ValueInBaseCurrency": "12.345"},
}


@pytest.mark.parametrize(
    "written",
    [EVENT_DATA, json.dumps(EVENT_DATA), {"Event": {"Code": 1}, "Data": EVENT_DATA}, json.dumps({"Data": EVENT_DATA})],
    ids=["data", "data as text", "body", "body as text"],
)
async def test_the_log_lists_a_window_however_it_keeps_its_entries(written: Any) -> None:
    items = [{"EventCode": 1, "Data": written}, {"EventCode": 1, "Data": "not JSON"}, {"EventCode": 1}]
    pages = {"Items": items, "Pagination": {"PagesCount": 2}}
    adapter, gateway = adapter_over(accepts(pages))
    page = await adapter.list_window(A_MOMENT, A_MOMENT + timedelta(hours=1))
    [listed] = page.entries
    assert (listed.references, listed.our_references) == ((INVOICE, PAYMENT), (REFERENCE, "pay_1"))
    assert told(listed.observations) == {("captured", PAYMENT, KWD_12)}
    assert page.next_cursor == "2"
    sent = sent_json(gateway)
    assert (sent["EventType"], sent["Page"]) == ("PAYMENT_STATUS_CHANGED", 1)
    assert datetime.fromisoformat(sent["Start"]) <= A_MOMENT
    assert datetime.fromisoformat(sent["End"]) > A_MOMENT + timedelta(hours=1)
    assert (await adapter.list_window(A_MOMENT, A_MOMENT, cursor="2")).next_cursor is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("PENDING", FactKind.DISPUTE_OPENED),
        ("RESOLVED", FactKind.DISPUTE_WON),
        ("LOST", FactKind.DISPUTE_LOST),
        ("Whatever", FactKind.DISPUTE_OPENED),
    ],
)
async def test_a_chargeback_is_read_from_the_log_and_an_alert_is_none(status: str, kind: FactKind) -> None:
    dispute = {"Type": "CHARGEBACK", "Status": status, "DisputeTransactionId": 77, "ChargeBackType": "FRAUD"}
    entry = {**EVENT_DATA, "Dispute": dispute, "Amount": {"BaseCurrency": "KWD", "ValueInBaseCurrency": "5.000"}}
    alert = {**entry, "Dispute": {**dispute, "Type": "FRAUDALERT", "DisputeTransactionId": 78}}
    other = {**entry, "Invoice": {"Id": "999"}}
    log = accepts({"Items": [{"Data": entry}, {"Data": alert}, {"Data": other}], "Pagination": {"PagesCount": 1}})
    adapter, gateway = adapter_over(accepts(an_invoice("Paid", an_attempt())), NO_REFUNDS, log)
    snapshot = await adapter.retrieve((INVOICE,), our_reference=REFERENCE)
    [found] = [o for o in snapshot.observations if o.about is not None]
    assert (found.kind, found.object_reference, found.amount, found.reason) == (kind, "77", KWD_5, "FRAUD")
    assert (sent_json(gateway)["Key"], sent_json(gateway)["KeyType"]) == ([INVOICE], "InvoiceId")


@pytest.mark.parametrize(
    "silence",
    [
        *(refuses(status, "Key") for status in (200, 400, 401, 403)),
        says({}, 500),
        httpx.Response(429, headers={"retry-after": "60"}),
        httpx.ReadTimeout("silence"),
        accepts(None),
        accepts({"RefundStatusResult": [a_refund(Amount="a lot")], "Items": "none"}),
    ],
)
async def test_what_was_paid_does_not_wait_for_refunds_and_disputes(silence: Answer) -> None:
    paid = accepts(an_invoice("Paid", an_attempt()))
    for answers in ((paid, silence, silence), (paid, NO_REFUNDS, silence), (paid, silence, NO_LOG)):
        adapter, _ = adapter_over(*answers)
        with capture_logs() as logs:
            snapshot = await adapter.retrieve((INVOICE,), our_reference=REFERENCE)
        assert told(snapshot.observations) == {("captured", PAYMENT, KWD_12)}
        assert all(set(entry) == {"event", "gateway", "code", "log_level"} for entry in logs), "no body, no reference"


# --- webhooks ------------------------------------------------------------------------------------------------------

V1 = {"EventType": 1, "Event": "TransactionsStatusChanged", "Data": {"InvoiceId": 701234, "PaymentId": PAYMENT}}


@pytest.mark.parametrize(
    ("body", "references", "ours"),
    [
        ({"Event": {"Code": 1, "Name": "[removed]"}, "Data": EVENT_DATA}, (INVOICE, PAYMENT), (REFERENCE, "pay_1")),
        (
            {
                "Event": {"Code": "2"},
                "Data": {
                    "Refund": {"Id": "5501", "InvoiceId": "999"},
                    "ReferencedInvoice": {"Id": 701234, "ExternalIdentifier": REFERENCE},
                },
            },
            (INVOICE,),
            (REFERENCE,),
        ),
        ({"Event": {"Code": 6}, "Data": EVENT_DATA}, (INVOICE, PAYMENT), (REFERENCE, "pay_1")),
        (V1, (INVOICE, PAYMENT), ()),
        (
            {"EventType": 2, "Data": {"InvoiceId": "701234", "RefundId": 1, "CustomerReference": REFERENCE}},
            (INVOICE,),
            (REFERENCE,),
        ),
    ],
)
def test_an_event_is_a_reason_to_ask_about_its_invoice(
    body: dict[str, Any], references: tuple[str, ...], ours: tuple[str, ...]
) -> None:
    adapter, _ = adapter_over()
    event = adapter.translate_webhook(a_delivery(body))
    assert (event.references, event.our_references) == (references, ours)
    assert (event.must_ask, event.observations, event.ignored) == (True, (), None)


@pytest.mark.parametrize("code", [3, 4, 5, 7, 99])
def test_events_about_no_payment_are_ignored(code: int) -> None:
    adapter, _ = adapter_over()
    for body in ({"Event": {"Code": code}, "Data": {}}, {"EventType": code, "Data": {}}):
        assert adapter.translate_webhook(a_delivery(body)).ignored == "event_type_not_used"


@pytest.mark.parametrize("body", ["", "[]", {}, {"Event": {}}, {"Event": {"Code": 1}}, {"EventType": 1, "Data": []}])
def test_what_is_no_event_of_theirs_is_unreadable(body: Any) -> None:
    adapter, _ = adapter_over()
    with pytest.raises(UnreadableWebhook):
        adapter.translate_webhook(a_delivery(body))


KEYS = ["Event", "EventType", "Data", "Code", "Invoice", "Id", "Refund", "ReferencedInvoice", "InvoiceId", "PaymentId"]


TRANSLATOR, _ = adapter_over()


@settings(max_examples=40)
@given(json_around(KEYS, [1, 2, "6", {"Id": 1}, {"Code": 1}]))
def test_no_webhook_is_ever_an_exception_of_another_kind_or_money(payload: str) -> None:
    try:
        event = TRANSLATOR.translate_webhook(a_delivery(payload))
    except UnreadableWebhook:
        return
    assert event.observations == ()


# --- amounts and names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("12,345.000 KD", "12345.000"),
        ("1,234,567.89", "1234567.89"),
        ("KD 12.345", "12.345"),
        (" 5 ", "5"),
        (5, "5"),
        (Decimal("0.001"), "0.001"),
        (".500", "0.500"),
        (".500 KD", "0.500"),
        ("KD .500", "0.500"),
        ("KD. 5.000", "5.000"),
        ("K.D. 5", "5"),
        ("$5.50", "5.50"),
        ("500.KD", "500"),
    ],
)
def test_an_amount_however_it_is_written(written: Any, expected: str) -> None:
    assert decimal_of(written) == Decimal(expected)


@pytest.mark.parametrize(
    "written",
    [
        "KD.500",
        "K.D.500",
        "$.50",
        ".",
        "KD",
        "..5",
        "",
        "12.345.000",
        "1,23",
        "-5",
        "1e3",
        "٥",
        "12 34",
        None,
        True,
        Decimal(-1),
        "5" * 70,
    ],
)
def test_what_is_no_amount(written: Any) -> None:
    with pytest.raises(UnexpectedShape):
        decimal_of(written)


@pytest.mark.parametrize(
    ("label", "code"),
    [("KD", "KWD"), ("K.D.", "KWD"), ("SR", "SAR"), ("BD", "BHD"), ("RO", "OMR"), ("aed", "AED"), ("R.O.X", "OMR")],
)
def test_a_label_names_a_currency_and_a_setting_can_name_one_more(label: str, code: str) -> None:
    account = Account("OMR", "R.O.X")
    assert account.currency_of({"Currency": label}, "Currency") == code
    assert account.currency_of({}, "Currency") == "OMR"
    with pytest.raises(UnexpectedShape):
        account.currency_of({"Currency": "??"}, "Currency")


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        (Customer("a@b.test", "<b>!</b>", None), {"CustomerName": "b b", "CustomerEmail": "a@b.test"}),
        (Customer("a@b.test", "!!!", "0590000000"), {"CustomerName": "Customer", "CustomerEmail": "a@b.test"}),
        (Customer("سارة@b.test", "x" * 300, "+9719"), {"CustomerName": "x" * 100}),
        (
            Customer("a@b.test", "Sara", "+971 50 000 0001"),
            {
                "CustomerName": "Sara",
                "CustomerEmail": "a@b.test",
                "MobileCountryCode": "971",
                "CustomerMobile": "500000001",
            },
        ),
    ],
)
def test_what_does_not_fit_of_a_shopper_is_left_out(customer: Customer, expected: dict[str, str]) -> None:
    assert fields_of(customer) == expected
