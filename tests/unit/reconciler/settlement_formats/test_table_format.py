"""What tables have in common: columns by name, rows that make no sense reported by number (failure RC3)."""

from __future__ import annotations

import pytest

from services.reconciler.domain.settlement import BadRow, LineKind
from services.reconciler.settlement_formats import registry
from services.reconciler.settlement_formats.port import Unreadable
from services.reconciler.settlement_formats.table_format import Table
from tests.unit.reconciler.settlement_formats.parsing import bad_in, lines_in, only_line, parsed, payouts_in, table_head

HEADER = "balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id,automatic_payout_id"
SALE = "txn_1,2026-01-01 00:00:03,usd,19.99,0.88,19.11,charge,ch_1,po_1"


def stripe(*rows: str, header: str = HEADER) -> list[object]:
    return list(parsed("stripe_payout_reconciliation", "\n".join((header, *rows)) + "\n"))


def only_bad(*rows: str, header: str = HEADER) -> BadRow:
    (bad,) = stripe(*rows, header=header)
    assert isinstance(bad, BadRow), bad
    return bad


def test_columns_are_found_by_name_in_any_order_case_and_spacing() -> None:
    header = "\ufeff Net,GROSS, fee ,Reporting_Category,Currency,extra,source_id,balance_transaction_id,created_utc"
    (line,) = lines_in(stripe("19.11,19.99,0.88,charge,usd,whatever,ch_1,txn_1,2026-01-01 00:00:03", header=header))  # type: ignore[arg-type]
    assert (line.gross_minor, line.fee_minor, line.net_minor, line.reference) == (1999, 88, 1911, "ch_1")
    assert line.payout_reference is None


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(Unreadable) as refused:
        stripe(SALE + ",1.00", header=HEADER + ",Gross")
    assert refused.value.code == "columns_twice"


def test_without_its_columns_a_file_is_refused_and_so_is_an_empty_one() -> None:
    for text, code in (("a,b\n1,2\n", "header_missing"), ("", "empty")):
        with pytest.raises(Unreadable) as refused:
            parsed("stripe_payout_reconciliation", text)
        assert refused.value.code == code


def test_titles_before_the_header_blank_rows_and_repeated_headers_are_no_rows() -> None:
    found = parsed(
        "stripe_payout_reconciliation",
        f"Payouts of January\n\n{HEADER}\n{SALE}\n,,,,,,,,\n\n{HEADER}\n{SALE.replace('_1', '_2')}\n",
    )
    assert [line.reference for line in lines_in(found)] == ["ch_1", "ch_2"]
    assert not bad_in(found)


@pytest.mark.parametrize(
    ("old", "new", "code", "names"),
    [
        ("19.99", "n/a", "amount_unreadable", "gross"),
        ("0.88", "", "amount_unreadable", "fee"),
        ("0.88", "0.881", "amount_too_precise", "fee"),
        ("19.11", "19.12", "sum_wrong", "1911"),
        ("usd", "usx", "currency_unknown", "currency"),
        ("charge", "gift", "kind_unknown", "reporting_category"),
        ("2026-01-01 00:00:03", "soon", "date_unreadable", "created_utc"),
        ("19.99,0.88,19.11", "-19.99,0.88,-20.87", "sign_wrong", "negative"),
        ("ch_1", "c" * 1001, "cell_too_long", "1000"),
        ("ch_1", "ch\u202e1", "text_unreadable", "source_id"),
        (",po_1", "", "columns_missing", "8 cells"),
        (",po_1", ",po_1,more", "columns_extra", "10 cells"),
        ("19.99", "1,999.00", "columns_extra", "10 cells"),
    ],
)
def test_a_row_that_makes_no_sense_is_reported_with_its_line_and_column(
    old: str, new: str, code: str, names: str
) -> None:
    other = SALE.replace("_1", "_2")
    found = stripe(other, SALE.replace(old, new, 1), other.replace("_2", "_3"))
    assert [line.reference for line in lines_in(found)] == ["ch_2", "ch_3"]  # type: ignore[arg-type]
    (bad,) = bad_in(found)  # type: ignore[arg-type]
    assert (bad.line_number, bad.code) == (3, code)
    assert names in bad.detail
    assert len(bad.detail) < 200


def test_a_detail_repeats_no_more_than_forty_characters_of_a_cell() -> None:
    bad = only_bad(SALE.replace("19.99", "x" * 900))
    assert "x" * 40 in bad.detail
    assert "x" * 41 not in bad.detail


def test_a_long_description_that_nobody_reads_is_still_no_line() -> None:
    assert only_bad(f"{SALE},{'d' * 1001}", header=HEADER + ",description").code == "cell_too_long"


def test_what_nobody_reads_may_hold_line_ends() -> None:
    assert len(stripe(f'{SALE},"two\nlines"', header=HEADER + ",description")) == 1


def test_blanks_around_cells_are_no_part_of_them() -> None:
    line = only_line(stripe(SALE.replace(",", " , ")))  # type: ignore[arg-type]
    assert (line.reference, line.payout_reference, line.gross_minor) == ("ch_1", "po_1", 1999)


