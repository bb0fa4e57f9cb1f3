"""``payrail reconcile`` against a reconciler that the test plays: exit statuses, words, JSON, uploads, downloads."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from deploy.cli import reconcile, reconcile_output
from deploy.cli.app import app

RUN_ID, CASE_ID, FILE_ID = f"run_{'0' * 26}", f"case_{'0' * 26}", f"stf_{'0' * 26}"
PREFIX = "/api/v1/reconciliation"


def run(status: str = "completed", **changes: Any) -> dict[str, Any]:
    totals = [{"gateway": "stripe", "currency": "KWD", "matched_minor": 12_500, "unexplained_minor": -1}]
    counts = {"checked": 9, "matched": 8, "failed": 0, "cases_opened": 1, "cases_resolved": 0, "done": 9, "total": 9}
    named = {"run_id": RUN_ID, "kind": "orders", "status": status, "phase": None, "problem": None, "file_id": None}
    return named | counts | {"totals": totals} | changes


def file(status: str = "received", **changes: Any) -> dict[str, Any]:
    counts = {"lines": 10, "repeated_lines": 0, "bad_rows": 0, "duplicate": False}
    named = {"file_id": FILE_ID, "name": "may.csv", "status": status, "gateway": "stripe", "format": "stripe_balance"}
    return named | counts | {"problem": None, "problem_detail": None} | changes


def case(**changes: Any) -> dict[str, Any]:
    about = {"gateway": "stripe", "order_id": None, "payment_id": "pay_1", "file_id": None, "line_number": None}
    amounts = {"currency": "KWD", "expected_minor": 0, "actual_minor": 12_500, "difference_minor": 12_500}
    named = {"case_id": CASE_ID, "scenario": "late_payment", "status": "open", "opened_at": "2026-05-31T00:00:00Z"}
    empty = dict.fromkeys(("payout_reference", "action", "owner", "resolution", "resolved_by", "reason", "request"))
    lists = {"actions": [], "notes": [], "evidence": {"name": "[red]x[/]"}, "age_seconds": 90_000}
    return named | about | amounts | empty | lists | changes


class FakeReconciler:
    """Answers in the order in which answers were given; the last one of a path is repeated."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        self.asked: list[tuple[str, str, dict[str, list[str]], bytes]] = []
        self.tokens: set[str | None] = set()
        self.url = ""

    def says(self, method: str, path: str, *documents: Any, status: int = 200) -> None:
        self.answers[method, f"{PREFIX}/{path}"] = [(status, document) for document in documents]

    def answer(self, method: str, target: str, body: bytes, token: str | None) -> tuple[int, bytes]:
        parts = urlsplit(target)
        self.asked.append((method, parts.path, parse_qs(parts.query), body))
        self.tokens.add(token)
        known = self.answers.get((method, parts.path))
        if known is None:
            return 404, json.dumps({"code": "not_found", "detail": "There is no such object."}).encode()
        status, document = known.pop(0) if len(known) > 1 else known[0]
        return status, document if isinstance(document, bytes) else json.dumps(document).encode()


@pytest.fixture
def reconciler() -> Iterator[FakeReconciler]:
    fake = FakeReconciler()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, content = fake.answer(self.command, self.path, body, self.headers.get("authorization"))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _any  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    fake.says("GET", "cases", {"data": [], "next_cursor": None})
    fake.says("GET", "runs", {"data": [], "next_cursor": None})
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


Cli = Callable[..., Result]


@pytest.fixture
def cli(reconciler: FakeReconciler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reconcile, "POLL_SECONDS", 0.0)
    monkeypatch.delenv("PAYRAIL_DATA", raising=False)
    monkeypatch.setenv("RECONCILER_URL", reconciler.url)
    monkeypatch.setenv("PAYRAIL_TOKEN", "tok")
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["reconcile", *arguments])

    return invoke


def words(result: Result) -> str:
    return " ".join(result.output.split())


def test_a_run_is_waited_for_and_says_what_it_found(reconciler: FakeReconciler, cli: Cli) -> None:
    reconciler.says("POST", "runs", run("running"), status=202)
    reconciler.says("GET", f"runs/{RUN_ID}", run("running", phase="comparing", done=1), run())
    result = cli("run", "orders", "--gateway", "stripe", "--from", "2026-05-01", "--wait")
    assert result.exit_code == 0, result.output
    assert "8 as they should be" in words(result)
    assert "12.500" in result.stdout
    assert "-0.001" in result.stdout
    method, path, _, body = reconciler.asked[0]
    assert (method, path) == ("POST", f"{PREFIX}/runs")
    assert json.loads(body) == {"kind": "orders", "gateway": "stripe", "from": "2026-05-01T00:00:00+00:00"}
    assert reconciler.tokens == {"Bearer tok"}


def test_open_cases_are_exit_status_2(reconciler: FakeReconciler, cli: Cli) -> None:
    reconciler.says("POST", "runs", run("running"), status=202)
    reconciler.says("GET", f"runs/{RUN_ID}", run())
    reconciler.says("GET", "cases", {"data": [case()], "next_cursor": None})
    result = cli("run", "orders", "--wait")
    assert result.exit_code == 2
    assert "1 cases are open: `payrail reconcile cases`" in words(result)
    assert reconciler.asked[-1][2] == {"kind": ["orders"], "unresolved": ["true"], "limit": ["200"]}


