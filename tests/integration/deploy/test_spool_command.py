"""``payrail webhook spool`` over what was set aside: listed, stored where it can be, and never lost."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.local.postgres import run_psql
from services.webhook_ingest.db.delivery_rows import Row
from services.webhook_ingest.db.spool import Spool
from tests.support.clock import fake_ports
from tests.unit.webhook_ingest.builders import a_row

KEY = "a-shared-key-of-thirty-two-bytes!!"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def database_url(service_database: Callable[[str], str]) -> str:
    return service_database("webhook_ingest")


@pytest.fixture
def run(database_url: str, directory: Path) -> CliRunner:
    environment = {
        "PAYRAIL_ENVIRONMENT": "development",
        "JWT_SHARED_KEY": KEY,
        "WEBHOOK_SECRET": "generic-hmac-test-secret",
        "WEBHOOK_INGEST_DATABASE_URL": database_url,
        "WEBHOOK_SPOOL_DIRECTORY": str(directory),
        "COLUMNS": "200",
    }
    return CliRunner(env=environment)


def set_aside(directory: Path, rows: list[Row], damaged: list[bytes]) -> Path:
    async def work() -> Path:
        spool = Spool(directory, max_bytes=1 << 20, ports=fake_ports())
        await spool.append([a_row("evt_drained")])
        [segment] = await spool.claim()
        await spool.set_aside(segment, damaged, rows)
        await spool.delete(segment, [])
        await spool.close()
        return segment.path.with_suffix(".aside")

    return asyncio.run(work())


def invoked(run: CliRunner, *options: str) -> tuple[int, list[dict[str, Any]]]:
    result = run.invoke(app, ["webhook", "spool", "--json", *options])
    return result.exit_code, json.loads(result.stdout)["files"]


def stored(url: str) -> int:
    both = "SELECT count(*) FROM webhook_ingest.webhook_deliveries JOIN webhook_ingest.outbox_messages ON subject = id"
    return int(run_psql(url, both))


def test_what_can_be_stored_now_is_and_the_rest_stays(run: CliRunner, directory: Path, database_url: str) -> None:
    rows = [a_row("evt_1"), a_row("evt_bad", event_type="a\x00b"), a_row("evt_2")]
    path = set_aside(directory, rows, [b"not a record"])
    status, [listed] = invoked(run)
    assert (status, listed["file"], listed["damaged"]) == (0, path.name, 1)
    assert [record["delivery_id"] for record in listed["records"]] == [row.id for row in rows]
    assert stored(database_url) == 0, "looking changes nothing"
    status, [done] = invoked(run, "--retry")
    assert (status, done["stored"], done["duplicates"], done["left"]) == (1, 2, 0, 2)
    assert stored(database_url) == 2
    status, [left] = invoked(run)
    assert [record["delivery_id"] for record in left["records"]] == [rows[1].id]
    assert left["damaged"] == 1
    assert b"not a record" in path.read_bytes()


def test_a_file_that_is_empty_then_is_gone_and_doing_it_twice_changes_nothing(
    run: CliRunner, directory: Path, database_url: str
) -> None:
    path = set_aside(directory, [a_row("evt_1")], [])
    before = path.read_bytes()
    assert invoked(run, "--retry")[0] == 0
    assert list(directory.iterdir()) == []
    path.write_bytes(before)  # as if it had been killed between the commit and the deletion
    assert invoked(run, "--retry")[0] == 0
    assert stored(database_url) == 1
    assert "Nothing is set aside" in run.invoke(app, ["webhook", "spool"]).stdout


def test_a_file_that_somebody_else_has_is_left_alone(run: CliRunner, directory: Path, database_url: str) -> None:
    path = set_aside(directory, [a_row("evt_1")], [])
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = run.invoke(app, ["webhook", "spool", "--retry"])
    assert refused.exit_code == 1
    path.with_suffix(".spool").touch()
    again = run.invoke(app, ["webhook", "spool", "--retry"])
    assert again.exit_code == 1
    assert "try again in a minute" in again.stderr
    assert stored(database_url) == 0
    assert path.exists()


def test_without_a_spool_it_says_what_to_set(run: CliRunner, directory: Path) -> None:
    nowhere = run.invoke(app, ["webhook", "spool"])
    assert nowhere.exit_code == 2
    assert "run this on the machine" in nowhere.stderr
    unset = CliRunner(env={**run.env, "WEBHOOK_SPOOL_DIRECTORY": None}).invoke(app, ["webhook", "spool"])
    assert unset.exit_code == 2
    assert "set WEBHOOK_SPOOL_DIRECTORY" in unset.stderr


def test_its_help_says_where_and_what(run: CliRunner) -> None:
    told = run.invoke(app, ["webhook", "spool", "--help"]).stdout
    assert "--retry" in told
    assert ".aside" in told
