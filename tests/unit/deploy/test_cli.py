"""Every command has help, and errors that say what to do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from deploy.catalogue import SERVICES
from deploy.cli.app import app

COMMANDS = [
    [],
    ["dev"],
    ["serve"],
    ["work"],
    ["migrate"],
    ["token"],
    ["events"],
    ["events", "tail"],
    ["events", "dead"],
    ["events", "redrive"],
    ["webhook", "send"],
    ["topology", "apply"],
    ["topology", "show"],
    ["catalogue", "load"],
    ["contracts", "write"],
    ["contracts", "check"],
]
SHARED_KEY = "a-shared-key-of-thirty-two-bytes!!"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """A runner in an empty environment and an empty directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "RABBITMQ_URL", "JWT_SHARED_KEY", "JWT_SIGNING_KEY", "PAYRAIL_DATA", "WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "payrail")
def test_every_command_explains_itself(run: CliRunner, command: list[str]) -> None:
    answer = run.invoke(app, [*command, "--help"])
    assert answer.exit_code == 0
    assert "Usage" in answer.output


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["serve", "no-such-service"], "order-service"),
        (["serve", "order-service"], "DATABASE_URL"),
        (["work", "payment-service"], "DATABASE_URL"),
        (["migrate", "reconciler"], "RECONCILER_DATABASE_URL"),
        (["token"], "JWT_SHARED_KEY"),
        (["events", "tail"], "payrail token"),
        (["webhook", "send", "--case", "nonsense"], "--list"),
        (["webhook", "send"], "WEBHOOK_SECRET"),
        (["catalogue", "load"], "--token"),
        (["topology", "apply", "--rabbitmq-url", "amqp://127.0.0.1:1/"], "RABBITMQ_URL"),
        (["topology", "apply", "--rabbitmq-url", "amqp://x/", "--consumer", "mine"], "type"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_say_what_to_do_and_show_no_traceback(run: CliRunner, command: list[str], hint: str) -> None:
    answer = run.invoke(app, command)
    assert answer.exit_code == 2
    assert hint in answer.output
    assert "Traceback" not in answer.output


def test_a_port_in_use_is_said_before_anything_is_started(run: CliRunner, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run.invoke(app, ["dev", "--port", str(port), "--data", str(tmp_path / "data")])
    assert answer.exit_code == 2
    assert f"make run PORT={port + 1}" in " ".join(answer.output.split())
    assert not (tmp_path / "data").exists()


def test_a_data_directory_that_cannot_be_made_is_said(run: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run.invoke(app, ["dev", "--port", "0", "--data", str(tmp_path / "file" / "data")])
    assert answer.exit_code == 2
    assert "PAYRAIL_DATA" in answer.output


def test_a_token_carries_the_scopes_that_were_asked_for(run: CliRunner) -> None:
    environment = {"PAYRAIL_ENVIRONMENT": "development", "JWT_SHARED_KEY": SHARED_KEY}
    answer = run.invoke(
        app, ["token", "--scope", "payments:read", "--subject", "ann", "--minutes", "5"], env=environment
    )
    assert answer.exit_code == 0, answer.output
    claims = jwt.decode(answer.output.strip(), SHARED_KEY, algorithms=["HS256"], audience="payrail")
    assert (claims["sub"], claims["scope"], claims["exp"] - claims["iat"]) == ("ann", "payments:read", 300)


def test_production_does_not_sign_with_the_development_key(run: CliRunner) -> None:
    answer = run.invoke(app, ["token"], env={"JWT_SHARED_KEY": SHARED_KEY})
    assert answer.exit_code == 2
    assert "production" in answer.output


def test_the_samples_of_webhook_send_are_listed(run: CliRunner) -> None:
    answer = run.invoke(app, ["webhook", "send", "--list"])
    assert {line.partition(":")[0] for line in answer.output.splitlines()} == {"generic", "stripe"}


def test_drifted_contract_documents_are_found(run: CliRunner, tmp_path: Path) -> None:
    assert run.invoke(app, ["contracts", "write", "--directory", str(tmp_path)]).exit_code == 0
    assert run.invoke(app, ["contracts", "check", "--directory", str(tmp_path)]).exit_code == 0
    document = tmp_path / "asyncapi.json"
    document.write_text(json.dumps({**json.loads(document.read_text()), "drifted": True}))
    answer = run.invoke(app, ["contracts", "check", "--directory", str(tmp_path)])
    assert answer.exit_code == 1
    assert "payrail contracts write" in answer.output


def test_every_service_can_be_served_worked_and_migrated() -> None:
    assert set(SERVICES) == {"order-service", "payment-service", "webhook-ingest", "reconciler", "gateway-sandbox"}
