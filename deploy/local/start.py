"""How ``payrail dev`` and ``make run`` start: PostgreSQL makes its files and starts while Python imports the rest.

Both take a few seconds, and neither needs the other. So nothing heavy is imported at the top of this module.
"""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local.postgres import EmbeddedPostgres, PostgresNotAvailable
from shared.settings import ConfigurationError

SERVICES = Path(__file__).resolve().parents[2] / "services"


def run_dev(*, host: str, port: int, data: Path) -> None:
    """Runs until Ctrl-C or SIGTERM. Raises ConfigurationError."""
    _require_free_port(host, port)
    _make_directory(data)
    postgres = None if os.environ.get("DATABASE_URL") else EmbeddedPostgres(data / "postgres")
    with ThreadPoolExecutor(1, thread_name_prefix="postgres") as beside:
        starting = beside.submit(_start, postgres)
        try:
            from deploy.local.dev import run_everything

            if (complaint := starting.result()) is not None:
                raise ConfigurationError(f"the embedded PostgreSQL does not start: {complaint}") from complaint
            run_everything(host=host, port=port, data=data, postgres=postgres)
        finally:
            starting.exception()  # it has ended, one way or the other
            if postgres is not None:
                postgres.stop()


def _start(postgres: EmbeddedPostgres | None) -> PostgresNotAvailable | None:
    """Every service with migrations has a database of its own name. What went wrong comes back, for the main thread."""
    if postgres is None:
        return None
    try:
        postgres.start()
        postgres.ensure_databases(sorted(path.parents[1].name for path in SERVICES.glob("*/db/migrations")))
    except PostgresNotAvailable as error:
        return error
    return None


def _require_free_port(host: str, port: int) -> None:
    """Said before anything is started, because it is the usual reason why nothing works."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port: make run PORT={port + 1}"
            ) from None


def _make_directory(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the data directory cannot be made: {error}; set PAYRAIL_DATA to another") from None
