"""``payrail reconcile``: send settlement files, start runs, look at cases and decide about them, take reports.

Exit status: 0 it is done (and, where a command waited, no case is open); 1 it failed; 2 cases are open.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deploy.cli.errors import CommandFailed, explained
from deploy.cli.plain import plain
from deploy.cli.reconcile_output import print_case, print_cases, print_decided, print_file, print_run

if TYPE_CHECKING:
    from deploy.cli.reconciler_client import ReconcilerClient

app = typer.Typer(help="Settlement files, reconciliation runs, cases and reports.", no_args_is_help=True)
console = Console(stderr=True, highlight=False, markup=False)

EXIT_CASES_OPEN = 2
POLL_SECONDS = 0.5


class RunKindName(StrEnum):
    SWEEP = "sweep"
    SETTLEMENT = "settlement"
    ORDERS = "orders"


class ActionName(StrEnum):
    ACCEPT = "accept"
    MATCH = "match"
    CONFIRM_ORDER = "confirm_order"
    CANCEL_ORDER = "cancel_order"
    REFUND = "refund"
    SYNC = "sync"


class StatusName(StrEnum):
    OPEN = "open"
    AWAITING_APPROVAL = "awaiting_approval"
    RESOLVED = "resolved"


class FormatName(StrEnum):
    CSV = "csv"
    HTML = "html"


Url = Annotated[
    str, typer.Option(envvar="RECONCILER_URL", help="where the reconciler is; by default what `make run` starts")
]
Token = Annotated[
    str | None,
    typer.Option(envvar="PAYRAIL_TOKEN", help="a token with recon:read and recon:write; by default that of `make run`"),
]
AsJson = Annotated[bool, typer.Option("--json", help="the answer as JSON on standard output, for scripts")]
Wait = Annotated[bool, typer.Option("--wait", help="until it has ended; exit status 2 when cases are open then")]
DEFAULT_URL = "http://127.0.0.1:8000"


@app.command("file")
def send_file(
    path: Annotated[Path, typer.Argument(help="CSV, TSV, XLSX or JSON; also packed with gzip or zip")],
    gateway: Annotated[str, typer.Option(help="whose file it is, e.g. stripe")],
    format_: Annotated[str | None, typer.Option("--format", help="by default it is recognised")] = None,
    account: Annotated[str, typer.Option(help="where the gateway has several accounts of ours")] = "",
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Send a settlement file. The same content again, however it is called, is the file that is known."""

    async def command(client: ReconcilerClient) -> int:
        if not path.is_file():
            raise CommandFailed(f"{path} is no file.")
        fields = {"gateway": gateway, "account": account} | ({"format": format_} if format_ else {})
        with _bar(DownloadColumn()) as bar:
            task = bar.add_task("sending", total=path.stat().st_size)
            file = await client.upload(path, fields, told=lambda sent: bar.advance(task, sent))
        if file["duplicate"]:
            console.print(f"this content was here before, as {file['file_id']} ({plain(file['name'])})")
        if wait:
            file = await _wait_for_file(client, file["file_id"])
        _show(file, as_json, lambda: print_file(file))
        if not wait:
            return 0
        if file["status"] in ("refused", "incomplete"):
            return 1
        return await _open_cases(client, file_id=file["file_id"])

    _run(command, url, token)


@app.command("run")
def start_run(
    kind: Annotated[RunKindName, typer.Argument(help="what to compare")],
    gateway: Annotated[str | None, typer.Option(help="by default all")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="a date or an RFC 3339 time, UTC by default")] = None,
    to: Annotated[str | None, typer.Option("--to", help="excluded")] = None,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Start a run, or join the one for the same that works already."""

    async def command(client: ReconcilerClient) -> int:
        wanted = {"kind": kind.value, "gateway": gateway, "from": _moment(from_), "to": _moment(to)}
        run = await client.post("runs", {name: value for name, value in wanted.items() if value is not None})
        if wait:
            run = await _wait_for_run(client, run["run_id"])
        _show(run, as_json, lambda: print_run(run))
        if run["status"] == "failed":
            return 1
        if not wait or kind is RunKindName.SWEEP:
            return 0
        return await _open_cases(client, kind=kind.value, **({"gateway": gateway} if gateway else {}))

    _run(command, url, token)


@app.command("cases")
def list_cases(
    status: Annotated[StatusName | None, typer.Option(help="by default all that are not resolved")] = None,
    scenario: Annotated[str | None, typer.Option(help="e.g. unknown_line")] = None,
    gateway: Annotated[str | None, typer.Option()] = None,
    owner: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List cases, newest first."""

    async def command(client: ReconcilerClient) -> int:
        filters = {"status": status and status.value, "scenario": scenario, "gateway": gateway, "owner": owner}
        wanted = {name: value for name, value in filters.items() if value}
        found = await client.cases(wanted if status else wanted | {"unresolved": "true"}, limit=limit)
        _show({"data": found}, as_json, lambda: print_cases(found))
        return 0

    _run(command, url, token)


