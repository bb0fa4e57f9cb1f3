"""What every gateway's settlement file says adds up to what it paid out, and a sown fault is one disagreement with the
books and no other (failures RC2, RC4, RC6, RC7, RC8: what the reconciler's tests rely on)."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import pytest

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode, EntryStatus
from services.gateway_sandbox.gateways.definition import Site
from services.gateway_sandbox.gateways.port import UNREADABLE, SandboxGateway, SettlementFile, SettlementLine
from services.gateway_sandbox.gateways.registry import build_gateways, sandbox_definitions
from services.gateway_sandbox.use_cases.sow_settlement import NothingToSow, SettlementFault, Sow
from services.gateway_sandbox.use_cases.write_settlement import Settlement, settle
from shared.ports import system_ports
from tests.support.gateway_sandbox import gateway_secrets

DAY = date(2026, 1, 1)
FIRST = datetime(2026, 1, 1, 8, tzinfo=UTC)
UNTIL = datetime(2026, 1, 2, tzinfo=UTC)
GATEWAYS = sorted(sandbox_definitions())
F = SettlementFault


class Row(NamedTuple):
    """A row of a file, in major units. ``net`` None: its amount cannot be read."""

    payout: str
    gross: Decimal
    net: Decimal | None
    text: str
    """All of it, to look for ids in."""


@cache
def built() -> dict[str, SandboxGateway]:
    return build_gateways(Site(gateway_secrets(), "http://sandbox.test", "Shop", system_ports().randomness))


def an_entry(gateway: str, currency: str, number: int) -> BookEntry:
    """With whatever any gateway's file wants to know."""
    digits = f"{4_000_000_000 + 7 * number}"
    return BookEntry(
        gateway=gateway,
        gateway_reference=digits,
        reference=f"PR{number:018}",
        order_id=f"ord_{number:010}",
        amount_minor=10_000 + 100 * number,
        currency=currency,
        capture=CaptureMode.AUTOMATIC,
        success_url="http://shop.example/return",
        cancel_url=None,
        page_token="token",
        created_at=FIRST,
        expires_at=UNTIL,
        status=EntryStatus.COMPLETED,
        payment_reference=f"pay_{digits}A",
        payment_created_at=FIRST,
        captured_minor=10_000 + 100 * number,
        details={
            "charges": [{"id": f"ch_{digits}A"}],
            "intent": {"metadata": {"order_ref": f"PR{number:018}"}},
            "order_id": f"order_{digits}A",
            "custom_id": f"PR{number:018}",
            "mihpayid": f"4039937155{digits}",
            "method": "KNET",
            "invoice_reference": f"2026{digits}",
        },
    )


def books_of(gateway: SandboxGateway) -> list[SettlementLine]:
    """Six payments, the second one refunded in part, the third one lost to a dispute."""
    lines = []
    for number in range(1, 7):
        entry = an_entry(gateway.name, gateway.payouts.currencies[0], number)
        at = FIRST + timedelta(minutes=number)
        object_id = entry.payment_reference or ""
        fee = entry.amount_minor // 40
        lines.append(
            SettlementLine("capture", entry, object_id, entry.reference, entry.amount_minor, fee, fee * 18 // 100, at)
        )
        later = at + timedelta(hours=1)
        if number == 2:
            lines.append(
                SettlementLine(
                    "refund", entry, f"rf_{number:08}", "OP00000000000000001A", 2_500, 0, 0, later, object_id
                )
            )
        if number == 3:
            lines.append(
                SettlementLine("dispute", entry, f"dp_{number:08}", None, entry.amount_minor, 0, 0, later, object_id)
            )
    return sorted(lines, key=lambda line: (line.at, line.object_id))


def written(name: str, *sow: Sow) -> Settlement:
    gateway = built()[name]
    return settle(gateway, books_of(gateway), DAY, paid_at=UNTIL, sow=sow)


# --- reading what was written, without a format's parser ------------------------------------------------------------


def _csv(file: SettlementFile) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(file.body.decode()))


def _json(file: SettlementFile) -> Any:
    return json.loads(file.body, parse_float=Decimal)


def _number(text: Any) -> Decimal:
    return Decimal(0) if text == UNREADABLE else Decimal(str(text))


