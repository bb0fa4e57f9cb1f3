"""PayPal's row-typed reports: whole or not at all (failure RC2), signs and units as they stand in them (RC3)."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from services.reconciler.domain.settlement import LineKind, Parsed
from services.reconciler.settlement_formats import registry
from services.reconciler.settlement_formats.port import Incomplete, ReadingContext, Unreadable
from tests.unit.reconciler.settlement_formats.parsing import (
    bad_in,
    lines_in,
    only_line,
    parsed,
    payouts_in,
    table_head,
    totals_in,
)

K = LineKind
COLUMNS = (
    "Transaction ID,Invoice ID,PayPal Reference ID,PayPal Reference ID Type,Transaction Event Code,"
    "Transaction Initiation Date,Transaction Completion Date,Transaction Debit or Credit,Gross Transaction Amount,"
    "Gross Transaction Currency,Fee Debit or Credit,Fee Amount,Fee Currency,Custom Field"
).split(",")
HEAD = (
    """\
"RH","2026/01/02 05:00:00 -0800","A","MERCHANT00001","009"
"FH",01
"SH","2026/01/01 00:00:00 -0800","2026/01/01 23:59:59 -0800","MERCHANT00001",""
"CH","""
    + ",".join(f'"{name}"' for name in COLUMNS)
    + "\n"
)
SALE = (
    '"SB","CAPTEST0000000001","ORD-1001-1","","","T0006","2026/01/01 00:00:01 -0800","2026/01/01 00:00:01 -0800",'
    '"CR",1999,"USD","DR",107,"USD","ORD-1001"\n'
)
REFUND = (
    '"SB","REFTEST0000000001","ORD-1001-1","CAPTEST0000000001","TXN","T1107","2026/01/01 09:00:00 -0800",'
    '"2026/01/01 09:00:00 -0800","DR",500,"USD","",0,"USD","ORD-1001"\n'
)
SAMPLE = f'{HEAD}{SALE}{REFUND}"SC",2\n'
"""The fact sheet's, which leaves the footers out."""
END = '"RC",2\n"FC",2\n'


def stl(text: str) -> list[Parsed]:
    return parsed("paypal_settlement", text)


def with_rows(*rows: str) -> list[Parsed]:
    return stl(f'{HEAD}{"".join(rows)}"SC",{len(rows)}\n"RC",{len(rows)}\n"FC",{len(rows)}\n')


def test_the_settlement_report() -> None:
    sale, refund = lines_in(stl(SAMPLE + END))
    assert (sale.kind, sale.gross_minor, sale.fee_minor, sale.net_minor) == (K.SALE, 1999, 107, 1892)
    assert (refund.kind, refund.gross_minor, refund.net_minor) == (K.REFUND, -500, -500)
    assert (sale.reference, sale.our_reference, sale.source_type) == ("CAPTEST0000000001", "ORD-1001", "T0006")
    assert (refund.reference, refund.parent_reference) == ("REFTEST0000000001", "CAPTEST0000000001")
    assert sale.occurred_at == datetime(2026, 1, 1, 8, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + SALE + REFUND,
        SAMPLE,
        SAMPLE.replace(REFUND, "") + END,
        SAMPLE.replace('"SC",2', '"SC",3') + END,
        SAMPLE + '"RC",3\n"FC",2\n',
        SAMPLE + '"RC",2\n"FC",3\n',
        SAMPLE + '"RC",2\n"FC",\n',
        HEAD + SALE + HEAD.split("\n", 2)[2] + REFUND + '"SC",1\n' + END,
        "",
    ],
)
def test_a_part_that_is_missing_is_noticed_and_nothing_is_applied(text: str) -> None:
    with pytest.raises(Incomplete):
        stl(text)


def test_sections_are_counted_each_and_the_report_as_a_whole() -> None:
    section = "".join(HEAD.splitlines(keepends=True)[2:]) + SALE + '"SC",1\n'
    first, rest = HEAD.splitlines(keepends=True)[0:2], section + section
    assert len(lines_in(stl("".join(first) + rest + END))) == 2
    second_file = "".join(first).replace("01", "02", 1).replace('"FH",01', '"FH",02')
    assert len(lines_in(stl(second_file + rest + '"RC",900\n"FC",2\n'))) == 2


def test_totals_of_the_shape_that_is_known_are_compared() -> None:
    footer = '"SF","USD",1999,500,0,107\n'
    totals = totals_in(stl(SAMPLE.replace('"SC"', footer + '"SC"') + END))
    assert [(total.name, total.stated, total.counted) for total in totals] == [
        ("gross_credits", 1999, 1999),
        ("gross_debits", 500, 500),
        ("fee_credits", 0, 0),
        ("fee_debits", 107, 107),
    ]
    for other in ('"SF","USD","1999.00",500,0,107\n', '"SF","USD",1999,500\n', '"SF"\n', '"RF","USD",1,2,3,4\n'):
        assert not totals_in(stl(SAMPLE.replace('"SC"', other + '"SC"') + END))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"CR",1999', '"",1999', "sign_unknown"),
        ('"CR",1999', '"XX",1999', "sign_unknown"),
        ('"CR",1999', '"CR",-1999', "sign_unknown"),
        ('"CR",1999', '"CR","19.99"', "amount_unreadable"),
        ('"CR",1999', '"CR","n/a"', "amount_unreadable"),
        ('"DR",107', '"",107', "sign_unknown"),
        ('107,"USD"', '107,"EUR"', "currency_unknown"),
        ('1999,"USD"', '1999,"JPY"', "amount_too_precise"),
        ("T0006", "T9999", "kind_unknown"),
        ("T0006", "sale", "kind_unknown"),
        ("T0006", "T1107", "sign_wrong"),
        ("2026/01/01 00:00:01 -0800", "2026/01/01 00:00:01", "date_unreadable"),
        (',"ORD-1001"\n', "\n", "columns_missing"),
        ('"SB"', '"XB"', "row_type_unknown"),
    ],
)
def test_a_row_that_makes_no_sense_is_reported(old: str, new: str, code: str) -> None:
    spoilt = SALE.replace(old, new, 1)
    rows = (spoilt, REFUND)
    found = stl(f'{HEAD}{"".join(rows)}"SC",1\n"RC",1\n"FC",1\n') if code == "row_type_unknown" else with_rows(*rows)
    (bad,) = bad_in(found)
    assert (bad.line_number, bad.code) == (5, code)
    assert len(lines_in(found)) == 1


