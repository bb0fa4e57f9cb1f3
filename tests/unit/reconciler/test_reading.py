"""Reading files: rows of COPY that PostgreSQL takes, a report that counts everything, and a child that may die."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.processes import is_alive
from services.reconciler.domain.settlement import (
    BadRow,
    FileStatus,
    LineKind,
    Parsed,
    SettlementFile,
    SettlementLine,
    StatedPayout,
    StatedTotal,
)
from services.reconciler.settlement_formats import process
from services.reconciler.settlement_formats.content import Notes
from services.reconciler.settlement_formats.copy_rows import (
    IDS,
    LARGEST_MINOR,
    LONGEST_TEXT,
    MAX_PAYOUTS,
    MAX_PROBLEMS,
    Summary,
    careful_row,
    rows_at_once,
)
from services.reconciler.settlement_formats.limits import MiB, ReadingLimits
from services.reconciler.settlement_formats.port import Incomplete, ReaderFailed, ReaderTimedOut, Unreadable
from services.reconciler.settlement_formats.process import ChildReader, ReadingOptions
from services.reconciler.settlement_formats.reading import FileReading, Request, inspect
from services.reconciler.use_cases.receive_file import spooled
from tests.support.settlement_bytes import (
    HEADER,
    a_file,
    a_gzip_bomb,
    a_row,
    a_table,
    a_workbook,
    gzipped,
    zipped,
)
from tests.support.waiting import until

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A_LINE = SettlementLine(
    7, 0, LineKind.SALE, "USD", 1999, 88, 0, 1911, AT, "ch_1", None, None, "txn_1", "po_1", None, None, "charge"
)


# --- COPY -------------------------------------------------------------------------------------------------------------

_UNESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def _cell(text: str) -> str | None:
    """As PostgreSQL reads a field of COPY's text format."""
    if text == "\\N":
        return None
    parts, at = [], 0
    while at < len(text):
        piece = text[at : at + 2] if text[at] == "\\" else text[at]
        parts.append(_UNESCAPED.get(piece, piece))
        at += len(piece)
    return "".join(parts)


def _copied(piece: bytes) -> list[list[str | None]]:
    rows = piece.decode().split("\n")
    assert rows.pop() == ""
    return [[_cell(field) for field in row.split("\t")] for row in rows]


def _expected(line: SettlementLine) -> list[str | None]:
    return [
        None if value is None or value == "" else value.isoformat() if isinstance(value, datetime) else str(value)
        for value in line
    ]


texts = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@st.composite
def lines(draw: st.DrawFn) -> SettlementLine:
    gross, fee, tax = (draw(st.integers(-(10**9), 10**9)) for _ in range(3))
    presented = draw(st.none() | st.integers(-(10**9), 10**9))
    return A_LINE._replace(
        kind=draw(st.sampled_from(LineKind)),
        gross_minor=gross,
        fee_minor=fee,
        tax_minor=tax,
        net_minor=gross - fee - tax,
        occurred_at=draw(st.none() | st.timedeltas(timedelta(0), timedelta(days=900)).map(lambda after: AT + after)),
        reference=draw(texts),
        parent_reference=draw(texts),
        our_reference=draw(texts),
        line_reference=draw(texts),
        payout_reference=draw(texts),
        presented_minor=presented,
        presented_currency=None if presented is None else "KWD",
        source_type=draw(st.text("abc\\\t\n é", min_size=1, max_size=8)),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(lines().filter(lambda line: line.occurred_at or any(line[9:14])), max_size=4))