def _from_csv(payout: str, gross: str, net: str) -> Callable[[SettlementFile], Iterator[Row]]:
    def read(file: SettlementFile) -> Iterator[Row]:
        for row in _csv(file):
            spoilt = row[gross] == UNREADABLE
            yield Row(row[payout], _number(row[gross]), None if spoilt else Decimal(row[net]), " ".join(row.values()))

    return read


def _stripe(file: SettlementFile) -> Iterator[Row]:
    return _from_csv("automatic_payout_id", "gross", "net")(file)


def _paypal(file: SettlementFile) -> Iterator[Row]:
    rows = list(csv.reader(io.StringIO(file.body.decode())))
    names = next(row for row in rows if row[0] == "CH")
    for cells in rows:
        if cells[0] != "SB":
            continue
        row = dict(zip(names, cells, strict=True))
        spoilt = row["Gross Transaction Amount"] == UNREADABLE
        sign = 1 if row["Transaction Debit or Credit"] == "CR" else -1
        gross = sign * _number(row["Gross Transaction Amount"]) / 100
        net = None if spoilt else gross - Decimal(row["Fee Amount"]) / 100
        yield Row(row["Bank Reference ID"], gross, net, " ".join(cells))


def _razorpay(file: SettlementFile) -> Iterator[Row]:
    for item in _json(file)["items"]:
        sign = 1 if item["type"] == "payment" else -1
        net = None if item["amount"] == UNREADABLE else Decimal(item["credit"] - item["debit"]) / 100
        yield Row(item["settlement_id"], sign * _number(item["amount"]) / 100, net, str(item))


def _payu(file: SettlementFile) -> Iterator[Row]:
    for row in _json(file)["Txn_details"].values():
        sign = 1 if row["requestaction"] == "capture" else -1
        net = None if row["requestamount"] == UNREADABLE else Decimal(row["mer_net_amount"])
        yield Row(row["mer_utr"], sign * _number(row["requestamount"]), net, str(row))


def _ccavenue(file: SettlementFile) -> Iterator[Row]:
    for payout, details in _json(file)["payIdDetails"].items():
        for row in details["pay_id_details_Result"]["pay_id_txn_details_list"]["pay_id_txn_details"]:
            sign = 1 if row["txn_type"] == "Shipped" else -1
            net = None if row["amount"] == UNREADABLE else Decimal(row["amt_payable"])
            yield Row(payout, sign * _number(row["amount"]), net, str(row))


def _myfatoorah(file: SettlementFile) -> Iterator[Row]:
    for row in _json(file)["Data"]:
        net = None if row["DueValue"] == UNREADABLE else Decimal(row["DueDeposit"])
        yield Row(row["DepositReference"], _number(row["DueValue"]), net, str(row))


READERS: Mapping[str, Callable[[SettlementFile], Iterator[Row]]] = {
    "billdesk": _from_csv("utr", "gross", "net"),
    "ccavenue": _ccavenue,
    "generic": _from_csv("settlement_id", "amount", "net"),
    "myfatoorah": _myfatoorah,
    "paypal": _paypal,
    "paytm": _from_csv("utr", "gross_amount", "net_amount"),
    "payu": _payu,
    "phonepe": _from_csv("utr", "gross", "net"),
    "razorpay": _razorpay,
    "stripe": _stripe,
    "tabby": _from_csv("statement_reference", "gross", "net"),
    "tamara": _from_csv("statement_reference", "gross", "net"),
}


def rows_of(name: str, made: Settlement) -> list[Row]:
    return list(READERS[name](made.file))


def stated(made: Settlement) -> dict[str, Decimal]:
    return {row["payout_reference"]: Decimal(row["amount"]) for row in _csv(made.statement)}


