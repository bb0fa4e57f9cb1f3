"""The deployment files agree with the design: every service in both roles, every path at its service, no secret."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from deploy.catalogue import SERVICES as CATALOGUE
from services.reconciler.api.settlement_routes import PREFIX
from services.reconciler.api.uploads import ENVELOPE_BYTES
from services.reconciler.settings import ReconcilerSettings

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
SERVICES = ["order-service", "payment-service", "webhook-ingest", "reconciler"]

ROUTES = {
    "/api/v1/products": "order-service",
    "/api/v1/products/SKU-1": "order-service",
    "/api/v1/orders": "order-service",
    "/api/v1/orders/ord_1/pay": "order-service",
    "/api/v1/orders/ord_1/stream": "order-service",
    "/api/v1/orders/ord_1/ws": "order-service",
    "/api/v1/orders/ord_1/invoice": "order-service",
    "/api/v1/payments": "payment-service",
    "/api/v1/payments/pay_1/return": "payment-service",
    "/api/v1/payments/pay_1/timeline": "payment-service",
    "/api/v1/captures/cap_1": "payment-service",
    "/api/v1/voids/voi_1": "payment-service",
    "/api/v1/refunds/ref_1": "payment-service",
    "/api/v1/ledger/balances": "payment-service",
    "/api/v1/gateways": "payment-service",
    "/api/v1/gateways/stripe/webhook-registrations": "payment-service",
    "/api/v1/webhooks/stripe": "webhook-ingest",
    "/api/v1/webhooks/stripe/second-account": "webhook-ingest",
    "/api/v1/order-payments/webhooks/payment/": "webhook-ingest",
    "/api/v1/order-payments/webhooks/stripe/": "webhook-ingest",
    "/api/webhooks/payment": "webhook-ingest",
    "/api/v1/webhook-deliveries": "webhook-ingest",
    "/api/v1/webhook-deliveries/whd_1/replay": "webhook-ingest",
    "/api/v1/webhook-replays": "webhook-ingest",
    "/api/v1/webhook-rejects": "webhook-ingest",
    "/api/v1/reconciliation/runs": "reconciler",
    "/api/v1/reconciliation/settlement-files": "reconciler",
    "/api/v1/events": "payment-service",
    "/api/v1/events/order-service": "order-service",
    "/api/v1/events/payment-service": "payment-service",
    "/api/v1/events/webhook-ingest": "webhook-ingest",
    "/api/v1/events/reconciler": "reconciler",
    "/sandbox/stripe/v1/checkout/sessions": "gateway-sandbox",
}
SHARED_PATH = "/api/v1/events"
UNROUTED = ["/", "/metrics", "/readyz", "/docs", "/api/v1/ordersX", "/api/v1", "/api/v1/events/nobody", "/sandboxes"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def nginx() -> str:
    return (DEPLOY / "proxy" / "nginx.conf").read_text()


def service_for(path: str, nginx: str) -> str | None:
    """What nginx's map gives for the path: the first expression that matches."""
    table = re.search(r"map \$uri \$service \{(.*?)\n    \}", nginx, re.DOTALL)
    assert table is not None
    for expression, service in re.findall(r"^\s+~(\S+)\s+([a-z-]+);", table.group(1), re.MULTILINE):
        if re.search(expression, path):
            return str(service)
    return None


@pytest.mark.parametrize(("path", "service"), ROUTES.items())
def test_the_proxy_sends_a_path_to_its_service(path: str, service: str, nginx: str) -> None:
    assert service_for(path, nginx) == service


@pytest.mark.parametrize("path", UNROUTED)
def test_the_proxy_shows_nothing_else(path: str, nginx: str) -> None:
    assert service_for(path, nginx) is None


def documented_paths(service: str) -> list[str]:
    """What the service's OpenAPI document lists, without what every service has."""
    container = MagicMock(checks={})
    container.settings.cors_origins = ()
    return [path for path in CATALOGUE[service].create_application(container).openapi()["paths"] if path != SHARED_PATH]


def embedded_service_for(path: str) -> str | None:
    """What the embedded mode's table gives for the path: the longest prefix that matches."""
    table = ((prefix, name) for name, entry in CATALOGUE.items() for prefix in entry.routes)
    found = [(len(prefix), name) for prefix, name in table if path == prefix or path.startswith(f"{prefix}/")]
    return max(found)[1] if found else None


