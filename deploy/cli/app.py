"""The command tree. Heavy modules are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.cli import catalogue, contracts, events, gateways, reconcile, retention, tokens, topology, webhooks
from deploy.cli.errors import CommandError, explained

app = typer.Typer(
    name="payrail",
    help="Payrail: orders, payments, webhooks and reconciliation over RabbitMQ and PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(events.app, name="events")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(topology.app, name="topology")
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(contracts.app, name="contracts")
app.add_typer(gateways.app, name="gateway")
app.add_typer(reconcile.app, name="reconcile")
app.command("token")(tokens.token)
app.command("retention")(retention.retention)

console = Console(stderr=True)

ServiceName = Annotated[
    str,
    typer.Argument(
        help="order-service, payment-service, webhook-ingest, reconciler or gateway-sandbox", show_default=False
    ),
]


@app.command()
def dev(
    port: Annotated[int, typer.Option(envvar="PORT", help="where everything listens", min=0, max=65535)] = 8000,
    data: Annotated[Path, typer.Option(envvar="PAYRAIL_DATA", help="PostgreSQL's files, secrets and tokens")] = Path(
        ".payrail"
    ),
    host: Annotated[str, typer.Option(envvar="HOST", help="the address to listen on")] = "127.0.0.1",
) -> None:
    """Run everything in one process on one port: services, storefront, sandbox gateways, embedded PostgreSQL.

    This is what `make run` calls. Ctrl-C stops it; killing it loses nothing.
    """
    from deploy.local.start import run_dev

    with explained():
        run_dev(host=host, port=port, data=data.resolve())


@app.command()
def serve(
    service: ServiceName,
    host: Annotated[str, typer.Option(envvar="HOST", help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="PORT", help="the port to listen on", min=0, max=65535)] = 8000,
    processes: Annotated[
        int,
        typer.Option(
            envvar="PROCESSES",
            help="server processes on the same port: about one for each core; with more than one, a parent starts "
            "again what dies, and one scrape of /metrics counts all of them",
            min=1,
            max=64,
        ),
    ] = 1,
) -> None:
    """Run the HTTP process of one service. Configured by the environment; see the service's settings.py.

    Each process has its own database connections (DATABASE_POOL_SIZE) and its own share of the rate limits.
    """
    if processes > 1 and "PAYRAIL_SERVER_PROCESS" not in os.environ:
        _supervise(service, host=host, port=port, count=processes)
        return
    import shared.metrics  # noqa: F401 - before any metric is made: it decides where they are kept
    from deploy.running import run_event_loop, serve_service

    with explained():
        run_event_loop(serve_service(_entry(service), host=host, port=port))


def _supervise(service: str, *, host: str, port: int, count: int) -> None:
    """The parent imports no service: it stays small, and a mistake in the settings is the children's to tell."""
    from deploy.supervisor import Supervisor, listening_socket
    from shared.clock import SystemClock
    from shared.logging import configure_logging

    with explained():
        configure_logging(
            level=os.environ.get("LOG_LEVEL", "info").lower(),
            log_format=os.environ.get("LOG_FORMAT", "json"),
            service=service.replace("-", "_"),
        )
        listening = listening_socket(host, port)
    command = [sys.executable, "-m", "deploy.cli", "serve", service]

    async def run() -> int:
        return await Supervisor(command, count=count, listening=listening, clock=SystemClock()).run()

    status = asyncio.run(run())
    if status:
        raise typer.Exit(status)


@app.command()
def work(service: ServiceName) -> None:
    """Run the worker of one service: its consumers, its outbox relay and its sweepers."""
    from deploy.running import run_event_loop, work_service

    with explained():
        run_event_loop(work_service(_entry(service)))


@app.command()
def migrate(
    service: Annotated[str, typer.Argument(help="a service, or all", show_default=True)] = "all",
    finish: Annotated[
        bool,
        typer.Option("--finish", help="drop what only the release before needs; none of its processes runs any more"),
    ] = False,
) -> None:
    """Bring a service's schema to its newest revision. Safe to repeat and to run from several places at once."""
    from deploy.catalogue import SERVICES
    from shared.db.migrations import upgrade
    from shared.settings import settings_for

    with explained():
        for entry in SERVICES.values() if service == "all" else [_entry(service)]:
            url = settings_for(entry.package).get("database_url") or _database_url_from_environment()
            if not url:
                raise CommandError(
                    f"set {entry.package.upper()}_DATABASE_URL or DATABASE_URL, e.g. postgresql://user:password@host/database"
                )
            with console.status(f"migrating {entry.name}"):
                revision = asyncio.run(upgrade(entry.package, url, finish=finish))
            console.print(f"{entry.name}: at revision {revision}")


def _database_url_from_environment() -> str | None:
    path = os.environ.get("DATABASE_URL_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else os.environ.get("DATABASE_URL")


def _entry(name: str):  # type: ignore[no-untyped-def]
    from deploy.catalogue import SERVICES

    found = SERVICES.get(name.replace("_", "-"))
    if found is None:
        raise CommandError(f"there is no service {name!r}; there are {', '.join(SERVICES)}")
    return found


def main() -> None:
    app()