def test_what_the_shopper_saw_is_kept_where_it_is_in_another_currency() -> None:
    header = HEADER + ",customer_facing_amount,customer_facing_currency"
    rows = [f"{SALE},2500,jpy", f"{SALE},19.99,usd", f"{SALE},,"]
    seen = [(line.presented_minor, line.presented_currency) for line in lines_in(stripe(*rows, header=header))]  # type: ignore[arg-type]
    assert seen == [(2500, "JPY"), (None, None), (None, None)]
    assert only_bad(f"{SALE},25.5,jpy", header=header).code == "amount_too_precise"


def test_a_payout_is_a_line_of_no_payout_and_states_one() -> None:
    found = stripe("txn_9,2026-01-01 00:00:03,usd,-19.11,0.00,-19.11,payout,po_1,")
    (line,) = lines_in(found)  # type: ignore[arg-type]
    (stated,) = payouts_in(found)  # type: ignore[arg-type]
    assert (line.kind, line.reference, line.payout_reference) == (LineKind.PAYOUT, "po_1", None)
    assert (stated.payout_reference, stated.amount_minor, stated.currency) == ("po_1", 1911, "USD")


# --- files that each merchant arranges --------------------------------------------------------------------------------

BILLDESK = {
    "transaction": "Txn Ref",
    "order": "Order",
    "kind": "Category",
    "at": "Date",
    "gross": "Amount",
    "fee": "MDR",
    "tax": "GST",
    "net": "Payable",
    "payout": "UTR No",
}
ARRANGED = (
    "Category,Txn Ref,Order,Date,Amount,MDR,GST,Payable,UTR No\n"
    'Sale,TX1,ORD1,01/02/2026 10:00:00,"12,34,567.00",0.00,0.00,"12,34,567.00",UTR1\n'
    "Refund,TX1,ORD1,02/02/2026 10:00:00,100.00,0.00,0.00,100.00,UTR1\n"
)


def test_an_installations_own_headers_fit_a_format_to_the_file() -> None:
    found = parsed("billdesk_settlement", ARRANGED, header_map={**BILLDESK, "thousands_separator": ","})
    sale, refund = lines_in(found)
    assert (sale.gross_minor, refund.gross_minor, refund.net_minor) == (123456700, -10000, -10000)
    assert (sale.reference, refund.reference, refund.parent_reference) == ("TX1", None, "TX1")
    assert sale.occurred_at is not None
    assert sale.occurred_at.isoformat() == "2026-02-01T10:00:00+05:30"
    format_ = registry.format_named("billdesk_settlement")
    assert isinstance(format_, Table)
    assert format_.recognises_arranged(table_head(ARRANGED), BILLDESK)
    assert not format_.recognises(table_head(ARRANGED))


def test_thousands_apart_are_refused_where_nobody_says_so() -> None:
    found = parsed("billdesk_settlement", ARRANGED, header_map=BILLDESK)
    assert [bad.code for bad in bad_in(found)] == ["amount_unreadable"]


def test_a_map_of_columns_that_the_format_does_not_have_is_refused() -> None:
    for wrong in ({"grosss": "Amount"}, {"amounts_in": "lakhs"}):
        with pytest.raises(Unreadable) as refused:
            parsed("billdesk_settlement", ARRANGED, header_map=wrong)
        assert refused.value.code == "header_map_unknown"


def test_paise_are_read_as_such_once_the_installation_says_so() -> None:
    header = "order_id,transaction_id,type,transaction_time,gross,fee,tax,net,utr"
    text = f"{header}\nORD1,T1,PAYMENT,2026-01-01 00:00:00,49900,998,180,48722,UTR1\n"
    assert [bad.code for bad in bad_in(parsed("phonepe_settlement", text))] == ["amount_unit_unknown"]
    assert only_line(parsed("phonepe_settlement", text, header_map={"amounts_in": "minor"})).net_minor == 48722


def test_where_signs_are_not_documented_the_kind_decides() -> None:
    header = (
        "order_id,transaction_id,transaction_type,transaction_date,gross_amount,commission,gst,net_amount,utr,status"
    )
    rows = [
        "O1,R1,REFUND,2026-01-01 00:00:00,100.00,0.00,0.00,100.00,U,PAYOUT_SETTLED",
        "O1,R1,REFUND,2026-01-01 00:00:00,-100.00,0.00,0.00,-100.00,U,PAYOUT_SETTLED",
        "O1,R1,Chargeback Reversal,2026-01-01 00:00:00,-100.00,0.00,0.00,100.00,U,PAYOUT_SETTLED",
        "O1,R1,REFUND,2026-01-01 00:00:00,100.00,2.00,0.00,98.00,U,PAYOUT_SETTLED",
        "O1,R1,SALE,2026-01-01 00:00:00,100.00,0.00,0.00,100.00,U,PAYOUT_UNSETTLED",
    ]
    found = parsed("paytm_settlement", "\n".join([header, *rows]))
    assert [line.net_minor for line in lines_in(found)] == [-10000, -10000, 10000]
    assert [bad.code for bad in bad_in(found)] == ["sum_wrong", "not_settled"]