@pytest.mark.parametrize("service", CATALOGUE)
def test_every_documented_path_is_routed_to_its_service_in_both_modes(service: str, nginx: str) -> None:
    paths = documented_paths(service)
    assert paths
    assert {path: service_for(path, nginx) for path in paths} == dict.fromkeys(paths, service)
    assert {path: embedded_service_for(path) for path in paths} == dict.fromkeys(paths, service)


def test_the_proxy_knows_every_service_of_the_compose_file_that_serves(compose: dict[str, Any], nginx: str) -> None:
    serving = {name for name, service in compose["services"].items() if service.get("command", [""])[0] == "serve"}
    assert serving == {*SERVICES, "gateway-sandbox"} == set(ROUTES.values())


def test_the_proxy_believes_no_forwarded_address_and_resends_no_request(nginx: str) -> None:
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in nginx
    assert "$proxy_add_x_forwarded_for" not in nginx
    assert "proxy_next_upstream off;" in nginx
    assert "proxy_buffering off;" in nginx


def test_a_settlement_file_that_is_taken_gets_through_the_proxy(nginx: str) -> None:
    """Its size, and the time in which it is looked at, are the service's business."""
    location = re.search(rf"location {PREFIX} \{{(.*?)\n        \}}", nginx, re.DOTALL)
    assert location is not None
    numbers = {name: int(number) for name, number in re.findall(r"(\w+) (\d+)[ms];", location.group(1))}
    fields = ReconcilerSettings.model_fields
    assert numbers["client_max_body_size"] * 1024**2 >= fields["settlement_max_bytes"].default + ENVELOPE_BYTES
    longest = fields["settlement_reading_timeout_seconds"].default
    assert min(numbers["proxy_read_timeout"], numbers["proxy_send_timeout"]) >= longest
    assert "proxy_request_buffering off;" in location.group(1), "the proxy has no disk for it"


def test_settlement_files_are_not_kept_in_memory(compose: dict[str, Any]) -> None:
    """What is mounted there belongs to the user that the processes run as: a new volume takes the directory's owner."""
    for name in ("reconciler", "reconciler-worker"):
        service = compose["services"][name]
        (volume,) = (each for each in service["volumes"] if each.startswith("reconciler-spool:"))
        assert service["environment"]["TMPDIR"] == volume.partition(":")[2]
        assert "reconciler-spool" in compose["volumes"]
        assert re.search(
            rf"--owner=10001 --group=10001 --mode=0700 {volume.partition(':')[2]}\n",
            (DEPLOY / "Dockerfile").read_text(),
        )