def test_a_run_that_failed_is_exit_status_1_and_without_wait_nothing_is_waited_for(
    reconciler: FakeReconciler, cli: Cli
) -> None:
    reconciler.says("POST", "runs", run("running"), status=202)
    assert cli("run", "settlement").exit_code == 0
    assert len(reconciler.asked) == 1
    reconciler.says("GET", f"runs/{RUN_ID}", run("failed", problem="lease_lost"))
    result = cli("run", "settlement", "--wait")
    assert result.exit_code == 1
    assert "it failed: lease_lost" in words(result)


def test_a_file_is_sent_as_it_is_and_waited_for(reconciler: FakeReconciler, cli: Cli, tmp_path: Path) -> None:
    content = bytes(range(256)) * 3_000
    path = tmp_path / 'may "1".csv'
    path.write_bytes(content)
    reconciler.says("POST", "settlement-files", file(), status=201)
    reconciler.says("GET", f"settlement-files/{FILE_ID}", file(), file("read"))
    reconciler.says(
        "GET",
        "runs",
        {"data": [run("running", file_id=FILE_ID)], "next_cursor": None},
        {"data": [run(file_id=FILE_ID)], "next_cursor": None},
    )
    result = cli("file", str(path), "--gateway", "stripe", "--account", "eu", "--format", "stripe_balance", "--wait")
    assert result.exit_code == 0, result.output
    assert "10 lines" in words(result)
    body = reconciler.asked[0][3]
    assert content in body
    assert b'name="file"; filename="may %221%22.csv"' in body
    fields = dict(re.findall(rb'name="(\w+)"\r\n\r\n([^\r]*)\r\n', body))
    assert fields == {b"gateway": b"stripe", b"account": b"eu", b"format": b"stripe_balance"}
    assert reconciler.asked[-1][2]["file_id"] == [FILE_ID]


