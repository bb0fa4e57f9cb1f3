"""Gateways' own reports of a day: what is asked, that nothing of many pages is lost, and what is left out of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from services.payment_service.gateways import reports
from services.payment_service.gateways.port import SettlementReport
from services.payment_service.gateways.refusing import WithoutSettlementReports
from services.payment_service.gateways.reports import ReportTooLarge, Room, Rows, exact_json
from shared.errors import GatewayOutcomeUnknown, GatewayRejected
from tests.unit.payment_service.gateway_world import ScriptedGateway, says
from tests.unit.payment_service.payu_world import payu
from tests.unit.payment_service.test_ccavenue_adapter import API_CIPHER
from tests.unit.payment_service.test_ccavenue_adapter import adapter_over as ccavenue_over
from tests.unit.payment_service.test_ccavenue_adapter import says as ccavenue_says
from tests.unit.payment_service.test_listing import asked, paypal_over, razorpay_over, stripe_over

DAY = date(2026, 1, 5)
FIRST, AFTER = 1_767_571_200, 1_767_657_600


def content_of(found: tuple[SettlementReport, ...], *formats: str) -> list[Any]:
    assert tuple(report.format for report in found) == formats
    assert all(str(DAY) in report.name and report.content_type == "application/json" for report in found)
    return [json.loads(report.content, parse_float=Decimal) for report in found]


# --- Stripe ----------------------------------------------------------------------------------------------------------


def a_row(identifier: str, source: Any = None, **changes: Any) -> dict[str, Any]:
    row = {"id": identifier, "object": "balance_transaction", "amount": 1999, "fee": 88, "net": 1911, "source": source}
    return row | {"currency": "usd", "created": FIRST, "type": "charge", "reporting_category": "charge"} | changes


def a_page(*data: dict[str, Any], has_more: Any = False) -> httpx.Response:
    return says({"object": "list", "data": list(data), "has_more": has_more})


async def test_stripes_pages_become_one_list_without_the_shoppers() -> None:
    charge = {
        "id": "ch_1",
        "object": "charge",
        "billing_details": {"email": "ada@example.com", "name": "Ada"},
        "payment_intent": {"id": "pi_1", "object": "payment_intent", "receipt_email": "ada@example.com"},
        "metadata": {"order_ref": "PR1"},
        "amount": 1800,
        "currency": "eur",
    }
    payout = a_row("txn_3", {"id": "po_1", "object": "payout", "destination": "ba_1"}, type="payout", amount=-1911)
    stripe, gateway = stripe_over(a_page(a_row("txn_1", charge), a_row("txn_2", "re_1"), has_more=True), a_page(payout))
    [document] = content_of(await stripe.settlement_report(DAY), "stripe_balance_transactions")
    source = {
        "id": "ch_1",
        "object": "charge",
        "payment_intent": "pi_1",
        "metadata": {"order_ref": "PR1"},
        "amount": 1800,
        "currency": "eur",
    }
    last = payout | {"source": {"id": "po_1", "object": "payout"}}
    assert document == {
        "object": "list",
        "url": "/v1/balance_transactions",
        "has_more": False,
        "data": [a_row("txn_1", source), a_row("txn_2", "re_1"), last],
    }
    window = {"created[gte]": str(FIRST), "created[lt]": str(AFTER), "limit": "100", "expand[]": "data.source"}
    assert asked(gateway) == ("/v1/balance_transactions", window | {"starting_after": "txn_2"})


@pytest.mark.parametrize(
    "answer", [says({"data": []}), a_page(has_more="no"), a_page(has_more=True), a_page({"id": 1}, has_more=True)]
)
async def test_a_list_of_stripes_that_is_not_understood_is_no_report(answer: httpx.Response) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe_over(answer)[0].settlement_report(DAY)


# --- Razorpay --------------------------------------------------------------------------------------------------------


def a_collection(*items: dict[str, Any]) -> httpx.Response:
    return says({"entity": "collection", "count": len(items), "items": list(items)})


async def test_razorpays_reconciliation_and_its_settlements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.payment_service.gateways.razorpay.report._RECON_PAGE", 2)
    rows = [{"entity_id": f"pay_{number}", "type": "payment", "amount": 50_000, "tax": 180} for number in range(3)]
    settlement = {"id": "setl_1", "entity": "settlement", "amount": 38_820, "status": "processed", "utr": "UTR1"}
    razorpay, gateway = razorpay_over(a_collection(*rows[:2]), a_collection(rows[2]), a_collection(settlement))
    recon, settlements = content_of(await razorpay.settlement_report(DAY), "razorpay_recon", "razorpay_settlements")
    assert recon == {"entity": "collection", "count": 3, "items": rows}
    assert settlements == {"entity": "collection", "count": 1, "items": [settlement]}
    queries = [dict(request.url.params) for request in gateway.requests]
    on = {"year": "2026", "month": "1", "day": "5", "count": "2"}
    assert queries[:2] == [on | {"skip": "0"}, on | {"skip": "2"}]
    india = {"from": str(FIRST - 19_800), "to": str(AFTER - 19_801)}
    assert queries[2] == india | {"count": "100", "skip": "0"}
    assert [request.url.path for request in gateway.requests[1:]] == [
        "/v1/settlements/recon/combined",
        "/v1/settlements",
    ]


# --- PayPal ----------------------------------------------------------------------------------------------------------


def transactions(*rows: dict[str, Any], pages: Any = 1) -> httpx.Response:
    details = [{"transaction_info": row, "payer_info": {"email_address": "ada@example.com"}} for row in rows]
    return says({"transaction_details": details, "total_items": len(rows), "total_pages": pages})


def a_transaction(identifier: str, **changes: Any) -> dict[str, Any]:
    amounts = {"transaction_amount": {"currency_code": "USD", "value": "19.99"}}
    return {"transaction_id": identifier, "transaction_event_code": "T0006", **amounts, "invoice_id": "INV", **changes}


async def test_paypals_transactions_without_the_people() -> None:
    first = a_transaction("CAP1", transaction_note="for Ada", paypal_account_id="A1")
    paypal, gateway = paypal_over(transactions(first, pages=2), transactions(a_transaction("CAP2"), pages=2))
    [document] = content_of(await paypal.settlement_report(DAY), "paypal_transactions")
    assert [row["transaction_info"] for row in document["transaction_details"]] == [
        a_transaction("CAP1"),
        a_transaction("CAP2"),
    ]
    assert {key: value for key, value in document.items() if key != "transaction_details"} == {
        "start_date": "2026-01-05T00:00:00Z",
        "end_date": "2026-01-05T23:59:59Z",
        "page": 1,
        "total_items": 2,
        "total_pages": 1,
    }
    path, query = asked(gateway)
    assert (path, query["page"], query["fields"]) == ("/v1/reporting/transactions", "2", "transaction_info")


async def test_a_day_with_more_than_paypal_lists_at_once_is_asked_for_in_halves() -> None:
    too_large = says({"name": "RESULTSET_TOO_LARGE"}, status=400)
    paypal, gateway = paypal_over(too_large, transactions(a_transaction("CAP1")), transactions(a_transaction("CAP2")))
    [document] = content_of(await paypal.settlement_report(DAY), "paypal_transactions")
    assert document["total_items"] == 2
    windows = [(q["start_date"], q["end_date"]) for q in (dict(r.url.params) for r in gateway.requests[2:])]
    assert windows == [
        ("2026-01-05T00:00:00Z", "2026-01-05T11:59:59Z"),
        ("2026-01-05T12:00:00Z", "2026-01-05T23:59:59Z"),
    ]


async def test_an_app_that_may_not_search_has_no_report() -> None:
    with pytest.raises(GatewayRejected) as refused:
        await paypal_over(says({"name": "NOT_AUTHORIZED"}, status=403))[0].settlement_report(DAY)
    assert refused.value.gateway_code == "transaction_search_not_enabled"


@pytest.mark.parametrize("answer", [transactions(pages="1"), transactions(pages=2), says({"transaction_details": {}})])
async def test_a_list_of_paypals_that_is_not_understood_is_no_report(answer: httpx.Response) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await paypal_over(answer)[0].settlement_report(DAY)


# --- PayU ------------------------------------------------------------------------------------------------------------

PAYU_ROW = {"payuid": "403993715500000001", "requestaction": "capture", "mer_net_amount": "487.2236"}


async def test_payus_settlement_as_it_is() -> None:
    body = {"status": 1, "msg": "1 transactions settled", "Txn_details": {"1": PAYU_ROW | {"amount": 499.10}}}
    gateway = ScriptedGateway([says(body)])
    [report] = await payu(gateway).settlement_report(DAY)
    assert report.format == "payu_settlement"
    assert '"amount":499.1' in report.content
    assert content_of((report,), "payu_settlement")[0]["Txn_details"]["1"]["mer_net_amount"] == "487.2236"
    form = parse_qs(gateway.sent.content.decode())
    assert (form["command"], form["var1"]) == (["get_settlement_details"], ["2026-01-05"])


async def test_a_day_of_payus_may_be_larger_than_other_answers() -> None:
    rows = {str(number): PAYU_ROW | {"bank_name": "x" * 2_000} for number in range(1, 1_001)}
    [report] = await payu(ScriptedGateway([says({"status": 1, "Txn_details": rows})])).settlement_report(DAY)
    assert len(report.content) > 2_000_000


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 0, "msg": "Invalid date format", "error_code": 124}, GatewayRejected),
        ({"msg": "?"}, GatewayOutcomeUnknown),
        ({"status": 1, "Txn_details": "none"}, GatewayOutcomeUnknown),
    ],
)
async def test_a_no_of_payus_is_no_report(answer: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        await payu(ScriptedGateway([says(answer)])).settlement_report(DAY)


# --- CCAvenue --------------------------------------------------------------------------------------------------------


def summary(*rows: dict[str, Any], outer: str = "pauyout_summary_list", inner: str = "pauyout_summary_details") -> Any:
    listed: Any = list(rows) if len(rows) > 1 else rows[0]
    body = {outer: {inner: listed}, "error_desc": "", "error_code": ""}
    return ccavenue_says(body, wrapped="Payout_Summary_Result")


def details(*rows: dict[str, Any], pages: Any = 1, total: Any = None) -> httpx.Response:
    listed: Any = list(rows) if len(rows) > 1 else rows[0]
    body = {"pay_id_txn_details_list": {"pay_id_txn_details": listed}, "page_count": pages}
    return ccavenue_says(
        body | {"total_records": len(rows) if total is None else total}, wrapped="pay_id_details_Result"
    )


PAYOUT = {"pay_Id": "7001", "pay_amount": "387.22", "utr_no": "UTR0000000001"}
SALE = {"ccavenue_ref_no": "313000000001", "txn_type": "Shipped", "amount": "499.00", "bill_name": "Ada"}
REFUND = {"ccavenue_ref_no": "313000000001", "txn_type": "Refunded", "amount": "100.00", "bill_email": "a@example.com"}


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("pauyout_summary_list", "pauyout_summary_details"), ("payout_summary_list", "payout_summary_details")],
)
async def test_ccavenues_payouts_with_the_rows_of_all_their_pages(outer: str, inner: str) -> None:
    """A single row comes as an object; what is written has lists only."""
    ccavenue, gateway = ccavenue_over(
        summary(PAYOUT, outer=outer, inner=inner),
        details(SALE, pages=2, total=2),
        details(REFUND, pages="2", total="2"),
    )
    [document] = content_of(await ccavenue.settlement_report(DAY), "ccavenue_settlement")
    assert document["payoutSummary"] == {
        "Payout_Summary_Result": {"pauyout_summary_list": {"pauyout_summary_details": [PAYOUT]}}
    }
    sale, refund = ({k: v for k, v in row.items() if not k.startswith("bill_")} for row in (SALE, REFUND))
    assert document["payIdDetails"] == {
        "7001": {
            "pay_id_details_Result": {
                "pay_id_txn_details_list": {"pay_id_txn_details": [sale, refund]},
                "page_count": 1,
                "total_records": 2,
            }
        }
    }
    sent = [dict(parse_qs(request.content.decode())) for request in gateway.requests]
    assert [(each["command"], each["version"]) for each in sent] == [
        (["payoutSummary"], ["1.2"]),
        (["payIdDetails"], ["1.4"]),
        (["payIdDetails"], ["1.4"]),
    ]
    asked_for = [json.loads(API_CIPHER.decrypt(each["enc_request"][0])) for each in sent]
    assert asked_for[0] == {"settlement_date": "05-01-2026"}
    assert asked_for[2] == {"pay_id": "7001", "page_number": 2}


@pytest.mark.parametrize(
    "answers",
    [
        (ccavenue_says({"else": 1, "error_code": ""}),),
        (summary({"pay_amount": "1.00"}),),
        (summary(PAYOUT), details(SALE, total=2)),
        (summary(PAYOUT), details(SALE, pages="many")),
    ],
)
async def test_payouts_of_ccavenues_that_are_not_whole_are_no_report(answers: tuple[httpx.Response, ...]) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await ccavenue_over(*answers)[0].settlement_report(DAY)


# --- all -------------------------------------------------------------------------------------------------------------

NOTHING: dict[str, Callable[[], Awaitable[tuple[SettlementReport, ...]]]] = {
    "stripe": lambda: stripe_over(a_page())[0].settlement_report(DAY),
    "razorpay": lambda: razorpay_over(a_collection(), a_collection())[0].settlement_report(DAY),
    "paypal": lambda: paypal_over(transactions(pages=0))[0].settlement_report(DAY),
    "payu": lambda: payu(ScriptedGateway([says({"status": 1, "Txn_details": []})])).settlement_report(DAY),
    "ccavenue": lambda: ccavenue_over(
        ccavenue_says({"error_code": "51419", "error_desc": "No records found"}, wrapped="Payout_Summary_Result")
    )[0].settlement_report(DAY),
}


@pytest.mark.parametrize("gateway", NOTHING)
async def test_a_day_on_which_nothing_moved_has_no_report(gateway: str) -> None:
    assert await NOTHING[gateway]() == ()


async def test_what_is_larger_than_may_be_held_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is no failure of the gateway's: it has answered."""
    monkeypatch.setattr(reports, "MAX_REPORT_BYTES", 300)
    pages = [a_page(a_row(f"txn_{number}"), has_more=True) for number in range(3)]
    with pytest.raises(ReportTooLarge) as refused:
        await stripe_over(*pages)[0].settlement_report(DAY)
    assert (refused.value.code, refused.value.status) == ("report_too_large", 502)


async def test_who_has_no_report_says_so() -> None:
    with pytest.raises(GatewayRejected) as refused:
        await WithoutSettlementReports().settlement_report(DAY)
    assert refused.value.gateway_code == "settlement_report_not_offered"


def test_numbers_are_written_as_they_came() -> None:
    text = '{"a":0.10,"b":[1e2,-5],"c":"₹ \\" ","d":null,"e":true}'
    parsed = json.loads(text, parse_float=Decimal)
    assert exact_json(parsed) == '{"a":0.10,"b":[100,-5],"c":"₹ \\" ","d":null,"e":true}'


def test_a_text_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no text"):
        Rows(Room()).add([{"a": json.loads('"\\ud800"')}])
