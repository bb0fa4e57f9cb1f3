"""``payrail webhook spool``: what the spool of webhook-ingest has set aside for a person."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.cli.errors import CommandError, CommandFailed, explained

output = Console(highlight=False, soft_wrap=True)


def spool(
    retry: Annotated[
        bool, typer.Option("--retry", help="store what can be stored now, as a delivery that has just come in")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON")] = False,
) -> None:
    """List deliveries that were acknowledged, and that nothing could bring from the spool into the database.

    They lie in *.aside files of WEBHOOK_SPOOL_DIRECTORY: damaged on the disk, written by another release, or refused
    by PostgreSQL. Run it where that directory is, configured like webhook-ingest. With --retry each record goes through
    the insert that requests use; what is stored, or was there already, leaves its file. Safe beside running processes
    and safe to repeat. Exit status 1: something is still set aside after --retry, or the database is away.
    """
    with explained():
        directory = _directory()
        try:
            with redirect_stdout(sys.stderr):  # for what services log; standard output is for the result
                files = asyncio.run(_retried(directory)) if retry else _listed(directory)
        except OSError as error:
            raise CommandError(
                f"{error.filename or directory} cannot be read ({error.strerror}); run this as webhook-ingest's user"
            ) from None
        if as_json:
            print(json.dumps({"directory": str(directory), "files": files}))
        else:
            _show(files)
        left = sum(each["left"] for each in files) if retry else 0
        if left:
            raise CommandFailed(
                f"{left} records cannot be stored and stay in {directory}. Look at `delivery_not_storable` above for "
                "what PostgreSQL says; have the gateway send those events again, then delete the files"
            )


def _directory() -> Path:
    from services.webhook_ingest.settings import WebhookIngestSettings
    from shared.settings import settings_for

    directory = WebhookIngestSettings.load(**settings_for("webhook_ingest")).webhook_spool_directory
    if directory is None:
        raise CommandError("there is no spool: set WEBHOOK_SPOOL_DIRECTORY to the directory that webhook-ingest has")
    if not directory.is_dir():
        raise CommandError(
            f"WEBHOOK_SPOOL_DIRECTORY {directory} is no directory; run this on the machine whose spool it is"
        )
    return directory


def _listed(directory: Path) -> list[dict[str, Any]]:
    from services.webhook_ingest.db.spool_aside import set_aside

    return [
        {
            "file": aside.path.name,
            "bytes": aside.path.stat().st_size,
            "damaged": len(aside.damaged),
            "records": [
                {
                    "delivery_id": row.id,
                    "gateway": row.gateway,
                    "event_type": row.event_type,
                    "received_at": _moment(row.received_at),
                }
                for row in aside.rows
            ],
        }
        for aside in set_aside(directory)
    ]


def _moment(at: datetime | None) -> str | None:
    """A record of another release may have none."""
    from shared.clock import to_rfc3339

    return None if at is None else to_rfc3339(at)


async def _retried(directory: Path) -> list[dict[str, Any]]:
    from deploy.cli.events import built_service
    from services.webhook_ingest.bootstrap import STATEMENT_TIMEOUT_SECONDS
    from services.webhook_ingest.db.delivery_writer import DeliveryWriter
    from services.webhook_ingest.db.spool_aside import retry, set_aside

    files = []
    async with built_service("webhook-ingest") as container:
        writer = DeliveryWriter(container.database, statement_seconds=STATEMENT_TIMEOUT_SECONDS)
        try:
            for aside in set_aside(directory):
                done = await retry(aside.path, writer)
                files.append(
                    {
                        "file": aside.path.name,
                        "stored": done.stored,
                        "duplicates": done.duplicates,
                        "left": done.left,
                    }
                )
        finally:
            await writer.close()
    return files


def _show(files: list[dict[str, Any]]) -> None:
    if not files:
        output.print("Nothing is set aside.")
        return
    table = Table(*files[0])
    for each in files:
        table.add_row(*(_cell(value) for value in each.values()))
    output.print(table)


def _cell(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    lines = [f"{each['delivery_id']} {each['gateway']} {each['event_type']} {each['received_at']}" for each in value]
    return "\n".join(lines) or "-"