def test_postgresql_reads_back_what_the_line_says(given_lines: list[SettlementLine]) -> None:
    summary = Summary(Notes())
    rows = _copied(b"".join(summary.copy_rows(given_lines)))
    assert rows == [_expected(line) for line in given_lines]
    at_once = rows_at_once(given_lines)
    if at_once is not None:
        assert at_once.decode() == "".join(str(careful_row(line)) for line in given_lines)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"net_minor": 1912}, "sum_wrong"),
        ({"gross_minor": LARGEST_MINOR, "net_minor": LARGEST_MINOR - 88}, "amount_too_large"),
        ({"presented_minor": LARGEST_MINOR, "presented_currency": "EUR"}, "amount_too_large"),
        ({"currency": "USDT"}, "currency_unknown"),
        ({"presented_minor": 1, "presented_currency": "??"}, "currency_unknown"),
        ({"payout_reference": "x" * (LONGEST_TEXT + 1)}, "reference_too_long"),
        ({"reference": "a\0b"}, "not_utf8"),
        ({"our_reference": "caf\udce9"}, "not_utf8"),
        ({"occurred_at": None} | dict.fromkeys(IDS), "not_identified"),
    ],
)
def test_a_line_that_the_table_would_refuse_costs_itself_and_no_other(changes: dict[str, object], code: str) -> None:
    summary = Summary(Notes())
    wrong = A_LINE._replace(line_number=8, **changes)  # type: ignore[arg-type]
    rows = _copied(b"".join(summary.copy_rows([A_LINE, wrong, A_LINE])))
    assert rows == [_expected(A_LINE)] * 2
    report = summary.report()
    assert (report["lines"], report["bad_rows"]) == (2, 1)
    assert [problem[:2] for problem in report["problems"]] == [[8, code]]


# --- the report -------------------------------------------------------------------------------------------------------


def _summarised(parsed: Iterable[Parsed]) -> Summary:
    summary = Summary(Notes())
    for _ in summary.copy_rows(parsed):
        pass
    return summary


def test_all_bad_rows_are_counted_and_the_first_are_kept_in_the_order_of_the_file() -> None:
    bad = [BadRow(number, "amount_unreadable", "gross\n: 'x'") for number in range(MAX_PROBLEMS + 500, 0, -1)]
    report = _summarised(bad).report()
    assert report["bad_rows"] == MAX_PROBLEMS + 500
    assert len(report["problems"]) == MAX_PROBLEMS
    assert report["problems"] == sorted(report["problems"])
    assert "\n" not in report["problems"][0][2]


def test_rows_of_one_transfer_add_up_and_currencies_and_transfers_stay_apart() -> None:
    first = StatedPayout(2, "po_1", "USD", 100, None, None)
    other = first._replace(line_number=4, amount_minor=50, paid_at=AT, bank_reference="UTR1")
    told: list[Parsed] = [
        first,
        first._replace(line_number=3, amount_minor=-30),
        other,
        first._replace(currency="EUR"),
        first._replace(currency="XXX"),
        StatedTotal(9, "rows", None, 5, 4),
    ]
    report = _summarised(told).report()
    assert report["payouts"] == [
        [2, "po_1", "USD", 70, None, None],
        [4, "po_1", "USD", 50, AT.isoformat(), "UTR1"],
        [2, "po_1", "EUR", 100, None, None],
    ]
    assert report["totals"] == [[9, "rows", None, 5, 4]]
    assert report["bad_rows"] == 1


def test_payouts_are_bounded() -> None:
    payouts = (StatedPayout(1, f"po_{number}", "USD", 1, None, None) for number in range(MAX_PAYOUTS + 1))
    with pytest.raises(Unreadable, match="payouts"):
        _summarised(payouts)


def test_the_period_is_that_of_lines_about_payments() -> None:
    later, payout = AT + timedelta(days=3), AT + timedelta(days=9)
    report = _summarised(
        [
            A_LINE._replace(occurred_at=later),
            A_LINE._replace(occurred_at=AT),
            A_LINE._replace(kind=LineKind.PAYOUT, occurred_at=payout),
            A_LINE._replace(occurred_at=None),
        ]
    ).report()
    assert (report["covers_from"], report["covers_until"]) == (AT.isoformat(), later.isoformat())


# --- one file, in this process ----------------------------------------------------------------------------------------

STRIPE = Request("stripe")


def _read(content: bytes, request: Request = STRIPE) -> tuple[bytes, dict[str, object]]:
    reading = FileReading(io.BytesIO(content), request)
    return b"".join(reading.rows), reading.report()


def _digest(content: bytes) -> tuple[str, int]:
    seen = inspect(io.BytesIO(content), STRIPE)
    assert seen["format"] == "stripe_payout_reconciliation"
    return seen["content_sha256"], seen["content_bytes"]


