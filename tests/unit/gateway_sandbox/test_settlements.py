"""The settlement files of the sandbox's gateways, whole: columns, signs, units and dates as their fact sheets have
them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode, EntryStatus
from services.gateway_sandbox.gateways.bookkeeping import paid_out as with_payouts
from services.gateway_sandbox.gateways.bookkeeping import payouts_of
from services.gateway_sandbox.gateways.generic.gateway import GenericSandbox
from services.gateway_sandbox.gateways.generic.settlement import settlement_file as generic_settlement
from services.gateway_sandbox.gateways.paypal.gateway import PayPalSandbox
from services.gateway_sandbox.gateways.paypal.settlement import settlement_file as paypal_settlement
from services.gateway_sandbox.gateways.port import PayoutTerms, SettlementFile, SettlementKind, SettlementLine
from services.gateway_sandbox.gateways.razorpay.gateway import RazorpaySandbox
from services.gateway_sandbox.gateways.razorpay.settlement import settlement_file as razorpay_settlement
from services.gateway_sandbox.gateways.stripe.gateway import StripeSandbox
from services.gateway_sandbox.gateways.stripe.settlement import settlement_file as stripe_settlement

DAY = date(2026, 1, 1)
PAID_AT = datetime(2026, 1, 1, 8, 0, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 17, 0, 0, tzinfo=UTC)
REFERENCE, REFUND_REFERENCE = "PR00000000000000001A", "OP00000000000000001A"


def an_entry(gateway: str, session: str, payment: str, amount_minor: int, currency: str, **details: Any) -> BookEntry:
    return BookEntry(
        gateway=gateway,
        gateway_reference=session,
        reference=REFERENCE,
        order_id="ord_1",
        amount_minor=amount_minor,
        currency=currency,
        capture=CaptureMode.AUTOMATIC,
        success_url="http://shop.example/return",
        cancel_url=None,
        page_token="token",
        created_at=PAID_AT,
        expires_at=LATER,
        status=EntryStatus.COMPLETED,
        payment_reference=payment,
        payment_created_at=PAID_AT,
        captured_minor=amount_minor,
        metadata={"payment_id": "pmt_1"},
        details=details,
    )


def lines_of(entry: BookEntry, capture: str, refund: str, dispute: str) -> list[SettlementLine]:
    """A payment with a fee of 0.75 and 0.13 of tax on it, a refund of 5.00, and a dispute that cost 15.00 more."""

    def line(kind: SettlementKind, object_id: str, reference: str | None, *amounts: int) -> SettlementLine:
        amount_minor, fee_minor, tax_minor = amounts
        at, parent = (PAID_AT, None) if kind == "capture" else (LATER, capture)
        return SettlementLine(kind, entry, object_id, reference, amount_minor, fee_minor, tax_minor, at, parent)

    return [
        line("capture", capture, REFERENCE, entry.amount_minor, 75, 13),
        line("refund", refund, REFUND_REFERENCE, 500, 0, 0),
        line("dispute", dispute, None, 1499, 1500, 0),
    ]


def paid_out(lines: Sequence[SettlementLine], terms: PayoutTerms) -> list[SettlementLine]:
    return with_payouts(lines, payouts_of(lines, terms, DAY))


def stripe_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    return stripe_settlement(paid_out(lines, StripeSandbox.payouts), day)


def paypal_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    return paypal_settlement(paid_out(lines, PayPalSandbox.payouts), day)


def razorpay_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    return razorpay_settlement(paid_out(lines, RazorpaySandbox.payouts), day)


def generic_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    return generic_settlement(paid_out(lines, GenericSandbox.payouts), day)


def test_stripes_payout_reconciliation() -> None:
    details = {"charges": [{"id": "ch_T1"}], "intent": {"metadata": {"order_ref": REFERENCE}}}
    entry = an_entry("stripe", "cs_T1", "pi_T1", 1999, "USD", **details)
    file = stripe_file(lines_of(entry, "pi_T1", "re_T1", "du_T1"), DAY)
    assert (file.name, file.content_type) == ("payout_reconciliation.itemized.5-2026-01-01.csv", "text/csv")
    assert file.body.decode().splitlines() == [
        (
            "automatic_payout_id,automatic_payout_effective_at_utc,balance_transaction_id,created_utc,currency,gross,fee,"
            "net,reporting_category,source_id,charge_id,payment_intent_id,payment_metadata[order_ref],"
            "refund_metadata[refund_ref]"
        ),
        (
            "po_20260101USD,2026-01-02 00:00:00,txn_T1,2026-01-01 08:00:01,usd,19.99,0.88,19.11,charge,"
            f"ch_T1,ch_T1,pi_T1,{REFERENCE},"
        ),
        (
            "po_20260101USD,2026-01-02 00:00:00,txn_T1,2026-01-01 17:00:00,usd,-5.00,0.00,-5.00,refund,"
            f"re_T1,ch_T1,pi_T1,{REFERENCE},{REFUND_REFERENCE}"
        ),
        (
            "po_20260101USD,2026-01-02 00:00:00,txn_T1,2026-01-01 17:00:00,usd,-14.99,15.00,-29.99,dispute,du_T1,ch_T1,"
            f"pi_T1,{REFERENCE},"
        ),
    ]


def test_stripes_amounts_have_the_currencys_digits_and_each_currency_its_payout() -> None:
    payments = [an_entry("stripe", "cs_1", "pi_1", 1999, currency) for currency in ("JPY", "KWD")]
    body = stripe_file([lines_of(entry, "pi_1", "re_1", "du_1")[0] for entry in payments], DAY).body.decode()
    yen, dinar = (row.split(",") for row in body.splitlines()[1:])
    assert (yen[0], yen[5:8]) == ("po_20260101JPY", ["1999", "88", "1911"])
    assert (dinar[0], dinar[5:8]) == ("po_20260101KWD", ["1.999", "0.088", "1.911"])


def test_paypals_settlement_report() -> None:
    entry = an_entry("paypal", "ORDER1", "CAP1", 1999, "USD", custom_id=REFERENCE, invoice_id="INV-1")
    file = paypal_file(lines_of(entry, "CAP1", "REF1", "PP-D-1"), DAY)
    assert (file.name, file.content_type) == ("STL-20260101.01.009.CSV", "text/csv")
    paid, later, rest = (
        "2026/01/01 00:00:01 -0800",
        "2026/01/01 09:00:00 -0800",
        ',""' * 3 + ',"PPOUT20260101USD"' + ',""' * 3,
    )
    assert file.body.decode().splitlines() == [
        '"RH","2026/01/02 05:00:00 -0800","A","SANDBOXMERCHANT","009"',
        '"FH",01',
        '"SH","2026/01/01 00:00:00 -0800","2026/01/01 23:59:59 -0800","SANDBOXMERCHANT",""',
        (
            '"CH","Transaction ID","Invoice ID","PayPal Reference ID","PayPal Reference ID Type",'
            '"Transaction Event Code","Transaction Initiation Date","Transaction Completion Date",'
            '"Transaction Debit or Credit","Gross Transaction Amount","Gross Transaction Currency",'
            '"Fee Debit or Credit","Fee Amount","Fee Currency","Custom Field","Consumer ID","Payment Tracking ID",'
            '"Store ID","Bank Reference ID","Credit Transactional Fee","Credit Promotional Fee","Credit Term"'
        ),
        f'"SB","CAP1","{REFERENCE}","","","T0006","{paid}","{paid}","CR",1999,"USD","DR",88,"USD","{REFERENCE}"{rest}',
        (
            f'"SB","REF1","{REFUND_REFERENCE}","CAP1","TXN","T1107","{later}","{later}","DR",500,"USD","",0,"USD",'
            f'"{REFUND_REFERENCE}"{rest}'
        ),
        (
            f'"SB","PP-D-1","INV-1","CAP1","TXN","T1201","{later}","{later}","DR",1499,"USD","DR",1500,"USD",'
            f'"{REFERENCE}"{rest}'
        ),
        '"SF","USD",1999,1999,0,1588',
        '"SC",3',
        '"RC",3',
        '"FC",3',
    ]


def test_paypal_writes_yen_times_a_hundred_too() -> None:
    entry = an_entry("paypal", "ORDER1", "CAP1", 100, "JPY", custom_id=REFERENCE)
    assert ',"CR",10000,"JPY","DR",8800,"JPY",' in paypal_file(lines_of(entry, "CAP1", "R", "D")[:1], DAY).body.decode()


def test_razorpays_reconciliation() -> None:
    entry = an_entry("razorpay", "plink_T1", "pay_T1", 50_000, "INR", order_id="order_T1")
    file = razorpay_file(lines_of(entry, "pay_T1", "rfnd_T1", "disp_T1"), DAY)
    assert (file.name, file.content_type) == ("settlement-recon-2026-01-01.json", "application/json")
    settled = {
        "currency": "INR",
        "on_hold": False,
        "settled": True,
        "settled_at": 1767292199,
        "settlement_id": "setl_20260101000001",
        "settlement_utr": "UTR202601010001",
    }
    order = {
        "order_id": "order_T1",
        "order_receipt": REFERENCE,
        "method": "card",
        "description": None,
        "notes": '{"payment_id":"pmt_1"}',
        "dispute_id": None,
    }
    paid = {"entity_id": "pay_T1", "type": "payment", "debit": 0, "credit": 49_912, "amount": 50_000}
    paid |= {"fee": 88, "tax": 13, "created_at": 1767254401, "payment_id": None}
    refunded = {"entity_id": "rfnd_T1", "type": "refund", "debit": 500, "credit": 0, "amount": 500}
    refunded |= {"fee": 0, "tax": 0, "created_at": 1767286800, "payment_id": "pay_T1"}
    disputed = {"entity_id": "adj_T1", "type": "adjustment", "debit": 2999, "credit": 0, "amount": 1499}
    disputed |= {"fee": 1500, "tax": 0, "created_at": 1767286800, "payment_id": "pay_T1", "dispute_id": "disp_T1"}
    items = [paid | settled | order, refunded | settled | order, disputed | settled]
    assert json.loads(file.body) == {"entity": "collection", "count": 3, "items": items}


def test_the_generic_gateways_settlement() -> None:
    entry = an_entry("generic", "gp_T1", "gp_T1", 12_500, "KWD")
    file = generic_file(lines_of(entry, "gc_T1", "gr_T1", "gd_T1"), DAY)
    assert (file.name, file.content_type) == ("settlement-2026-01-01.csv", "text/csv")
    later = "2026-01-01T17:00:00Z"
    assert file.body.decode().splitlines() == [
        "settlement_id,type,id,payment_id,reference,session_reference,order_id,created_at,currency,amount,fee,tax,net",
        (
            f"gs_20260101KWD,capture,gc_T1,gp_T1,{REFERENCE},{REFERENCE},ord_1,2026-01-01T08:00:01Z,KWD,"
            "12.500,0.075,0.013,12.412"
        ),
        f"gs_20260101KWD,refund,gr_T1,gp_T1,{REFUND_REFERENCE},{REFERENCE},ord_1,{later},KWD,-0.500,0.000,0.000,-0.500",
        f"gs_20260101KWD,dispute,gd_T1,gp_T1,,{REFERENCE},ord_1,{later},KWD,-1.499,1.500,0.000,-2.999",
    ]


def test_a_day_without_money_has_a_file_with_its_columns() -> None:
    assert len(stripe_file([], DAY).body.splitlines()) == len(generic_file([], DAY).body.splitlines()) == 1
    assert paypal_file([], DAY).body.endswith(b'"SC",0\n"RC",0\n"FC",0\n')
    assert json.loads(razorpay_file([], DAY).body)["items"] == []