@app.command("case")
def show_case(
    case_id: Annotated[str, typer.Argument(help="case_…")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show one case: both sides, what was done, what was said."""

    async def command(client: ReconcilerClient) -> int:
        case = await client.get(f"cases/{case_id}")
        _show(case, as_json, lambda: print_case(case))
        return 0

    _run(command, url, token)


@app.command()
def resolve(
    case_id: Annotated[str, typer.Argument(help="case_…")],
    action: Annotated[ActionName, typer.Option(help="accept explains it; match needs --payment; the others command")],
    reason: Annotated[str, typer.Option(help="kept with the case; no personal data")],
    payment: Annotated[str | None, typer.Option(help="for match: the payment that the line belongs to")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Decide about a case. Moving money takes a second person, who runs the same command with their own token."""

    async def command(client: ReconcilerClient) -> int:
        wanted = {"action": action.value, "reason": reason} | ({"payment_id": payment} if payment else {})
        case = await client.post(f"cases/{case_id}/resolve", wanted)
        _show(case, as_json, lambda: print_decided(case, action))
        return 0

    _run(command, url, token)


@app.command()
def report(
    subject: Annotated[str, typer.Argument(help="a run (run_…) or a settlement file (stf_…)")],
    to_file: Annotated[Path | None, typer.Option("--output", help="by default standard output")] = None,
    format_: Annotated[FormatName | None, typer.Option("--format", help="by default what the file is called")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Take the report of a run or of a settlement file."""

    async def command(client: ReconcilerClient) -> int:
        chosen = format_ or (FormatName.HTML if to_file and to_file.suffix.startswith(".htm") else FormatName.CSV)
        where = "settlement-files" if subject.startswith("stf_") else "runs"
        await _download(client, f"{where}/{subject}/report.{chosen.value}", to_file)
        return 0

    _run(command, url, token)


def _run(command: Callable[[ReconcilerClient], Coroutine[Any, Any, int]], url: str, token: str | None) -> None:
    from deploy.cli.reconciler_client import connected

    async def connect() -> int:
        async with connected(url, token) as client:
            return await command(client)

    with explained():
        status = asyncio.run(connect())
    raise typer.Exit(status)


async def _download(client: ReconcilerClient, path: str, to_file: Path | None) -> None:
    """A report that breaks off leaves no half of itself under the name that was asked for."""
    if to_file is None:
        async for chunk in client.download(path):
            sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
        return
    if not to_file.parent.is_dir():
        raise CommandFailed(f"there is no directory {to_file.parent}.")
    partial = to_file.with_name(f"{to_file.name}.part")
    try:
        with partial.open("wb") as target:
            async for chunk in client.download(path):
                target.write(chunk)
        partial.replace(to_file)
    finally:
        partial.unlink(missing_ok=True)
    console.print(f"written to {to_file}")


async def _wait_for_run(client: ReconcilerClient, run_id: str) -> dict[str, Any]:
    with _bar(TextColumn("{task.completed:.0f}{task.fields[of]}")) as bar:
        task = bar.add_task("waiting", total=None, of="")
        while True:
            run = await client.get(f"runs/{run_id}")
            _advance(bar, task, run)
            if run["status"] != "running":
                return run
            await client.pause(POLL_SECONDS)


async def _wait_for_file(client: ReconcilerClient, file_id: str) -> dict[str, Any]:
    """Until it is read (or refused) and its run has ended."""
    with _bar(TextColumn("{task.completed:.0f}{task.fields[of]}")) as bar:
        task = bar.add_task("waiting for the worker", total=None, of="")
        while True:
            file = await client.get(f"settlement-files/{file_id}")
            run = await client.run_of_file(file_id)
            if run is not None:
                _advance(bar, task, run)
            if file["status"] != "received" and (run is None or run["status"] != "running"):
                return file
            if run is not None and run["status"] == "failed":
                raise CommandFailed(f"its run {run['run_id']} failed: {run['problem']}. It is in the worker's log.")
            await client.pause(POLL_SECONDS)


def _advance(bar: Progress, task: Any, run: dict[str, Any]) -> None:
    total = run.get("total")
    bar.update(
        task,
        description=run.get("phase") or run["status"],
        completed=run.get("done") or 0,
        total=total,
        of=f"/{total}" if total else "",
    )


def _bar(amounts: Any) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        amounts,
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


async def _open_cases(client: ReconcilerClient, **filters: str) -> int:
    found = await client.cases(filters | {"unresolved": "true"}, limit=200)
    if not found:
        console.print("no case is open")
        return 0
    options = "".join(f" --{name} {value}" for name, value in filters.items() if name == "gateway")
    console.print(
        f"{'200 or more' if len(found) == 200 else len(found)} cases are open: `payrail reconcile cases{options}`"
    )
    return EXIT_CASES_OPEN


def _show(document: dict[str, Any], as_json: bool, as_text: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(document))
    else:
        as_text()


def _moment(text: str | None) -> str | None:
    """With its zone: a day begins in UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"{text} is no time: write 2026-05-31 or 2026-05-31T09:30:00Z.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