def test_the_digest_is_of_the_content_and_not_of_its_wrapping() -> None:
    """RC1."""
    plain = _digest(a_file())
    assert plain[1] == len(a_file())
    assert {_digest(gzipped(a_file())), _digest(zipped({"x.csv": a_file()})), _digest(zipped({"y.txt": a_file()}))} == {
        plain
    }
    assert _digest(a_file(4)) != plain


def test_a_row_that_is_no_utf8_gives_one_problem_and_no_line() -> None:
    """RC3."""
    content = a_table([a_row(1), a_row(2, description="café"), a_row(3)]).replace("é".encode(), b"\xe9")
    rows, report = _read(content)
    assert [row[0] for row in _copied(rows)] == ["2", "4"]
    assert [problem[:2] for problem in report["problems"]] == [[3, "not_utf8"]]  # type: ignore[attr-defined]
    assert (report["rows"], report["lines"], report["bad_rows"]) == (4, 2, 1)


def test_a_workbook_with_several_sheets_of_settlements_is_refused_and_what_is_hidden_is_not_looked_at() -> None:
    """None is left out in silence, and nothing is booked that nobody saw."""
    first, second = list(a_row(1)), list(a_row(2))
    first[3:6] = second[3:6] = [19.99, 0.88, 19.11]  # type: ignore[list-item]
    own, other = [list(HEADER), first], [list(HEADER), second]
    with pytest.raises(Unreadable) as caught:
        _read(a_workbook({"January": own, "February": other}))
    assert caught.value.code == "several_sheets"
    book = openpyxl.load_workbook(io.BytesIO(a_workbook({"Old": other, "Older": other, "January": own})))
    book["Old"].sheet_state, book["Older"].sheet_state = "hidden", "veryHidden"
    buffer = io.BytesIO()
    book.save(buffer)
    rows, _ = _read(buffer.getvalue())
    assert b"ch_00000001" in rows
    assert b"ch_00000002" not in rows


def test_the_sheet_that_a_format_knows_is_read() -> None:
    header, row = list(HEADER), list(a_row(1))
    row[3:6] = [19.99, 0.88, 19.11]  # type: ignore[list-item]
    book = a_workbook({"Cover": [["Dear customer"]], "Lines": [header, row]})
    rows, _ = _read(book)
    (line,) = _copied(rows)
    assert line[4:8] == ["1999", "88", "0", "1911"]


@pytest.mark.parametrize(
    ("request_", "content", "code"),
    [
        (Request("paypal"), a_file(), "wrong_gateway"),
        (Request("stripe"), b"date,amount\n2026-01-02,1.00\n", "format_unknown"),
        (Request("stripe", format_name="no_such_format"), a_file(), "format_unknown"),
        (Request("stripe"), b'{"what": "is this"}', "format_unknown"),
        (Request("stripe"), a_workbook({"Cover": [["Dear customer"]]}), "format_unknown"),
    ],
    ids=["other_gateway", "own_columns", "no_such_format", "json", "workbook"],
)
def test_what_no_format_of_the_gateway_knows_is_refused(request_: Request, content: bytes, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        inspect(io.BytesIO(content), request_)
    assert caught.value.code == code


# --- the child --------------------------------------------------------------------------------------------------------

OPTIONS = ReadingOptions(ReadingLimits(), timeout_seconds=60)
A_FILE = SettlementFile(
    "stf_1",
    "stripe",
    "",
    "stripe_payout_reconciliation",
    1,
    "x.csv",
    "upload",
    "ops",
    1,
    1,
    bytes(32),
    FileStatus.RECEIVED,
    AT,
)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 100_000):
        yield content[at : at + 100_000]


async def _inspected(content: bytes, options: ReadingOptions = OPTIONS) -> str:
    with spooled(content) as raw, pytest.raises(Unreadable) as caught:
        await ChildReader(options).inspect(raw, gateway="stripe", account="", format_name=None)
    return caught.value.code


