"""Reports of runs and files: complete, and harmless in a spreadsheet and in a browser, whatever a file says."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import httpx

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject
from services.reconciler.use_cases import read_report
from tests.integration.reconciler.cases import BASE, FILE_ID, PAYMENT_ID, late_payment, opens, post, stores_a_line
from tests.integration.reconciler.conftest import World

RUN_ID = f"run_{'0' * 26}"
TOTALS = [
    {
        "gateway": "stripe",
        "currency": "EUR",
        "matched_minor": 100_000,
        "in_transit_minor": 20_000,
        "disputed_minor": -5_000,
        "unexplained_minor": -1_234,
        "fees_minor": 3_000,
        "tax_minor": 570,
        "payouts_minor": 96_000,
        "counts": {"matched": 10, "unexplained": 1},
    }
]
EVIL = '=cmd|" /C calc"!A0'
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


async def runs(world: World, *, kind: str = "orders", file_id: str | None = None) -> None:
    """A run that has ended, over the last minute."""
    ended = world.clock.now()
    world.clock.move(60)
    await world.execute(
        """
        INSERT INTO reconciliation_runs (run_id, kind, status, started_at, finished_at, totals, checked, matched,
            cases_opened, file_id)
        VALUES (:run_id, :kind, 'completed', :started_at, :ended, CAST(CAST(:totals AS text) AS jsonb),
            12, 11, 1, :file)
        """,
        run_id=RUN_ID,
        kind=kind,
        started_at=ended,
        ended=world.clock.now(),
        totals=json.dumps(TOTALS),
        file=file_id,
    )


async def get(world: World, path: str) -> httpx.Response:
    answer = await world.http.get(f"{BASE}/{path}", headers=world.token("recon:read"))
    assert answer.status_code == 200, answer.text
    return answer


async def records(world: World, path: str) -> list[dict[str, Any]]:
    """RFC 4180: every line has as many fields as the header, and ends with CR LF."""
    answer = await get(world, path)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.content.endswith(b"\r\n")
    rows = list(csv.reader(io.StringIO(answer.text, newline=""), strict=True))
    assert {len(row) for row in rows} == {len(rows[0])}
    return [{name: value for name, value in zip(rows[0], row, strict=True) if value} for row in rows[1:]]


async def test_a_runs_report_has_totals_and_the_cases_that_were_open_while_it_ran(world: World) -> None:
    settled_before, still_open, other_kind = await opens(
        world,
        late_payment("a"),
        late_payment("b"),
        Finding(CaseKind.SETTLEMENT, Scenario.UNKNOWN_LINE, "c", Subject("tabby")),
    )
    await post(world, f"{BASE}/cases/{settled_before}/resolve", {"action": "accept", "reason": "explained"})
    world.clock.move(10)
    await runs(world)
    world.clock.move(10)
    await opens(world, late_payment("later"))
    totals, case = await records(world, f"runs/{RUN_ID}/report.csv")
    assert (totals["record"], totals["gateway"], totals["currency"]) == ("totals", "stripe", "EUR")
    assert (totals["matched"], totals["disputed"], totals["unexplained"]) == ("1000.00", "-50.00", "-12.34")
    assert (totals["fees"], totals["tax"], totals["payouts"], totals["count"]) == ("30.00", "5.70", "960.00", "11")
    assert (case["record"], case["id"], case["status"]) == ("case", still_open, "open")
    assert (case["currency"], case["expected"], case["actual"], case["difference"]) == (
        "KWD",
        "0.000",
        "12.500",
        "12.500",
    )
    assert other_kind not in str(case)


async def test_a_files_report_has_its_lines_payouts_and_bad_rows(world: World) -> None:
    await stores_a_line(world, file_id=FILE_ID, payment_id=PAYMENT_ID)
    await stores_a_line(world, file_id=FILE_ID, payment_id=None, position=2, line_number=4, gross=-250, kind="refund")
    await stores_a_line(
        world, file_id=FILE_ID, payment_id=None, position=3, line_number=5, gross=-900, kind="chargeback"
    )
    await world.execute(
        "INSERT INTO settlement_file_problems VALUES (:file_id, 1, 6, 'amount_unreadable', 'Gross: “1.0.0”')",
        file_id=FILE_ID,
    )
    found = await records(world, f"settlement-files/{FILE_ID}/report.csv")
    by_kind = {each["record"]: each for each in found}
    assert [each["record"] for each in found] == ["totals", "payout", "bad_row", "unmatched_line", "unmatched_line"]
    totals = by_kind["totals"]
    assert (totals["matched"], totals["unexplained"], totals["disputed"]) == ("10.00", "-2.50", "-9.00")
    assert totals["payouts_unexplained"] == "-0.01"
    assert (by_kind["payout"]["actual"], by_kind["payout"]["difference"]) == ("9.69", "-0.01")
    assert (by_kind["bad_row"]["line_number"], by_kind["bad_row"]["detail"]) == ("6", "Gross: “1.0.0”")
    assert (found[3]["kind"], found[3]["actual"], found[3]["line_number"]) == ("refund", "-2.50", "4")
    page = (await get(world, f"settlement-files/{FILE_ID}/report.html")).text
    for words in ("may.csv", "Rows that could not be read", "amount unreadable", "Lines that match no payment", "po_1"):
        assert words in page


async def test_no_cell_of_the_csv_is_executed_and_negative_amounts_stay_numbers(world: World) -> None:
    """RC15."""
    await stores_a_line(world, file_id=FILE_ID, payment_id=None, reference=EVIL, gross=-250)
    about = Subject("stripe", file_id=FILE_ID, payout_reference="\t+1+1", order_id="＝HYPERLINK(1)")
    (case_id,) = await opens(world, Finding(CaseKind.SETTLEMENT, Scenario.PAYOUT_DIFFERS, "k", about, "EUR", 500, 250))
    body = {"action": "accept", "reason": '@SUM(1+1)*cmd|" =1+1'}
    await post(world, f"{BASE}/cases/{case_id}/resolve", body)
    found = await records(world, f"settlement-files/{FILE_ID}/report.csv")
    case = next(each for each in found if each["record"] == "case")
    line = next(each for each in found if each["record"] == "unmatched_line")
    assert line["reference"] == f"'{EVIL}"
    assert (case["payout_reference"], case["order_id"]) == ("' +1+1", "'＝HYPERLINK(1)")
    assert case["detail"] == "'@SUM(1+1)*cmd|\" '=1+1"
    assert (case["difference"], line["actual"]) == ("-2.50", "-2.50")


async def test_nothing_in_the_page_is_markup_but_our_own(world: World) -> None:
    await stores_a_line(world, file_id=FILE_ID, payment_id=None, reference=SCRIPT)
    await world.execute("UPDATE settlement_files SET name = :name", name=SCRIPT)
    about = Subject("stripe", file_id=FILE_ID, payout_reference=SCRIPT)
    (case_id,) = await opens(world, Finding(CaseKind.SETTLEMENT, Scenario.PAYOUT_DIFFERS, "k", about))
    await post(world, f"{BASE}/cases/{case_id}/assign", {"owner": SCRIPT})
    answer = await get(world, f"settlement-files/{FILE_ID}/report.html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = answer.text
    assert "<script" not in page
    assert "<img" not in page
    assert " style=" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


async def test_the_page_shows_where_the_money_is_also_to_who_cannot_see_it(world: World) -> None:
    await runs(world)
    page = (await get(world, f"runs/{RUN_ID}/report.html")).text
    assert 'aria-label="EUR: matched 1\u202f000.00, in transit 200.00, disputed 50.00, unexplained 12.34"' in page
    assert page.count("<rect class=") == 8
    assert "\u221212.34</td>" in page
    assert "None: everything that was compared agrees." in page


async def test_a_run_that_still_works_and_a_sweep_have_reports_too(world: World) -> None:
    await runs(world, kind="sweep")
    page = (await get(world, f"runs/{RUN_ID}/report.html")).text
    assert "Learnt before any webhook" in page
    assert [each["record"] for each in await records(world, f"runs/{RUN_ID}/report.csv")] == ["totals"]
    await world.execute(
        "UPDATE reconciliation_runs SET status = 'running', finished_at = NULL, phase = 'reading', done = 5, total = 9,"
        " totals = '[]'"
    )
    page = (await get(world, f"runs/{RUN_ID}/report.html")).text
    assert "reading: 5 of 9" in page


async def test_what_is_not_there_is_a_404_before_anything_is_written(world: World) -> None:
    for path in (f"runs/{RUN_ID}", f"settlement-files/{FILE_ID}", "runs/x", "settlement-files/x"):
        for kind in ("csv", "html"):
            answer = await world.http.get(f"{BASE}/{path}/report.{kind}", headers=world.token("recon:read"))
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_long_reports_are_read_in_pages_with_no_transaction_open_between_them(
    world: World, monkeypatch: Any
) -> None:
    monkeypatch.setattr(read_report, "PAGE", 2)
    for position in range(1, 6):
        await stores_a_line(world, file_id=FILE_ID, payment_id=None, position=position, line_number=position)
    await opens(
        world, *(Finding(CaseKind.SETTLEMENT, Scenario.BAD_ROWS, str(n), Subject(file_id=FILE_ID)) for n in range(4))
    )
    found = await records(world, f"settlement-files/{FILE_ID}/report.csv")
    assert [each["line_number"] for each in found if each["record"] == "unmatched_line"] == list("12345")
    assert len([each for each in found if each["record"] == "case"]) == 4
    context = world.container.context
    report = await read_report.report_of_file(FILE_ID, context)
    async for _ in read_report.line_pages(report, context):
        assert world.container.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_runs_report_has_the_unmatched_lines_of_all_its_gateways_files(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(read_report, "PAGE", 2)
    names = [f"stf_{number:026}" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        for position in range(1, 4):
            await stores_a_line(
                world,
                file_id=name,
                payment_id=PAYMENT_ID if number == 1 else None,
                position=position,
                line_number=10 * number + position,
            )
    await runs(world, kind="settlement")
    found = await records(world, f"runs/{RUN_ID}/report.csv")
    lines = [each["line_number"] for each in found if each["record"] == "unmatched_line"]
    assert lines == ["1", "2", "3", "21", "22", "23"]
