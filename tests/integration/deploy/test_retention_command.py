"""``payrail retention`` over a service's database, and what migrations build beside traffic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.local.postgres import run_psql
from shared.db.migrations import upgrade

KEY = "a-shared-key-of-thirty-two-bytes!!"


@pytest.fixture
def database_url(service_database: Callable[[str], str]) -> str:
    return service_database("order_service")


@pytest.fixture
def run(database_url: str) -> CliRunner:
    environment = {
        "PAYRAIL_ENVIRONMENT": "development",
        "JWT_SHARED_KEY": KEY,
        "ORDER_SERVICE_DATABASE_URL": database_url,
        "COLUMNS": "200",
    }
    return CliRunner(env=environment)


def fill(url: str, count: int) -> None:
    run_psql(
        url,
        "INSERT INTO order_service.outbox_messages"
        " (message_id, type, subject, sequence, body, created_at, published_at)"
        " SELECT 'evt_' || n, 't', 's' || n, 1, '{}', now() - interval '40 days', now() - interval '40 days'"
        f" FROM generate_series(1, {count}) AS n",
    )


def stored(url: str) -> int:
    return int(run_psql(url, "SELECT count(*) FROM order_service.outbox_messages"))


def test_a_dry_run_counts_then_the_command_prunes_and_says_so(run: CliRunner, database_url: str) -> None:
    fill(database_url, 300)
    counted = run.invoke(app, ["retention", "order-service", "--dry-run", "--json"])
    assert counted.exit_code == 0, counted.output
    assert stored(database_url) == 300
    [table] = [
        each for each in json.loads(counted.stdout)["services"]["order-service"] if each["table"] == "outbox_messages"
    ]
    assert table["rows"] == 300
    done = run.invoke(app, ["retention", "order_service", "--batch-size", "100"])
    assert done.exit_code == 0, done.output
    assert "300" in done.output
    assert stored(database_url) == 0


def test_while_another_process_prunes_the_command_says_so_and_fails(run: CliRunner, database_url: str) -> None:
    run_psql(
        database_url,
        "INSERT INTO order_service.leases VALUES ('retention', 'a worker', 1, now() + interval '1 minute')",
    )
    refused = run.invoke(app, ["retention", "order-service"])
    assert refused.exit_code == 1
    assert "Another process is pruning" in refused.output


@pytest.mark.parametrize("name", ["gateway-sandbox", "nobody"])
def test_a_service_that_keeps_nothing_is_an_error_of_usage(run: CliRunner, name: str) -> None:
    assert run.invoke(app, ["retention", name]).exit_code == 2


def test_an_index_that_was_left_half_built_is_built_again(create_database: Callable[[], str]) -> None:
    url = create_database()
    asyncio.run(upgrade("reconciler", url))
    name = "ix_watched_payments_dropped"
    run_psql(url, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'reconciler.{name}'::regclass")
    asyncio.run(upgrade("reconciler", url))
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'reconciler.%s'::regclass"
    assert run_psql(url, valid % name).strip() == "t"
    run_psql(url, f"DROP INDEX reconciler.{name}")
    asyncio.run(upgrade("reconciler", url))
    assert run_psql(url, valid % name).strip() == "t"
