"""Payments of a window of time, listed by each gateway's own list: what is asked, and what an entry says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from services.payment_service.gateways.generic import Generic, GenericSettings
from services.payment_service.gateways.paypal import PayPal, PayPalSettings
from services.payment_service.gateways.port import GatewayAdapter, Listed, ListPage
from services.payment_service.gateways.razorpay import Razorpay, RazorpaySettings
from services.payment_service.gateways.stripe import Stripe, StripeSettings
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.money import Money
from tests.unit.payment_service.gateway_world import Answer, ScriptedGateway, says, told

SINCE = datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)
UNTIL = datetime(2026, 1, 2, 0, 0, 0, 500_000, UTC)
MADE_AT = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)
SECONDS = int(MADE_AT.timestamp())
REFERENCE = "PR00000000000000001A"
USD_1999, INR_500 = Money(1999, "USD"), Money(50_000, "INR")
Over = Callable[..., tuple[GatewayAdapter, ScriptedGateway]]
TOKEN = says({"access_token": "A21AAtoken", "token_type": "Bearer", "expires_in": 32400})


def stripe_over(*answers: Answer) -> tuple[Stripe, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    settings = StripeSettings(api_key=SecretStr("sk_test_1"), api_base="https://stripe.test")
    return Stripe(settings, gateway.caller()), gateway


def paypal_over(*answers: Answer) -> tuple[PayPal, ScriptedGateway]:
    gateway = ScriptedGateway([TOKEN, *answers])
    settings = PayPalSettings(client_id="client", client_secret=SecretStr("secret"), api_base="https://paypal.test")
    return PayPal(settings, gateway.caller()), gateway


def razorpay_over(*answers: Answer) -> tuple[Razorpay, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    settings = RazorpaySettings(key_id="rzp_test_1", key_secret=SecretStr("s"), api_base="https://razorpay.test")
    return Razorpay(settings, gateway.caller()), gateway


def generic_over(*answers: Answer) -> tuple[Generic, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    return Generic(GenericSettings(api_base="https://generic.test", api_key=SecretStr("gk")), gateway.caller()), gateway


def asked(gateway: ScriptedGateway) -> tuple[str, dict[str, str]]:
    assert gateway.sent.method == "GET"
    return gateway.sent.url.path, dict(gateway.sent.url.params)


def the_entry(page: ListPage) -> Listed:
    [entry] = page.entries
    return entry


# --- Stripe ----------------------------------------------------------------------------------------------------------


def an_intent(status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    intent = {
        "id": "pi_1",
        "status": status,
        "amount": 1999,
        "amount_received": 1999,
        "amount_capturable": 0,
        "currency": "usd",
        "livemode": False,
        "latest_charge": {"id": "ch_1"},
        "created": SECONDS,
        "metadata": {"order_ref": REFERENCE, "payment_id": "pay_1"},
    }
    return intent | changes


def intents(*data: dict[str, Any], has_more: Any = False) -> httpx.Response:
    return says({"object": "list", "data": list(data), "has_more": has_more})


async def test_stripe_lists_the_intents_that_were_made_in_the_window() -> None:
    stripe, gateway = stripe_over(intents(an_intent(), has_more=True), intents())
    page = await stripe.list_window(SINCE, UNTIL)
    query = {"created[gte]": "1767225600", "created[lt]": "1767312001", "limit": "100"}  # rounded outwards
    assert asked(gateway) == ("/v1/payment_intents", query | {"expand[]": "data.latest_charge"})
    entry = the_entry(page)
    assert (entry.references, entry.our_references) == (("pi_1", "ch_1"), ("pay_1", REFERENCE))
    assert (told(entry.observations), entry.created_at) == ({("captured", "pi_1", USD_1999)}, MADE_AT)

    assert await stripe.list_window(SINCE, UNTIL, cursor=page.next_cursor) == ListPage((), None)
    assert asked(gateway)[1]["starting_after"] == "pi_1"


@pytest.mark.parametrize(
    "answer",
    [
        says({"data": []}),
        intents(has_more="no"),
        intents(has_more=True),
        intents({"livemode": False}),
        intents(an_intent(livemode=True)),
    ],
)
async def test_a_list_of_stripes_that_is_not_understood_proves_no_absence(answer: Answer) -> None:
    stripe, _ = stripe_over(answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.list_window(SINCE, UNTIL)


# --- Razorpay --------------------------------------------------------------------------------------------------------


def a_payment(status: str = "captured", **changes: Any) -> dict[str, Any]:
    payment = {
        "id": "pay_1",
        "amount": 50_000,
        "currency": "INR",
        "status": status,
        "order_id": "order_1",
        "captured": status == "captured",
        "notes": {"order_ref": "PR0000000000SOMEBODY"},
        "created_at": SECONDS,
    }
    return payment | changes


def an_order(*payments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    order = {
        "id": "order_1",
        "amount": 50_000,
        "currency": "INR",
        "receipt": REFERENCE,
        "status": "paid",
        "attempts": len(payments),
        "notes": {"payment_id": "pmt_1"},
        "created_at": SECONDS,
        "payments": {"entity": "collection", "count": len(payments), "items": list(payments)},
    }
    return order | changes


def orders(*items: dict[str, Any]) -> httpx.Response:
    return says({"entity": "collection", "count": len(items), "items": list(items)})


async def test_razorpay_lists_orders_because_a_payments_notes_have_been_in_a_browser() -> None:
    razorpay, gateway = razorpay_over(orders(an_order(a_payment()), an_order()))
    entry = the_entry(await razorpay.list_window(SINCE, UNTIL))  # the other one nobody has tried to pay
    a_day_earlier = int((SINCE - timedelta(days=1)).timestamp())
    query = {"from": str(a_day_earlier), "to": "1767312001", "count": "100", "skip": "0", "expand[]": "payments"}
    assert asked(gateway) == ("/v1/orders", query)
    assert (entry.references, entry.our_references) == (("order_1", "pay_1"), ("pmt_1", REFERENCE))
    assert (told(entry.observations), entry.created_at) == ({("captured", "pay_1", INR_500)}, MADE_AT)


async def test_razorpays_pages_go_on_while_they_are_full() -> None:
    razorpay, gateway = razorpay_over(orders(*[an_order()] * 100), orders(*[an_order()] * 99))
    page = await razorpay.list_window(SINCE, UNTIL)
    assert page == ListPage((), "100")
    assert await razorpay.list_window(SINCE, UNTIL, cursor=page.next_cursor) == ListPage((), None)
    assert asked(gateway)[1]["skip"] == "100"


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (an_order(a_payment("failed"), a_payment("captured", id="pay_2")), {"declined", "captured"}),
        (an_order(a_payment("authorized"), a_payment("captured", id="pay_2")), {"captured"}),
        (an_order(a_payment("refunded", captured=True)), {"captured"}),
        (an_order(a_payment("refunded", captured=False)), set()),  # its refunds tell, and they are not here
        (an_order(a_payment("something_new")), set()),
        (an_order(attempts=1, payments=None), set()),
    ],
)
async def test_what_an_order_in_razorpays_list_says(order: dict[str, Any], expected: set[str]) -> None:
    razorpay, _ = razorpay_over(orders(order))
    entry = the_entry(await razorpay.list_window(SINCE, UNTIL))
    assert {str(each.kind) for each in entry.observations} == expected


# --- PayPal ----------------------------------------------------------------------------------------------------------


def a_row(code: str = "T0006", status: str = "S", **changes: Any) -> dict[str, Any]:
    info = {
        "transaction_id": "CAP1",
        "transaction_event_code": code,
        "transaction_status": status,
        "transaction_initiation_date": "2026-01-01T10:00:00+0000",
        "transaction_amount": {"currency_code": "USD", "value": "19.99"},
        "invoice_id": "OP00000000000000001A",
        "custom_field": REFERENCE,
    }
    return {"transaction_info": info | changes}


def rows(*details: dict[str, Any], pages: Any = 1) -> httpx.Response:
    return says({"transaction_details": list(details), "page": 1, "total_items": len(details), "total_pages": pages})


async def test_paypal_lists_captures_by_transaction_search() -> None:
    a_refund = a_row("T1107", transaction_id="REF1", transaction_amount={"currency_code": "USD", "value": "-5.00"})
    paypal, gateway = paypal_over(rows(a_row(), a_refund))
    page = await paypal.list_window(SINCE, UNTIL)
    query = {"start_date": "2026-01-01T00:00:00Z", "end_date": "2026-01-02T00:00:01Z", "fields": "transaction_info"}
    assert asked(gateway) == ("/v1/reporting/transactions", query | {"page_size": "500", "page": "1"})
    entry = the_entry(page)
    assert (entry.references, entry.our_references) == (("CAP1",), (REFERENCE,))
    assert (told(entry.observations), entry.created_at) == ({("captured", "CAP1", USD_1999)}, MADE_AT)
    assert page.next_cursor is None


@pytest.mark.parametrize(
    "row",
    [
        a_row(status="P"),
        a_row(status="V"),
        a_row(status="?"),
        a_row(transaction_amount={"currency_code": "USD", "value": "-19.99"}),
        a_row(transaction_amount=None),
    ],
)
async def test_only_what_paypal_calls_a_success_is_one(row: dict[str, Any]) -> None:
    paypal, _ = paypal_over(rows(row))
    entry = the_entry(await paypal.list_window(SINCE, UNTIL))
    assert (entry.references, entry.our_references, entry.observations) == (("CAP1",), (REFERENCE,), ())


async def test_paypal_is_asked_for_a_long_window_in_parts_and_each_part_in_pages() -> None:
    paypal, gateway = paypal_over(rows(pages=2), rows(pages=2), rows(pages=0))
    until, cursor, seen = SINCE + timedelta(days=40), None, []
    while True:
        page = await paypal.list_window(SINCE, until, cursor=cursor)
        query = asked(gateway)[1]
        seen.append((query["start_date"], query["end_date"], query["page"]))
        cursor = page.next_cursor
        if cursor is None:
            break
    first, second, last = "2026-01-01T00:00:00Z", "2026-01-31T00:00:00Z", "2026-02-10T00:00:01Z"
    assert seen == [(first, second, "1"), (first, second, "2"), (second, last, "1")]


async def test_an_app_without_transaction_search_is_refused_and_no_reason_to_stop_calling_paypal() -> None:
    refusal = says({"name": "NOT_AUTHORIZED", "details": [{"issue": "PERMISSION_DENIED"}]}, 403)
    paypal, _ = paypal_over(refusal)
    with pytest.raises(GatewayRejected) as raised:
        await paypal.list_window(SINCE, UNTIL)
    assert raised.value.gateway_code == "transaction_search_not_enabled"


# --- generic ---------------------------------------------------------------------------------------------------------


def a_session(status: str = "completed", **changes: Any) -> dict[str, Any]:
    session = {
        "payment_id": "gp_1",
        "reference": REFERENCE,
        "status": status,
        "amount": "19.99",
        "currency": "USD",
        "created_at": "2026-01-01T10:00:00Z",
        "metadata": {"payment_id": "pay_1"},
    }
    return session | changes


async def test_the_generic_gateway_lists_the_sessions_that_were_opened_in_the_window() -> None:
    generic, gateway = generic_over(says({"data": [a_session()], "next_cursor": "gp_1"}), says({"data": []}))
    page = await generic.list_window(SINCE, UNTIL)
    query = {"created_from": "2026-01-01T00:00:00.500000Z", "created_before": "2026-01-02T00:00:00.500000Z"}
    assert asked(gateway) == ("/v1/sessions", query)
    entry = the_entry(page)
    assert (entry.references, entry.our_references) == (("gp_1",), (REFERENCE, "pay_1"))
    assert (told(entry.observations), entry.created_at) == ({("captured", "gp_1", USD_1999)}, MADE_AT)

    assert await generic.list_window(SINCE, UNTIL, cursor=page.next_cursor) == ListPage((), None)
    assert asked(gateway)[1]["cursor"] == "gp_1"


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "answer", "references"),
    [
        (stripe_over, intents(an_intent(currency="xxx", metadata={"order_ref": "x" * 500})), ("pi_1", "ch_1")),
        (razorpay_over, orders(an_order(a_payment(currency="IQD"), receipt=7)), ("order_1", "pay_1")),
        (paypal_over, rows(a_row(custom_field=7, transaction_amount={"currency_code": "???"})), ("CAP1",)),
        (generic_over, says({"data": [a_session(currency="???", reference=7, created_at="soon")]}), ("gp_1",)),
    ],
)
async def test_somebody_elses_payment_hides_only_itself(
    over: Over, answer: Answer, references: tuple[str, ...]
) -> None:
    adapter, _ = over(answer)
    entry = the_entry(await adapter.list_window(SINCE, UNTIL))
    assert (entry.references, entry.our_references, entry.observations) == (references, (), ())


@pytest.mark.parametrize("over", [stripe_over, razorpay_over, paypal_over, generic_over])
@pytest.mark.parametrize("answer", [says({}), says([]), says({"data": 1, "items": 1, "transaction_details": 1})])
async def test_nonsense_is_no_empty_list(over: Over, answer: Answer) -> None:
    adapter, _ = over(answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await adapter.list_window(SINCE, UNTIL)


@pytest.mark.parametrize("over", [stripe_over, razorpay_over, generic_over])
async def test_a_refused_key_is_no_empty_list(over: Over) -> None:
    adapter, _ = over(says({"error": {}}, 401))
    with pytest.raises(GatewayUnavailable):
        await adapter.list_window(SINCE, UNTIL)


@pytest.mark.parametrize(
    ("over", "cursor"),
    [
        *((razorpay_over, cursor) for cursor in ("", "x", "-1", "1_0", "٣", "1.5", "9" * 20)),
        *((paypal_over, cursor) for cursor in ("", "x", "1", "1:2:3", "1:1", f"{SECONDS}:0", f"{SECONDS}:x")),
        *((paypal_over, f"{seconds}:1") for seconds in (-1, "9" * 15, "٣")),
    ],
)
async def test_a_cursor_that_no_page_gave_is_our_mistake(over: Over, cursor: str) -> None:
    adapter, gateway = over()
    with pytest.raises(GatewayRejected) as caught:
        await adapter.list_window(SINCE, UNTIL, cursor=cursor)
    assert (caught.value.gateway_code, gateway.requests) == ("bad_cursor", [])