def test_a_file_that_was_refused_is_exit_status_1(reconciler: FakeReconciler, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("x")
    refused = file("refused", problem="columns_missing", problem_detail="no column Gross", duplicate=True)
    reconciler.says("POST", "settlement-files", refused)
    reconciler.says("GET", f"settlement-files/{FILE_ID}", refused)
    result = cli("file", "x.csv", "--gateway", "stripe", "--wait")
    assert result.exit_code == 1
    assert "columns_missing: no column Gross" in words(result)
    assert "this content was here before" in words(result)


def test_cases_are_listed_over_all_pages(reconciler: FakeReconciler, cli: Cli) -> None:
    first = {"data": [case()] * 200, "next_cursor": CASE_ID}
    reconciler.says("GET", "cases", first, {"data": [case(scenario="unknown_line")], "next_cursor": None})
    result = cli("cases", "--limit", "300", "--json")
    assert len(json.loads(result.stdout)["data"]) == 201
    assert reconciler.asked[0][2] == {"unresolved": ["true"], "limit": ["200"]}
    assert reconciler.asked[1][2]["cursor"] == [CASE_ID]
    reconciler.says("GET", "cases", {"data": [case()], "next_cursor": None})
    table = cli("cases", "--status", "open", "--scenario", "late_payment").stdout
    assert ("+12.500" in table, "1 d" in table, "late_payment" in table) == (True, True, True)
    assert reconciler.asked[-1][2] == {"status": ["open"], "scenario": ["late_payment"], "limit": ["50"]}


def test_a_case_is_shown_with_what_was_said_and_no_markup_of_it_is_obeyed(reconciler: FakeReconciler, cli: Cli) -> None:
    request = {"by": "ann", "action": "refund", "reason": "[bold]r"}
    notes = [{"at": "t", "author": "ann", "text": "[link=evil]asked[/]"}]
    reconciler.says("GET", f"cases/{CASE_ID}", case(request=request, notes=notes, owner="[red]bob"))
    result = cli("case", CASE_ID)
    assert result.exit_code == 0
    for text in ("[link=evil]asked[/]", "[red]bob", "ann asked for refund: [bold]r", "[red]x[/]", "+12.500 KWD"):
        assert text in result.stdout


EVIL = "\\\\[/red]\x1b]0;title\x07\x9b2J\u202e"


def test_the_terminal_obeys_nothing_that_comes_from_outside(
    reconciler: FakeReconciler, cli: Cli, tmp_path: Path
) -> None:
    """Escape sequences, text that is turned round, markup: also with a backslash before it."""
    evil = case(
        payout_reference=EVIL,
        payment_id=None,
        owner=EVIL,
        notes=[{"at": "t", "author": "ann", "text": f"{EVIL}\n2026  bob: agreed"}],
        evidence={"name": EVIL},
        request={"by": EVIL, "action": "refund", "reason": EVIL},
    )
    reconciler.says("GET", f"cases/{CASE_ID}", evil)
    reconciler.says("GET", "cases", {"data": [evil], "next_cursor": None})
    reconciler.says("POST", f"cases/{CASE_ID}/resolve", {"code": "x", "detail": EVIL}, status=422)
    (tmp_path / "x.csv").write_text("x")
    reconciler.says("POST", "settlement-files", file("refused", problem=EVIL, name=EVIL, duplicate=True))
    for arguments in (
        ("case", CASE_ID),
        ("cases",),
        ("resolve", CASE_ID, "--action", "refund", "--reason", "because"),
        ("file", "x.csv", "--gateway", "stripe"),
    ):
        result = cli(*arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*result.output}
        assert "\\\\[/red]\\u001b]0;title\\u0007\\u009b2J\\u202e" in result.output
    assert "\n2026  bob: agreed" not in cli("case", CASE_ID).output, "nobody writes a note in another one's name"


@pytest.mark.parametrize(("width", "is_terminal"), [(80, True), (80, False), (200, True)])
def test_no_id_is_cut_however_narrow_it_is(width: int, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Console(
        width=width, force_terminal=is_terminal, color_system=None, file=io.StringIO(), soft_wrap=True, markup=False
    )
    monkeypatch.setattr(reconcile_output, "output", shown)
    order_id = f"ord_{'1' * 26}"
    reconcile_output.print_cases([case(order_id=order_id, payout_reference="p" * 60)])
    reconcile_output.print_case(case(payout_reference="p" * 100))
    assert isinstance(shown.file, io.StringIO)
    words = shown.file.getvalue()
    assert (words.count(CASE_ID), order_id in words, "…" in words) == (2, True, False)
    assert ("scenario" in words.partition(CASE_ID)[0]) is (width == 200), "a table where there is room for it"


@pytest.mark.parametrize(
    ("status", "resolution", "hint"),
    [
        ("resolved", "accepted", "is resolved: accepted"),
        ("awaiting_approval", None, "a second person has to run the same command"),
        ("open", None, "refund was sent"),
    ],
)
def test_a_decision_says_what_happens_next(
    reconciler: FakeReconciler, cli: Cli, status: str, resolution: str | None, hint: str
) -> None:
    reconciler.says("POST", f"cases/{CASE_ID}/resolve", case(status=status, resolution=resolution))
    result = cli("resolve", CASE_ID, "--action", "refund", "--reason", "because", "--payment", "pay_1")
    assert (result.exit_code, hint in words(result)) == (0, True)
    assert json.loads(reconciler.asked[0][3]) == {"action": "refund", "reason": "because", "payment_id": "pay_1"}


def test_a_report_is_written_whole_or_not_at_all(reconciler: FakeReconciler, cli: Cli, tmp_path: Path) -> None:
    reconciler.says("GET", f"runs/{RUN_ID}/report.csv", b"record\r\n")
    reconciler.says("GET", f"settlement-files/{FILE_ID}/report.html", b"<!doctype html>")
    assert cli("report", RUN_ID).stdout_bytes == b"record\r\n"
    assert cli("report", FILE_ID, "--output", "r.html").exit_code == 0
    assert (tmp_path / "r.html").read_bytes() == b"<!doctype html>"
    result = cli("report", f"run_{'1' * 26}", "--output", "gone.csv")
    assert (result.exit_code, "There is no such object." in words(result)) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert cli("report", RUN_ID, "--output", "nowhere/r.csv").exit_code == 1


@pytest.mark.parametrize(
    ("status", "problem", "hint"),
    [
        (401, {"code": "unauthenticated", "detail": "A token."}, "payrail token --help"),
        (403, {"code": "forbidden", "detail": "No."}, "recon:read and recon:write"),
        (409, {"code": "second_person_needed", "detail": "You asked."}, "somebody else runs the same command"),
        (
            422,
            {
                "code": "invalid_request",
                "detail": "Not understood.",
                "errors": [{"pointer": "/reason", "detail": "short"}],
            },
            "/reason: short",
        ),
        (503, {"code": "database_unavailable", "detail": "The database is not available."}, "The database"),
        (502, b"<html>bad gateway</html>", "--url and RECONCILER_URL"),
    ],
)
def test_errors_say_what_to_do_next(reconciler: FakeReconciler, cli: Cli, status: int, problem: Any, hint: str) -> None:
    reconciler.says("POST", f"cases/{CASE_ID}/resolve", problem, status=status)
    result = cli("resolve", CASE_ID, "--action", "refund", "--reason", "because")
    assert (result.exit_code, hint in words(result)) == (1, True), result.output


def test_where_nothing_answers_and_without_a_token_it_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("cases", "--url", "http://127.0.0.1:9")
    assert (result.exit_code, "RECONCILER_URL" in words(result)) == (1, True)
    assert cli("file", "no-such-file", "--gateway", "stripe").exit_code == 1
    assert "2026-05-31" in words(cli("run", "sweep", "--from", "yesterday"))
    monkeypatch.delenv("PAYRAIL_TOKEN")
    result = cli("cases")
    assert (result.exit_code, "PAYRAIL_TOKEN" in words(result)) == (1, True)