def test_codes_decide_kinds_and_holds_move_nothing() -> None:
    codes = {
        "T1201": ("DR", K.CHARGEBACK), "T1202": ("CR", K.CHARGEBACK_REVERSAL), "T0106": ("DR", K.FEE),
        "T2103": ("DR", K.RESERVE), "T2104": ("CR", K.RESERVE), "T0200": ("CR", K.ADJUSTMENT),
        "T0000": ("DR", K.ADJUSTMENT), "T1300": ("CR", None), "T1302": ("DR", None),
    }  # fmt: skip
    rows = [SALE.replace("T0006", code).replace('"CR",', f'"{side}",') for code, (side, _) in codes.items()]
    assert [line.kind for line in lines_in(with_rows(*rows))] == [kind for _, kind in codes.values() if kind]


def test_a_withdrawal_is_a_payout() -> None:
    found = with_rows(SALE.replace("T0006", "T0400").replace('"CR",', '"DR",').replace('"DR",107', '"",0'))
    (stated,) = payouts_in(found)
    (line,) = lines_in(found)
    assert (stated.payout_reference, stated.amount_minor) == ("CAPTEST0000000001", 1999)
    assert (line.kind, line.net_minor, line.payout_reference) == (K.PAYOUT, -1999, None)


def test_yen_is_times_a_hundred_as_in_paypals_example() -> None:
    yen = SALE.replace('1999,"USD","DR",107,"USD"', '10000,"JPY","DR",300,"JPY"')
    assert [(line.gross_minor, line.fee_minor) for line in lines_in(with_rows(yen))] == [(100, 3)]


def test_the_detail_report_has_double_spaces_and_rows_that_moved_nothing() -> None:
    columns = HEAD.replace("Transaction Debit or Credit", "Transaction  Debit or Credit")
    columns = columns.replace('"Custom Field"', '"Transactional Status","Custom Field"')
    rows = [SALE.replace(',"ORD-1001"', f',"{status}","ORD-1001"') for status in "SVFPD"]
    text = f'{columns}{"".join(rows)}"SC",5\n"RC",5\n"FC",5\n'
    assert len(lines_in(parsed("paypal_transaction_detail", text))) == 3
    context = ReadingContext("paypal", "")
    assert registry.recognise(table_head(text), context).name == "paypal_transaction_detail"
    assert registry.recognise(table_head(SAMPLE), context).name == "paypal_settlement"


def test_rows_before_the_names_of_their_columns_are_nobodys() -> None:
    for text in (SALE + END, HEAD.replace('"Fee Amount",', "") + SALE + END):
        with pytest.raises(Unreadable) as refused:
            stl(text)
        assert refused.value.code == "header_missing"


# --- Transaction Search -----------------------------------------------------------------------------------------------


def searched(**changes: object) -> list[Parsed]:
    info = {
        "transaction_id": "CAP1", "transaction_event_code": "T0006", "transaction_status": "S",
        "transaction_initiation_date": "2026-01-01T00:00:01Z", "custom_field": "PR1",
        "transaction_amount": {"currency_code": "USD", "value": "19.99"},
        "fee_amount": {"currency_code": "USD", "value": "-1.07"},
    }  # fmt: skip
    return parsed(
        "paypal_transactions", json.dumps({"transaction_details": [{"transaction_info": {**info, **changes}}]})
    )


def test_transaction_search() -> None:
    line = only_line(searched())
    assert (line.kind, line.gross_minor, line.fee_minor, line.net_minor) == (K.SALE, 1999, 107, 1892)
    assert (line.reference, line.our_reference) == ("CAP1", "PR1")
    refund = only_line(
        searched(
            transaction_id="REF1",
            transaction_event_code="T1107",
            paypal_reference_id="CAP1",
            fee_amount=None,
            transaction_amount={"currency_code": "USD", "value": "-5.00"},
        )
    )
    assert (refund.kind, refund.net_minor, refund.parent_reference) == (K.REFUND, -500, "CAP1")
    assert searched(transaction_status="P") == []
    assert searched(transaction_event_code="T1300") == []
    for wrong in (
        {"transaction_status": "?"}, {"transaction_amount": "19.99"}, {"transaction_event_code": "T7777"},
        {"transaction_amount": {"currency_code": "USD", "value": 19.999}}, {"transaction_initiation_date": None},
    ):  # fmt: skip
        (bad,) = bad_in(searched(**wrong))
        assert bad.line_number == 1