def totals(rows: list[Row]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for row in rows:
        found[row.payout] = found.get(row.payout, Decimal(0)) + (row.net or 0)
    return found


def changes(name: str, made: Settlement) -> tuple[list[Row], list[Row]]:
    """Rows of the truth that are gone, and rows that are new."""
    true, told = Counter(rows_of(name, written(name))), Counter(rows_of(name, made))
    return list((true - told).elements()), list((told - true).elements())


def unit(name: str) -> Decimal:
    """One minor unit of the home currency, in major ones."""
    made = written(name)
    [payout] = made.payouts
    return stated(made)[payout.reference] / payout.amount_minor


# --- each gateway -----------------------------------------------------------------------------------------


def test_every_gateway_is_read_here() -> None:
    assert sorted(built()) == sorted(READERS) == GATEWAYS


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_rows_of_a_payout_are_what_was_paid_out(name: str) -> None:
    made = written(name)
    rows = rows_of(name, made)
    assert len(rows) == 8
    assert totals(rows) == stated(made)
    assert [payout.amount_minor for payout in made.payouts] == [sum(line.net_minor for line in books_of(built()[name]))]


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_same_books_give_the_same_bytes(name: str) -> None:
    sow = [Sow(F.EXTRA), Sow(F.DUPLICATED), Sow(F.REFUND_NETTED)]
    assert written(name) == written(name)
    assert written(name, *sow) == written(name, *sow)


@pytest.mark.parametrize("fault", [f for f in F if f not in (F.PAYOUT_OFF, F.TRUNCATED)])
@pytest.mark.parametrize("name", GATEWAYS)
def test_payouts_follow_the_lines_as_they_are_written(name: str, fault: F) -> None:
    try:
        made = written(name, Sow(fault))
    except NothingToSow:
        assert fault is F.WRONG_CURRENCY
        assert len(built()[name].payouts.currencies) == 1
        return
    assert totals(rows_of(name, made)) == stated(made)
    assert [sown.fault for sown in made.sown] == [fault]


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_missing_line_is_the_only_one_gone(name: str) -> None:
    made = written(name, Sow(F.MISSING, line=3))
    [gone], new = changes(name, made)
    assert new == []
    [sown] = made.sown
    assert (sown.kind, sown.object_id) == ("capture", "pay_4000000028A")
    assert gone.gross == -(sown.difference_minor or 0) * unit(name)


@pytest.mark.parametrize("name", GATEWAYS)
def test_an_extra_line_has_ids_that_are_nobodys(name: str) -> None:
    made = written(name, Sow(F.EXTRA))
    gone, [new] = changes(name, made)
    assert gone == []
    known = {line.object_id for line in books_of(built()[name])}
    known |= {
        each for line in books_of(built()[name]) for each in (line.entry.gateway_reference, line.reference) if each
    }
    known |= {line.entry.details["charges"][0]["id"] for line in books_of(built()[name])}
    assert not [each for each in known if each in new.text]
    [sown] = made.sown
    assert new.gross == (sown.difference_minor or 0) * unit(name)
    assert len({sown.object_id, sown.gateway_reference} - known) == 2
    assert any(str(each) in new.text for each in (sown.object_id, sown.gateway_reference, sown.reference))


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_duplicated_line_is_the_same_line_again(name: str) -> None:
    made = written(name, Sow(F.DUPLICATED, line=1))
    gone, new = changes(name, made)
    assert gone == []
    assert new[0] in rows_of(name, written(name))
    assert len(new) == 1


@pytest.mark.parametrize(("by_minor", "difference"), [(None, 1), (250, 250)])
@pytest.mark.parametrize("name", GATEWAYS)
def test_a_wrong_amount_is_more_in_gross_and_net(name: str, by_minor: int | None, difference: int) -> None:
    [before], [after] = changes(name, written(name, Sow(F.WRONG_AMOUNT, by_minor=by_minor)))
    assert after.gross - before.gross == difference * unit(name)
    assert (after.net or 0) - (before.net or 0) == difference * unit(name)


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_changed_fee_leaves_the_gross_as_it_is(name: str) -> None:
    made = written(name, Sow(F.FEE_CHANGED))
    [before], [after] = changes(name, made)
    assert after.gross == before.gross
    assert (after.net or 0) - (before.net or 0) == -7 * unit(name)
    assert [sown.difference_minor for sown in made.sown] == [-7]


@pytest.mark.parametrize("name", [name for name in GATEWAYS if len(built()[name].payouts.currencies) > 1])
def test_a_wrong_currency_has_a_payout_of_its_own(name: str) -> None:
    made = written(name, Sow(F.WRONG_CURRENCY))
    home, foreign = built()[name].payouts.currencies
    assert sorted(payout.currency for payout in made.payouts) == sorted((home, foreign))
    [before], [after] = changes(name, made)
    assert before.payout != after.payout
    assert [sown.difference_minor for sown in made.sown] == [None]


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_netted_refund_has_no_line_and_its_sale_is_less(name: str) -> None:
    made = written(name, Sow(F.REFUND_NETTED))
    gone, [sale] = changes(name, made)
    assert sorted(row.gross for row in gone) == [-2_500 * unit(name), 10_200 * unit(name)]
    assert sale.gross == 7_700 * unit(name)
    assert totals(rows_of(name, made)) == totals(rows_of(name, written(name)))
    [sown] = made.sown
    assert (sown.kind, sown.object_id, sown.difference_minor) == ("capture", "pay_4000000014A", -2_500)


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_payout_that_is_off_leaves_the_lines_as_they_are(name: str) -> None:
    made = written(name, Sow(F.PAYOUT_OFF))
    assert changes(name, made) == ([], [])
    [(reference, amount)] = stated(made).items()
    assert amount - totals(rows_of(name, made))[reference] == unit(name)
    [sown] = made.sown
    assert (sown.kind, sown.object_id, sown.difference_minor) == ("payout", reference, 1)


def test_what_a_file_states_of_itself_is_off_with_the_payout() -> None:
    true, off = (written("paypal", *sow).file.body.decode().splitlines() for sow in ((), (Sow(F.PAYOUT_OFF),)))
    [before], [after] = ([row for row in rows if row.startswith('"SF"')] for rows in (true, off))
    assert int(after.split(",")[2]) - int(before.split(",")[2]) == 1
    assert [row for row in true if row != before] == [row for row in off if row != after]
    summary = ("payoutSummary", "Payout_Summary_Result", "pauyout_summary_list", "pauyout_summary_details")
    found = [_json(written("ccavenue", *sow).file) for sow in ((), (Sow(F.PAYOUT_OFF),))]
    for key in summary:
        found = [each[key] for each in found]
    [[before], [after]] = found
    assert Decimal(after["pay_amount"]) - Decimal(before["pay_amount"]) == Decimal("0.01")


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_truncated_file_ends_within_a_row(name: str) -> None:
    whole, cut = written(name), written(name, Sow(F.TRUNCATED))
    assert whole.file.body.startswith(cut.file.body)
    lost = whole.file.body[len(cut.file.body) :]
    assert not cut.file.body.endswith((b"\n", b"}"))
    assert cut.statement == whole.statement
    if name == "paypal":
        assert b'"SC"' in lost
    elif whole.file.body.endswith(b"\n"):
        assert whole.file.body.count(b"\n") - cut.file.body.count(b"\n") == 1
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(cut.file.body)


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_bad_rows_amount_is_no_number(name: str) -> None:
    made = written(name, Sow(F.BAD_ROW))
    assert made.file.body.count(UNREADABLE.encode()) >= 1
    gone, [new] = changes(name, made)
    assert new.net is None
    assert [row.net for row in gone] != [None]


def test_faults_hit_different_lines() -> None:
    """However they are listed: the default is the first line that is left."""
    sow = [Sow(fault) for fault in F if fault not in (F.TRUNCATED, F.WRONG_CURRENCY)]
    made = written("generic", *sow)
    hit = [sown.object_id for sown in made.sown if sown.fault is not F.EXTRA]
    assert len(set(hit)) == len(hit) == len(sow) - 1
    off = stated(made)["gs_20260101USD"] - totals(rows_of("generic", made))["gs_20260101USD"]
    assert off == Decimal("0.01")


@pytest.mark.parametrize("fault", list(F))
def test_nothing_can_be_sown_where_nothing_grows(fault: F) -> None:
    with pytest.raises(NothingToSow):
        settle(built()["stripe"], [], DAY, paid_at=UNTIL, sow=[Sow(fault)])
    if fault is not F.TRUNCATED:
        with pytest.raises(NothingToSow):
            written("stripe", Sow(fault, line=40))
