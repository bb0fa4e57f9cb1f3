"""Every command has help, and errors that say what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from deploy.catalogue import SERVICES
from deploy.cli import webhooks
from deploy.cli.app import app
from services.payment_service.domain.models import FactKind
from services.payment_service.gateways.razorpay.webhooks import translate
from services.webhook_ingest.signatures.port import RawDelivery
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.values import GatewayValues
from shared.contracts.topology import QUEUES
from shared.money import Money
from shared.ports import system_ports

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
    ["gateway", "new"],
    ["gateway", "list"],
    ["reconcile"],
    *(["reconcile", name] for name in ("file", "run", "cases", "case", "resolve", "report")),
]
SHARED_KEY = "a-shared-key-of-thirty-two-bytes!!"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """A runner in an empty environment and an empty directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "RABBITMQ_URL", "JWT_SHARED_KEY", "JWT_SIGNING_KEY", "PAYRAIL_DATA"):
        monkeypatch.delenv(name, raising=False)
    for gateway in ("", "STRIPE_", "RAZORPAY_"):
        monkeypatch.delenv(f"{gateway}WEBHOOK_SECRET", raising=False)
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
        (["webhook", "send", "--gateway", "razorpay"], "RAZORPAY_WEBHOOK_SECRET"),
        (["webhook", "send", "--gateway", "paypal"], "/sandbox/control/paypal/sessions/"),
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
    assert {line.partition(":")[0] for line in answer.output.splitlines()} == {"generic", "stripe", "razorpay"}


@pytest.mark.parametrize("gateway", webhooks.SAMPLES)
def test_a_sample_is_signed_as_its_gateway_signs_and_says_what_was_asked_for(
    run: CliRunner, monkeypatch: pytest.MonkeyPatch, gateway: str
) -> None:
    sent: list[tuple[str, bytes, Mapping[str, str]]] = []

    async def post(url: str, body: bytes, headers: Mapping[str, str], copies: int) -> None:
        sent.append((url, body, headers))

    monkeypatch.setattr(webhooks, "_post", post)
    secret = "a-secret-of-the-gateway"
    # Another gateway's mistake is not in the way.
    environment = {"PAYPAL_WEBHOOK_ID": "?", "PAYPAL_WEBHOOK_VERIFICATION": "?"}
    for case in webhooks.SAMPLES[gateway]:
        arguments = ["--gateway", gateway, "--case", case, "--reference", "ord_1", "--secret", secret]
        answer = run.invoke(app, ["webhook", "send", *arguments], env=environment)
        assert answer.exit_code == 0, answer.output
    registry = build_registry(GatewayValues({webhooks._SECRETS[gateway]: secret}), production=True)
    for url, body, headers in sent:
        assert url.endswith(f"/api/v1/webhooks/{gateway}")
        delivery = RawDelivery("POST", "/", "", tuple(headers.items()), body)
        now = system_ports().clock.now()
        assert registry[gateway].scheme.verify(delivery, registry[gateway].secrets, now).verified


def test_razorpays_samples_are_read_by_its_adapter(run: CliRunner) -> None:
    sample = webhooks.Sample("evt_1", "ord_1", "pay_1", "12.34", "INR", 1_760_000_000)
    read = {case: translate(json.loads(make(sample))) for case, make in webhooks.SAMPLES["razorpay"].items()}
    assert {case: [each.kind for each in event.observations] for case, event in read.items()} == {
        "succeeded": [FactKind.CAPTURED],
        "authorized": [FactKind.AUTHORIZED],
        "declined": [FactKind.DECLINED],
    }
    assert read["succeeded"].our_references == ("ord_1",)
    assert read["succeeded"].observations[0].amount == Money(1234, "INR")


def test_topology_show_lists_every_queue(run: CliRunner) -> None:
    answer = run.invoke(app, ["topology", "show"])
    assert answer.exit_code == 0, answer.output
    assert "payment_service.commands" in QUEUES
    for name in QUEUES:
        assert name in answer.output


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
