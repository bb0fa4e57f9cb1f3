"""The samples of the gateways' fact sheets, section 7, and what their documents say beyond the sandbox's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.settlement import LineKind, Parsed, SettlementLine
from tests.unit.reconciler.settlement_formats.parsing import (
    adds_up,
    bad_in,
    lines_in,
    only_line,
    parsed,
    payouts_in,
    totals_in,
)

K = LineKind


def short(line: SettlementLine) -> tuple[LineKind, int, int, int, int]:
    return line.kind, line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor


def ids(line: SettlementLine) -> tuple[str | None, ...]:
    return line.reference, line.parent_reference, line.our_reference, line.line_reference, line.payout_reference


# --- Stripe -----------------------------------------------------------------------------------------------------------

STRIPE = """\
automatic_payout_id,balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id,payment_intent_id,payment_metadata[order_ref]
po_T1,txn_T1,2026-01-01 00:00:03,usd,19.99,0.88,19.11,charge,ch_T1,pi_test_0001,ORD-1001
po_T1,txn_T2,2026-01-02 09:10:11,usd,-5.00,0.00,-5.00,refund,re_T1,pi_test_0001,ORD-1001
po_T1,txn_T3,2026-01-03 10:00:00,usd,-19.99,15.00,-34.99,dispute,dp_T1,pi_test_0002,ORD-1002
"""


def test_stripes_report() -> None:
    sale, refund, dispute = lines_in(parsed("stripe_payout_reconciliation", STRIPE))
    assert short(sale) == (K.SALE, 1999, 88, 0, 1911)
    assert short(refund) == (K.REFUND, -500, 0, 0, -500)
    assert short(dispute) == (K.CHARGEBACK, -1999, 1500, 0, -3499)
    assert ids(sale) == ("ch_T1", "pi_test_0001", "ORD-1001", "txn_T1", "po_T1")
    assert dispute.occurred_at == datetime(2026, 1, 3, 10, tzinfo=UTC)
    assert [line.line_number for line in (sale, refund, dispute)] == [2, 3, 4]


def a_transaction(**changes: Any) -> dict[str, Any]:
    usual = {"id": "txn_1", "object": "balance_transaction", "amount": 1999, "fee": 88, "net": 1911, "currency": "usd"}
    return {**usual, "created": 1767225603, "reporting_category": "charge", "source": "ch_1", **changes}


def stripe_list(*transactions: Mapping[str, Any]) -> list[Parsed]:
    return parsed("stripe_balance_transactions", json.dumps({"object": "list", "data": transactions}))


def test_stripes_balance_transactions() -> None:
    expanded = {
        "id": "re_1",
        "object": "refund",
        "payment_intent": "pi_1",
        "charge": "ch_1",
        "metadata": {"refund_ref": "OP1"},
    }
    found = stripe_list(
        a_transaction(),
        a_transaction(id="txn_2", amount=-500, fee=0, net=-500, reporting_category="refund", source=expanded),
        a_transaction(
            id="txn_3", amount=-1411, fee=0, net=-1411, reporting_category="payout", type="payout", source="po_1"
        ),
        a_transaction(id="txn_4", amount=100, fee=0, net=100, currency="isk"),
        a_transaction(id="txn_5", amount=5, fee=0, net=5, currency="mga"),
    )
    sale, refund, payout, krona, ariary = lines_in(found)
    assert ids(sale) == ("ch_1", None, None, "txn_1", None)
    assert ids(refund) == ("re_1", "pi_1", "OP1", "txn_2", None)
    assert (payout.kind, payout.reference, payout.payout_reference) == (K.PAYOUT, "po_1", None)
    (stated,) = payouts_in(found)
    assert (stated.payout_reference, stated.amount_minor) == ("po_1", 1411)
    assert (krona.gross_minor, ariary.gross_minor) == (1, 500)


def test_what_stripes_shopper_paid_in_another_currency() -> None:
    charge = {"id": "ch_1", "object": "charge", "amount": 5000, "amount_captured": 3000, "currency": "jpy"}
    refund = {"id": "re_1", "object": "refund", "amount": 150, "currency": "isk"}
    found = stripe_list(
        a_transaction(source=charge),
        a_transaction(id="txn_2", amount=-500, fee=0, net=-500, reporting_category="refund", source=refund),
        a_transaction(id="txn_3", source={**charge, "currency": "usd"}),
        a_transaction(id="txn_4", reporting_category="transfer", source=charge),
    )
    seen = [(line.presented_minor, line.presented_currency) for line in lines_in(found)]
    assert seen == [(3000, "JPY"), (None, None), (None, None)]
    assert [bad.code for bad in bad_in(found)] == ["amount_too_precise"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"net": 1912}, "sum_wrong"),
        ({"amount": 19.99}, "amount_unreadable"),
        ({"amount": True}, "amount_unreadable"),
        ({"amount": None}, "amount_unreadable"),
        ({"currency": "???"}, "currency_unknown"),
        ({"reporting_category": "gift"}, "kind_unknown"),
        ({"amount": -1, "fee": 0, "net": -1}, "sign_wrong"),
        ({"created": "2026"}, "date_unreadable"),
        ({"id": None}, "field_missing"),
        ({"id": ["txn"]}, "field_unreadable"),
        ({"amount": 150, "fee": 0, "net": 150, "currency": "isk"}, "amount_too_precise"),
        ({"object": "charge"}, "item_unreadable"),
    ],
)
def test_a_transaction_that_makes_no_sense_is_reported(changes: Mapping[str, Any], code: str) -> None:
    found = stripe_list(a_transaction(), a_transaction(**changes))
    assert [bad.code for bad in bad_in(found)] == [code]
    assert len(lines_in(found)) == 1


# --- Razorpay ---------------------------------------------------------------------------------------------------------

PAYMENT = {
    "entity_id": "pay_TEST0000000001", "type": "payment", "debit": 0, "credit": 48820, "amount": 50000,
    "currency": "INR", "fee": 1180, "tax": 180, "on_hold": False, "settled": True, "created_at": 1767225600,
    "settled_at": 1767571200,
    "settlement_id": "setl_TEST0000000001", "settlement_utr": "UTR0001", "payment_id": None,
    "order_id": "order_TEST0000000001", "order_receipt": "ORD-1001", "method": "upi", "dispute_id": None,
}  # fmt: skip
REFUND = {
    "entity_id": "rfnd_TEST0000000001", "type": "refund", "debit": 10000, "credit": 0, "amount": 10000,
    "currency": "INR", "fee": 0, "tax": 0, "settled": True, "settled_at": 1767571200,
    "settlement_id": "setl_TEST0000000001",
    "payment_id": "pay_TEST0000000001",
}  # fmt: skip


def recon(*items: Mapping[str, Any]) -> list[Parsed]:
    return parsed("razorpay_recon", json.dumps({"entity": "collection", "count": len(items), "items": items}))


def test_razorpays_reconciliation_does_not_count_tax_twice() -> None:
    sale, refund = lines_in(recon(PAYMENT, REFUND))
    assert short(sale) == (K.SALE, 50000, 1000, 180, 48820)
    assert short(refund) == (K.REFUND, -10000, 0, 0, -10000)
    assert sale.net_minor + refund.net_minor == 38820
    assert ids(sale)[:3] == ("pay_TEST0000000001", "order_TEST0000000001", "ORD-1001")
    assert ids(refund)[:3] == ("rfnd_TEST0000000001", "pay_TEST0000000001", None)


def test_razorpays_adjustments() -> None:
    adjustment = {**REFUND, "entity_id": "adj_1", "type": "adjustment"}
    lost = {**adjustment, "dispute_id": "disp_1"}
    won = {**lost, "debit": 0, "credit": 10000}
    found = lines_in(recon(adjustment, lost, won))
    assert [line.kind for line in found] == [K.ADJUSTMENT, K.CHARGEBACK, K.CHARGEBACK_REVERSAL]
    assert [line.reference for line in found] == ["adj_1", "disp_1", "disp_1"]
    assert [line.net_minor for line in found] == [-10000, -10000, 10000]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"credit": 48821}, "sum_wrong"),
        ({"tax": 1181}, "sum_wrong"),
        ({"settled": None}, "not_settled"),
        ({"amount": "500.00"}, "amount_unreadable"),
        ({"type": "reward"}, "kind_unknown"),
    ],
)
def test_a_razorpay_row_that_makes_no_sense_is_reported(changes: Mapping[str, Any], code: str) -> None:
    found = recon({**PAYMENT, **changes}, REFUND)
    assert [bad.code for bad in bad_in(found)] == [code]
    assert len(lines_in(found)) == 1


def test_what_razorpay_has_not_paid_out_yet_is_no_line_and_no_fault() -> None:
    """RC3: a row that says that nothing moved is understood."""
    assert recon({**PAYMENT, "settled": False}) == []


def test_razorpays_settlements() -> None:
    settlement = {"id": "setl_1", "entity": "settlement", "amount": 38820, "status": "processed", "fees": 0, "tax": 0,
                  "utr": "UTR1", "created_at": 1767571200}  # fmt: skip
    others = [{**settlement, "status": status} for status in ("created", "failed", "reversed")]
    body = json.dumps({"entity": "collection", "count": 4, "items": [settlement, *others]})
    found = parsed("razorpay_settlements", body)
    (stated,) = payouts_in(found)
    assert stated[1:4] == ("setl_1", "INR", 38820)
    assert stated.bank_reference == "UTR1"
    assert [(bad.line_number, bad.code) for bad in bad_in(found)] == [(4, "kind_unknown")]


RAZORPAY_REPORT = """\
Entity ID,Type,Debit,Credit,Amount,Currency,Fees,Tax,On Hold,Settled,Created At,Settlement ID
pay_TEST0000000001,payment,0.00,488.20,500.00,INR,11.80,1.80,0,1,01/01/2026 05:30:00,setl_TEST0000000001
"""


def test_razorpays_report_is_the_same_line_as_the_api_gives() -> None:
    line = only_line(parsed("razorpay_report", RAZORPAY_REPORT))
    assert short(line) == (K.SALE, 50000, 1000, 180, 48820)
    assert line.occurred_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert ids(line) == ("pay_TEST0000000001", None, None, "pay_TEST0000000001", "setl_TEST0000000001")
    assert parsed("razorpay_report", RAZORPAY_REPORT.replace(",0,1,", ",0,0,")) == []
    paise = RAZORPAY_REPORT.replace("0.00,488.20,500.00,INR,11.80,1.80", "0,48820,50000,INR,1180,180")
    assert [bad.code for bad in bad_in(parsed("razorpay_report", paise))] == ["amount_unit_unknown"]
    assert short(only_line(parsed("razorpay_report", paise, header_map={"amounts_in": "minor"}))) == short(line)


# --- PayU -------------------------------------------------------------------------------------------------------------


def payu_row(**changes: str) -> dict[str, str]:
    usual = {
        "payuid": "403993715500000001", "txnid": "ord_0001", "requestaction": "capture", "amount": "499.00",
        "requestamount": "499.00", "mer_service_fee": "9.9800", "mer_service_tax": "1.7964",
        "mer_net_amount": "487.2236", "mer_utr": "UTR0000000001", "requestid": "", "token": "",
    }  # fmt: skip
    return {**usual, **changes}


def payu(*rows: Mapping[str, str]) -> list[Parsed]:
    numbered = {str(number): row for number, row in enumerate(rows, start=1)}
    return parsed("payu_settlement", json.dumps({"status": 1, "msg": "", "Txn_details": numbered}))


PAYU_REFUND = payu_row(
    requestaction="refund", requestamount="100.00", mer_service_fee="0.0000", mer_service_tax="0.0000",
    mer_net_amount="-100.0000", mer_utr="UTR0000000002", requestid="128", token="OP1",
)  # fmt: skip


def test_payus_settlement() -> None:
    sale, refund = lines_in(payu(payu_row(), PAYU_REFUND))
    assert short(sale) == (K.SALE, 49900, 998, 180, 48722)
    assert short(refund) == (K.REFUND, -10000, 0, 0, -10000)
    assert ids(sale) == ("403993715500000001", "ord_0001", "ord_0001", None, "UTR0000000001")
    assert ids(refund) == ("128", "403993715500000001", "OP1", None, "UTR0000000002")
    assert parsed("payu_settlement", '{"status": 1, "Txn_details": {}}') == []
    assert parsed("payu_settlement", '{"status": 1, "Txn_details": []}') == []


def test_a_sign_that_nobody_documents_is_the_actions() -> None:
    unsigned = {**PAYU_REFUND, "mer_net_amount": "100.0000"}
    assert short(only_line(payu(unsigned))) == short(only_line(payu(PAYU_REFUND)))


def test_rounding_is_a_line_of_its_own_and_ties_the_lines_to_the_payout() -> None:
    """Failure RC5: three nets of 487.2236 are 1461.67, and three lines of 487.22 are a paisa less."""
    found = lines_in(payu(*[payu_row()] * 3))
    *sales, rounding = found
    assert [line.net_minor for line in sales] == [48722] * 3
    assert (rounding.kind, rounding.source_type, rounding.net_minor) == (K.ADJUSTMENT, "rounding", 1)
    assert (rounding.payout_reference, rounding.line_number, rounding.part) == ("UTR0000000001", 3, 1)
    assert rounding.line_reference == "rounding:UTR0000000001"


def test_a_rounding_that_has_become_nothing_is_there_to_replace_the_one_before() -> None:
    *_, rounding = lines_in(payu(*[payu_row()] * 25))
    assert (rounding.source_type, rounding.net_minor) == ("rounding", 9)
    nothing = {"mer_service_fee": "0", "mer_service_tax": "0"}
    rows = [payu_row(requestamount=rupees, mer_net_amount=rupees, **nothing) for rupees in ("1.0036", "1.0064")]
    *_, rounding = lines_in(payu(*rows))
    assert (rounding.source_type, rounding.net_minor) == ("rounding", 0)


@pytest.mark.parametrize(("net", "codes"), [("0.0000", []), ("1.0000", ["kind_unknown"])])
def test_a_void_moves_nothing(net: str, codes: list[str]) -> None:
    nothing = {"mer_service_fee": "0.0000", "mer_service_tax": "0.0000", "mer_net_amount": net, "mer_utr": ""}
    found = payu(payu_row(requestaction="cancel", **nothing))
    assert [bad.code for bad in bad_in(found)] == codes
    assert lines_in(found) == []


@pytest.mark.parametrize(("rupees", "paise"), [("0.0050", 0), ("0.0051", 1), ("0.0150", 2), ("0.0250", 2)])
def test_half_a_paisa_is_rounded_to_even(rupees: str, paise: int) -> None:
    nothing = {"mer_service_fee": "0", "mer_service_tax": "0"}
    for action, sign in (("capture", 1), ("refund", -1)):
        found = lines_in(payu(payu_row(requestaction=action, requestamount=rupees, mer_net_amount=rupees, **nothing)))
        assert [line.net_minor for line in found] == [sign * paise]


FOUR_DIGITS = st.integers(0, 9_999_999).map(lambda number: Decimal(number).scaleb(-4))


@given(st.lists(st.tuples(FOUR_DIGITS, FOUR_DIGITS, FOUR_DIGITS, st.sampled_from("AB"), st.booleans()), max_size=20))
def test_lines_of_a_payout_come_to_its_exact_total_rounded_once(
    rows: list[tuple[Decimal, Decimal, Decimal, str, bool]],
) -> None:
    """Failure RC5, in any mixture."""
    exact: dict[str | None, Decimal] = {}
    written = []
    for gross, fee, tax, utr, is_sale in rows:
        net = (gross if is_sale else -gross) - fee - tax
        exact[utr] = exact.get(utr, Decimal(0)) + net
        written.append(
            payu_row(
                requestaction="capture" if is_sale else "refund",
                requestamount=f"{gross:f}",
                mer_service_fee=f"{fee:f}",
                mer_service_tax=f"{tax:f}",
                mer_net_amount=f"{net:f}",
                mer_utr=utr,
            )
        )
    found = lines_in(payu(*written))
    assert all(map(adds_up, found))
    sums: dict[str | None, int] = dict.fromkeys(exact, 0)
    for line in found:
        sums[line.payout_reference] += line.net_minor
    assert sums == {utr: int((total * 100).to_integral_value()) for utr, total in exact.items()}


# --- CCAvenue, MyFatoorah, and the tables that are ours ---------------------------------------------------------------

CC_ROW = {
    "ccavenue_ref_no": "313000000001", "order_no": "ord_0001", "txn_type": "Shipped", "amount": "499.00",
    "fees": "9.98", "tax": "1.80", "amt_payable": "487.22", "currency": "INR", "date_time": "2025-01-01 12:00:00",
}  # fmt: skip
CC_PAYOUT = {
    "pay_Id": "7001", "pay_amount": "387.22", "settlement_date": "02-01-2025", "settlement_currency": "INR",
    "utr_no": "UTR0000000001",
}  # fmt: skip


@pytest.mark.parametrize("spelling", ["payout", "pauyout"])
@pytest.mark.parametrize("single", [True, False])
def test_ccavenues_payouts_and_rows_in_either_spelling_and_without_their_list(spelling: str, single: bool) -> None:
    refund = {
        **CC_ROW,
        "txn_type": "Refunded",
        "amount": "100.00",
        "fees": "0.00",
        "tax": "0.00",
        "amt_payable": "-100.00",
    }
    payouts: Any = CC_PAYOUT if single else [CC_PAYOUT]
    summary = {"Payout_Summary_Result": {f"{spelling}_summary_list": {f"{spelling}_summary_details": payouts}}}
    pages = [
        {"pay_id_details_Result": {"pay_id_txn_details_list": {"pay_id_txn_details": rows}, "total_records": 2}}
        for rows in ((CC_ROW, refund) if single else ([CC_ROW, refund],))
    ]
    document = {"payoutSummary": summary, "payIdDetails": {"7001": pages}}
    found = parsed("ccavenue_settlement", json.dumps(document))
    sale, back = lines_in(found)
    assert short(sale) == (K.SALE, 49900, 998, 180, 48722)
    assert short(back) == (K.REFUND, -10000, 0, 0, -10000)
    assert ids(sale) == ("313000000001", "ord_0001", "ord_0001", None, "7001")
    assert ids(back) == (None, "313000000001", "ord_0001", None, "7001")
    (stated,) = payouts_in(found)
    assert (stated.amount_minor, stated.bank_reference) == (sale.net_minor + back.net_minor, "UTR0000000001")
    assert [(total.stated, total.counted) for total in totals_in(found)] == [(2, 2)]


def test_ccavenue_tells_of_rows_that_are_missing() -> None:
    page = {"pay_id_details_Result": {"pay_id_txn_details_list": {"pay_id_txn_details": [CC_ROW]}, "total_records": 2}}
    (total,) = totals_in(parsed("ccavenue_settlement", json.dumps({"payIdDetails": {"7001": page}})))
    assert (total.stated, total.counted) == (2, 1)


INVOICE = json.loads("""
{"InvoiceId": 701234, "PaymentGateway": "KNET", "PaymentId": "0100701234000000001", "InvoiceReference": "2026000123",
 "CustomerReference": "ord_1001", "CreatedDate": "2026-03-01T12:00:00.000", "InvoiceValue": "12.345",
 "PaidCurrencyValue": "12.345", "PaidCurrency": "KD", "InvoiceDisplayValue": "12.345", "DueValue": "12.345",
 "PaidDate": "2026-03-01T12:01:00.000", "TotalServiceCharge": "0.150", "DueDeposit": "12.195",
 "DepositReference": "2026000077", "DepositDate": "2026-03-05T08:00:00.000"}""")


def deposit(*changes: Mapping[str, Any], currency: str | None = None) -> list[Parsed]:
    data = [{**INVOICE, **each} for each in changes]
    return parsed("myfatoorah_deposit", json.dumps({"IsSuccess": True, "Data": data}), currency=currency)


def test_myfatoorahs_deposit() -> None:
    line = only_line(deposit({}))
    assert (line.currency, *short(line)) == ("KWD", K.SALE, 12345, 150, 0, 12195)
    assert ids(line) == ("0100701234000000001", "701234", "ord_1001", None, "2026000077")
    assert line.occurred_at == datetime(2026, 3, 1, 9, 1, tzinfo=UTC)
    grouped = {"DueValue": "1,250.500", "PaidCurrencyValue": "1250.5", "DueDeposit": "1,250.350"}
    assert only_line(deposit(grouped)).gross_minor == 1250500


def test_myfatoorahs_foreign_payments_need_the_accounts_currency() -> None:
    foreign = {"PaidCurrency": "SR", "PaidCurrencyValue": "151.50"}
    assert [bad.code for bad in bad_in(deposit(foreign))] == ["currency_unknown"]
    line = only_line(deposit(foreign, currency="KWD"))
    assert (line.currency, line.gross_minor, line.presented_currency, line.presented_minor) == (
        "KWD",
        12345,
        "SAR",
        15150,
    )
    assert [bad.code for bad in bad_in(deposit({"PaidCurrency": "Taler"}))] == ["currency_unknown"]


TABBY = """\
statement_date,payment_id,order_reference,type,gross,fee,fee_vat,net,currency
2026-03-08,5f1c2b7e-3d44-4c58-9a0e-8b1f6a2d9c31,ord_1001,capture,140.00,8.40,0.42,131.18,AED
2026-03-08,5f1c2b7e-3d44-4c58-9a0e-8b1f6a2d9c31,ord_1001,refund,-40.00,0.00,0.00,-40.00,AED
"""
TAMARA = """\
statement_date,statement_reference,order_id,order_reference_id,type,gross,fee,fee_vat,net,currency
2026-03-08,ST-77,7d0b4a63-2f5e-4d0a-9b5d-0f6f7f1f2a11,ord_1001,capture,300.00,18.00,2.70,279.30,SAR
2026-03-08,ST-77,7d0b4a63-2f5e-4d0a-9b5d-0f6f7f1f2a11,ord_1001,refund,-40.00,0.00,0.00,-40.00,SAR
"""


@pytest.mark.parametrize(
    ("name", "text", "sale", "payout"),
    [
        ("tabby_statement", TABBY, (K.SALE, 14000, 840, 42, 13118), None),
        ("tamara_statement", TAMARA, (K.SALE, 30000, 1800, 270, 27930), "ST-77"),
    ],
)
def test_statements_of_buy_now_pay_later(name: str, text: str, sale: object, payout: str | None) -> None:
    captured, refund = lines_in(parsed(name, text))
    assert short(captured) == sale
    assert short(refund) == (K.REFUND, -4000, 0, 0, -4000)
    assert captured.payout_reference == payout
    assert captured.our_reference == refund.our_reference == "ord_1001"
    assert captured.reference == refund.parent_reference
    assert refund.reference is None


@pytest.mark.parametrize(("name", "text"), [("tabby_statement", TABBY), ("tamara_statement", TAMARA)])
@pytest.mark.parametrize(("gross", "net", "codes"), [("5.00", "5.00", ["sign_unknown"]), ("-5.00", "-5.00", [])])
def test_a_fee_without_a_sign_is_not_guessed_at(name: str, text: str, gross: str, net: str, codes: list[str]) -> None:
    """RC3: taken for what it says, a cost would be booked as an income."""
    row = text.splitlines()[2].replace("refund", "fee").replace("0.00,0.00,-40.00", f"0.00,0.00,{net}")
    found = parsed(name, text + row.replace("-40.00", gross) + "\n")
    assert [bad.code for bad in bad_in(found)] == codes
    assert [line.net_minor for line in lines_in(found) if line.kind is K.FEE] == [-500] * (not codes)


def test_the_payout_statement() -> None:
    text = (
        "payout_reference,paid_at,amount,currency,bank_reference\n"
        "po_1,2026-01-02T00:00:00Z,1234.50,USD,UTR1\npo_1,2026-01-02T00:00:00Z,-0.50,USD,\n"
        "po_2,2026-01-02,1.5,JPY,\n,2026-01-02,1,JPY,\npo_3,,1,JPY,\npo_4,2026-01-02,1\n"
    )
    found = parsed("payout_statement", text)
    assert [(each.amount_minor, each.bank_reference) for each in payouts_in(found)] == [(123450, "UTR1"), (-50, None)]
    codes = ["amount_too_precise", "field_missing", "date_unreadable", "columns_missing"]
    assert [(bad.line_number, bad.code) for bad in bad_in(found)] == list(enumerate(codes, start=4))