async def test_the_child_reads_what_is_read_here() -> None:
    content = gzipped(a_table([a_row(1), a_row(2, gross="x"), a_row(3)]))
    rows, expected = _read(content)
    async with ChildReader(OPTIONS).read(A_FILE, _pieces(content)) as reading:
        assert b"".join([piece async for piece in reading.lines]) == rows
        report = reading.report()
    assert (report.rows, report.lines, report.bad_rows) == (4, 2, 1)
    assert [list(problem) for problem in report.problems] == expected["problems"]
    assert report.covers_from == AT.replace(minute=0, second=1)
    with spooled(content) as raw:
        seen = await ChildReader(OPTIONS).inspect(raw, gateway="stripe", account="", format_name=None)
    assert (seen.content_sha256.hex(), seen.content_bytes) == _digest(content)


async def test_a_reader_that_is_killed_in_the_middle_gives_no_report() -> None:
    async with ChildReader(OPTIONS).read(A_FILE, _pieces(a_file(30_000))) as reading:
        piece = await anext(reading.lines)
        assert piece
        reading._child.kill()
        with pytest.raises(ReaderFailed):
            [piece async for piece in reading.lines]
        with pytest.raises(AssertionError):
            reading.report()


async def test_a_reading_that_is_given_up_leaves_no_process() -> None:
    async with ChildReader(OPTIONS).read(A_FILE, _pieces(a_file(30_000))) as reading:
        await anext(reading.lines)
        started = reading._child._process
        assert started.returncode is None
    assert started.returncode == -signal.SIGKILL, "its status is taken, too"


async def test_what_is_wrong_in_the_middle_takes_back_all_rows_before_it() -> None:
    """RC2."""
    content = a_file(30_000) + b'"the quote is not closed'
    async with ChildReader(OPTIONS).read(A_FILE, _pieces(content)) as reading:
        with pytest.raises(Incomplete):
            [piece async for piece in reading.lines]


async def test_reading_has_an_end() -> None:
    with spooled(a_file()) as raw, pytest.raises(ReaderTimedOut):
        await ChildReader(replace(OPTIONS, timeout_seconds=0.01)).inspect(
            raw, gateway="stripe", account="", format_name=None
        )


