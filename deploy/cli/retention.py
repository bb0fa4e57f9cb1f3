"""``payrail retention``: delete or empty what is not needed any more, now instead of with the worker's next round."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from deploy.cli.errors import CommandError, explained

console = Console(stderr=True, highlight=False)
output = Console(highlight=False, soft_wrap=True)

SERVICES = ("webhook-ingest", "payment-service", "order-service", "reconciler")


def retention(
    service: Annotated[str, typer.Argument(help=f"{', '.join(SERVICES)}, or all")] = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="count what would go; change nothing")] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, max=10_000, help="rows in one transaction, at most; slow batches make it smaller")
    ] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON")] = False,
) -> None:
    """Prune the tables of one service, or of all: what is older than its *_RETENTION_DAYS.

    Safe beside everything that runs, and safe to stop: it works in small transactions, skips rows that are in use and
    goes on the next time. Workers do the same every RETENTION_INTERVAL_SECONDS. Configured like the services
    themselves. Exit status 1: another process prunes that service now, or its database is away.
    """
    with explained():
        names = _named(service)
        with redirect_stdout(sys.stderr):  # for what services log; standard output is for the result
            results = {name: asyncio.run(_prune(name, batch_size, dry_run=dry_run)) for name in names}
    if as_json:
        print(json.dumps({"dry_run": dry_run, "services": results}))
    else:
        _show(results, dry_run=dry_run)


def _named(service: str) -> Sequence[str]:
    name = service.replace("_", "-")
    if name == "all":
        return SERVICES
    if name not in SERVICES:
        raise CommandError(f"{service!r} keeps nothing that is pruned; there are {', '.join(SERVICES)} and all")
    return (name,)


async def _prune(name: str, batch_size: int, *, dry_run: bool) -> list[dict[str, Any]]:
    from deploy.cli.events import built_service
    from shared.clock import to_rfc3339
    from shared.db.retention import Pace

    pace = replace(Pace(), most_rows=batch_size, rows=min(Pace().rows, batch_size), fewest_rows=min(20, batch_size))
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    async with built_service(name) as container:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(name, total=None)

            def report(done: Any) -> None:
                progress.update(task, description=f"{name} {done.name}: {done.rows} of {done.looked_at} looked at")

            work = container.retention.count if dry_run else container.retention.run
            done = await work(report=report, pace=pace)
    return [
        {
            "table": each.name,
            "rows": each.rows,
            "looked_at": each.looked_at,
            "longest_batch_ms": round(each.longest_batch_seconds * 1000, 1),
            "oldest_kept": to_rfc3339(each.oldest_kept) if each.oldest_kept else None,
        }
        for each in done
    ]


def _show(results: dict[str, list[dict[str, Any]]], *, dry_run: bool) -> None:
    table = Table("service", "table", "oldest kept", "longest transaction")
    table.add_column("would go" if dry_run else "gone", justify="right")
    for name, rows in results.items():
        for each in rows:
            longest = f"{each['longest_batch_ms']} ms"
            table.add_row(name, each["table"], each["oldest_kept"] or "-", longest, str(each["rows"]))
    output.print(table)