def test_webhooks_are_spooled_on_a_volume_that_outlives_the_process(compose: dict[str, Any]) -> None:
    """The worker has it too: it brings in what dead server processes left. The directory has to be closed to others."""
    for name in ("webhook-ingest", "webhook-ingest-worker"):
        service = compose["services"][name]
        (volume,) = (each for each in service["volumes"] if each.startswith("webhook-spool:"))
        assert service["environment"]["WEBHOOK_SPOOL_DIRECTORY"] == volume.partition(":")[2]
        assert "webhook-spool" in compose["volumes"]
        assert re.search(
            rf"--owner=10001 --group=10001 --mode=0700 {volume.partition(':')[2]}\n",
            (DEPLOY / "Dockerfile").read_text(),
        )


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_runs_in_both_roles_with_the_same_settings(service: str, compose: dict[str, Any]) -> None:
    serve, work = compose["services"][service], compose["services"][f"{service}-worker"]
    assert serve["command"] == ["serve", service]
    assert work["command"] == ["work", service]
    assert serve["environment"] == work["environment"]
    assert serve["secrets"] == work["secrets"]
    assert f"@postgres/{service.replace('-', '_')}" in serve["environment"]["DATABASE_URL"]
    assert serve["environment"]["RABBITMQ_URL"].startswith("amqp://")
    assert "readyz" in " ".join(serve["healthcheck"]["test"])
    assert serve["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_one_job_makes_schemas_and_topology_before_anything_serves(compose: dict[str, Any]) -> None:
    script = compose["services"]["migrate"]["command"][0].split("\n")
    assert script[:-1] == [*(f"payrail migrate {service}" for service in SERVICES), "payrail topology apply"]
    for name in SERVICES:
        assert f"{name.replace('-', '_').upper()}_DATABASE_URL" in compose["services"]["migrate"]["environment"]


def test_the_process_that_reads_files_has_no_gateways_keys(compose: dict[str, Any]) -> None:
    for name in ("reconciler", "reconciler-worker"):
        assert [each["path"] for each in compose["services"][name]["env_file"]] == ["reconciler.env"]


def test_gateways_settings_and_their_files_reach_every_process_that_uses_them(compose: dict[str, Any]) -> None:
    for service in ("payment-service", "webhook-ingest", "gateway-sandbox"):
        for process in (compose["services"][service], compose["services"][f"{service}-worker"]):
            assert [each["path"] for each in process["env_file"]] == ["gateways.env"]
            secrets = [volume for volume in process["volumes"] if volume.startswith("./secrets")]
            assert secrets == ["./secrets/gateways:/run/gateways:ro"]


def test_what_the_sandbox_signs_with_is_mounted_there_and_nowhere_else(compose: dict[str, Any]) -> None:
    users = {name for name, service in compose["services"].items() if "paypal_signing" in service.get("secrets", [])}
    assert users == {"gateway-sandbox", "gateway-sandbox-worker"}
    for name in users:
        file = compose["services"][name]["environment"]["SANDBOX_PAYPAL_SIGNING_FILE"]
        assert file == "/run/secrets/paypal_signing"


def test_every_sender_signs_commands_with_a_key_of_its_own_that_the_receivers_verify(compose: dict[str, Any]) -> None:
    for role in ("", "-worker"):
        orders, payments, reconciler = (
            compose["services"][f"{name}{role}"]["environment"]
            for name in ("order-service", "payment-service", "reconciler")
        )
        of_orders, of_reconciler = orders["COMMAND_SIGNING_KEY"], reconciler["COMMAND_SIGNING_KEY"]
        assert of_orders != of_reconciler
        assert payments["COMMAND_KEYS"] == f"order_service:{of_orders},reconciler:{of_reconciler}"
        assert orders["COMMAND_KEYS"] == f"reconciler:{of_reconciler}"


def test_the_sandbox_is_only_there_when_asked_for(compose: dict[str, Any]) -> None:
    demo = {name for name, service in compose["services"].items() if service.get("profiles") == ["demo"]}
    assert demo == {"gateway-sandbox-migrate", "gateway-sandbox", "gateway-sandbox-worker"}


def test_no_container_of_ours_runs_with_more_rights_than_it_needs(compose: dict[str, Any]) -> None:
    ours = [s for s in compose["services"].values() if "build" in s or "nginx" in s["image"]]
    assert len(ours) == 13
    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "USER 10001" in dockerfile.split("FROM")[-1]
    assert "--require-hashes" in dockerfile


def test_only_the_proxy_is_reachable_and_only_from_this_machine(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"proxy": ["${PROXY_BIND:-127.0.0.1:8000}:8080"]}


def test_secrets_come_from_the_environment_and_their_absence_stops_the_start(compose: dict[str, Any]) -> None:
    secret = re.compile(r"PASSWORD|_PASS$|SECRET|API_KEY")
    url_with_password = re.compile(r"//[^:/@]+:([^@]+)@")
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]*\}", value), name
            for password in url_with_password.findall(str(value)):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]*\}", password), name


def test_make_secrets_writes_every_variable_that_the_compose_file_demands() -> None:
    demanded = set(re.findall(r"\$\{([A-Z_]+):\?", (DEPLOY / "compose.yaml").read_text()))
    script = (DEPLOY / "make-secrets.sh").read_text()
    for name in demanded:
        assert name in script or name.removesuffix("_PASSWORD") in script, name
    for service in SERVICES:
        assert service in script


@pytest.mark.parametrize(
    "script", ["make-secrets.sh", "local/environment.sh", "postgres/10-databases.sh", "../.ci/run"]
)
def test_scripts_stop_at_the_first_error_and_can_be_run(script: str) -> None:
    path = DEPLOY / script
    assert "set -euo pipefail" in path.read_text()
    assert path.stat().st_mode & stat.S_IXUSR