async def test_time_in_which_its_rows_wait_for_us_is_not_the_childs(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL may be slow; the file is not to blame."""
    loop = asyncio.get_running_loop()
    ahead, real = 0.0, loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    async with ChildReader(OPTIONS).read(A_FILE, _pieces(a_file(30_000))) as reading:
        await anext(reading.lines)
        ahead = 10 * OPTIONS.timeout_seconds
        assert [piece async for piece in reading.lines]
        assert reading.report().lines == 30_000


async def test_a_child_that_says_too_much_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_REPORT_BYTES", 10)
    with spooled(a_file()) as raw, pytest.raises(ReaderFailed):
        await ChildReader(OPTIONS).inspect(raw, gateway="stripe", account="", format_name=None)


async def _refused(content: bytes, options: ReadingOptions) -> Unreadable:
    file = replace(A_FILE, format="stripe_balance_transactions")
    async with ChildReader(options).read(file, _pieces(content)) as reading:
        with pytest.raises(Unreadable) as caught:
            [piece async for piece in reading.lines]
    return caught.value


ITEM = b'{"id": "txn_1", "amount": 1999, "fee": 88, "net": 1911, "currency": "usd", "source": "ch_1"},'
PAGE = b'{"object": "list", "has_more": false, "data": [' + ITEM * 4000


async def test_a_document_that_needs_too_much_memory_is_refused() -> None:
    small = replace(OPTIONS, limits=replace(OPTIONS.limits, memory_bytes=256 * MiB))
    refused = await _refused(PAGE + b"[" * 100_000, small)
    assert (refused.code, "memory" in refused.detail) == ("too_large", True)


@pytest.mark.parametrize("padding", [0, 256 * 1024 - len(PAGE) % (256 * 1024) - 700])
async def test_a_number_of_very_many_digits_is_refused_wherever_it_is(padding: int) -> None:
    """SEC-60: the parser dies of it."""
    content = PAGE + b" " * padding + b'{"id": "txn_2", "amount": ' + b"9" * 100_000 + b"}]}"
    assert (await _refused(content, OPTIONS)).code == "number_too_long"


async def test_a_key_that_comes_twice_is_refused() -> None:
    """SEC-60."""
    refused = await _refused(PAGE + ITEM[:-2] + b', "amount": 5}]}', OPTIONS)
    assert (refused.code, "amount" in refused.detail) == ("json_key_twice", True)
    with pytest.raises(Unreadable) as caught:
        _read(b'{"object": "list", "data": [' + ITEM[:-2] + b', "amount": 5}]}')
    assert caught.value.code == "json_key_twice", "in the head, too"


async def test_an_endless_text_in_a_document_is_refused() -> None:
    refused = await _refused(PAGE + b'{"id": "' + b"x" * 20 * MiB, OPTIONS)
    assert (refused.code, "item 4000" in refused.detail) == ("item_too_large", True)


async def test_a_bomb_is_refused_by_the_child() -> None:
    """RC16."""
    assert await _inspected(a_gzip_bomb()) == "archive_refused"


def test_the_child_may_write_no_file(tmp_path: Path) -> None:
    """RC16."""
    program = (
        "import sys\n"
        "from services.reconciler.settlement_formats.child import _give_up\n"
        "_give_up(2**30, 10)\n"
        "try:\n"
        "    open(sys.argv[1], 'wb', buffering=0).write(b'x')\n"
        "except OSError as error:\n"
        "    print(error.errno)\n"
    )
    command = [sys.executable, "-B", "-c", program, str(tmp_path / "x")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout.strip() == str(errno.EFBIG)
    assert (tmp_path / "x").stat().st_size == 0


async def test_the_child_is_given_the_file_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret@host/db")
    monkeypatch.setattr(process, "CHILD", "tests.support.spying_child")
    with spooled(b"x") as raw, pytest.raises(Unreadable) as caught:
        await ChildReader(OPTIONS).inspect(raw, gateway="stripe", account="", format_name=None)
    assert json.loads(caught.value.detail) == {
        "variables": ["PYTHONPATH", "PYTHONUTF8"],
        "descriptors": [0, 1, 2],
        "directory": "/",
        "session": True,
    }


def _ignores_the_terminal(process_: Path) -> bool:
    ignored = re.search(r"SigIgn:\t([0-9a-f]+)", (process_ / "status").read_text())
    return ignored is not None and bool(int(ignored[1], 16) & 1 << signal.SIGTERM - 1)


async def test_a_reader_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Else it works on for as long as it may, whoever it works for."""
    program = (
        "import json, subprocess, sys\n"
        f"request = {{'task': 'inspect', 'gateway': 'stripe', 'account': '', 'format': None, 'header_map': {{}},"
        f" 'default_currency': None, 'limits': {asdict(OPTIONS.limits)}, 'processor_seconds': 60, 'parent': 0}}\n"
        "import os\n"
        "request['parent'] = os.getpid()\n"
        "child = subprocess.Popen([sys.executable, '-B', '-m', 'services.reconciler.settlement_formats.child',"
        " json.dumps(request)], stdin=open(sys.argv[1], 'rb'), stdout=subprocess.PIPE, stderr=subprocess.PIPE,"
        " start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "input()\n"
    )
    endless = tmp_path / "endless.gz"
    endless.write_bytes(gzipped(b"") * 2_000_000)
    parent = subprocess.Popen(  # noqa: ASYNC220 - it only starts
        [sys.executable, "-B", "-c", program, str(endless)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = Path("/proc") / parent.stdout.readline().strip()
    await until(lambda: _ignores_the_terminal(child), what="the reader has given up what it does not need")
    with parent:
        parent.kill()
    await until(lambda: not is_alive(int(child.name)), what="the end of the reader")


def test_nobody_of_the_same_user_reads_the_memory_of_who_started_the_reader() -> None:
    """Its environment has the database's password."""
    program = (
        "import ctypes\n"
        "from services.reconciler.settlement_formats.isolation import hide_memory\n"
        "hide_memory()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    command = [sys.executable, "-B", "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout == "0\n"


async def test_nothing_stays_in_the_temporary_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with ChildReader(OPTIONS).read(A_FILE, _pieces(a_file())) as reading:
        assert not list(tmp_path.iterdir()), "it has no name even now"  # noqa: ASYNC240 - a directory of this test
        assert [piece async for piece in reading.lines]
