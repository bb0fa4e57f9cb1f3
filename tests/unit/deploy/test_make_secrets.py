"""What make-secrets.sh writes is what the services take: run in a copy, and read by their own settings."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services.gateway_sandbox.gateways.definition import Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.gateways.registry import build_gateways, sandbox_definitions
from services.gateway_sandbox.settings import SandboxSettings
from services.order_service.settings import OrderSettings
from services.payment_service.gateways.catalogue import gateway_definitions
from services.payment_service.settings import PaymentSettings
from services.reconciler.settings import ReconcilerSettings
from services.webhook_ingest.settings import gateway_variables
from services.webhook_ingest.signatures.port import PreparingScheme, RawDelivery, Verification
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller, build_http_client
from tests.support.clock import fake_ports

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SANDBOX = "http://gateway-sandbox:8000/sandbox"
DATABASE = {"DATABASE_URL": "postgresql://u:p@h/d"}
BODY = b'{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED"}'


class Folder:
    """A copy of deploy/ with nothing but the script."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copy(DEPLOY / "make-secrets.sh", path)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(self.path / "make-secrets.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def made(self, *arguments: str) -> Folder:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return self

    def read(self, name: str) -> dict[str, str]:
        lines = (self.path / name).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def everything(self) -> dict[str, str]:
        files = (path for path in self.path.rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path.read_text() for path in files}

    def environment(self, service: str) -> dict[str, str]:
        """gateways.env as that container has it, with what is mounted found where it is here."""
        described = COMPOSE["services"][service]
        variables = {**DATABASE, **self.read("gateways.env")}
        variables |= {name: value for name, value in described["environment"].items() if name.startswith("SANDBOX_")}
        mounts = [volume.split(":")[:2] for volume in described["volumes"]]
        mounts += [(COMPOSE["secrets"][name]["file"], f"/run/secrets/{name}") for name in _plain_secrets(described)]
        for here, there in mounts:
            variables = {
                name: value.replace(there, str(self.path / here)) if name.endswith("_FILE") else value
                for name, value in variables.items()
            }
        return variables


def _plain_secrets(service: dict[str, Any]) -> list[str]:
    return [each for each in service.get("secrets", []) if isinstance(each, str) and each != "jwks"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("deploy")).made("--demo")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def the_sandbox(demo: Folder, service: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, SandboxGateway]:
    with monkeypatch.context() as patch:
        for name, value in demo.environment(service).items():
            patch.setenv(name, value)
        settings = SandboxSettings.load()
    return build_gateways(Site(settings.gateway_variables, "https://pay.example", "shop", fake_ports().randomness))


async def verified(demo: Folder, gateway: str, signed: dict[str, str], web: httpx.MockTransport) -> Verification:
    """What webhook_ingest says to a delivery with these headers."""
    values = GatewayValues(gateway_variables(demo.environment("webhook-ingest")))
    ports = fake_ports(http_transport=web)
    async with build_http_client(ports) as client:
        entry = build_registry(values, production=False, http=HttpCaller(client, ports))[gateway]
        delivery, at = RawDelivery("POST", "/", "", tuple(signed.items()), BODY), datetime.now(UTC)
        scheme = entry.scheme
        if isinstance(scheme, PreparingScheme):
            scheme = await scheme.prepare(delivery, entry.secrets, at)
        return scheme.verify(delivery, entry.secrets, at)


async def test_what_the_sandboxs_worker_signs_ingest_verifies_with_what_the_sandbox_serves(
    demo: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = the_sandbox(demo, "gateway-sandbox-worker", monkeypatch)
    served: Any = the_sandbox(demo, "gateway-sandbox", monkeypatch)["paypal"]

    async def web(request: httpx.Request) -> httpx.Response:
        signer = served._signer
        assert str(request.url) == f"{SANDBOX}/paypal/v1/notifications/certs/{signer.certificate_name}"
        return httpx.Response(200, stream=httpx.ByteStream(signer.chain.encode()))

    assert served._desk.page_base_url == "https://pay.example/sandbox/paypal/checkout"  # browsers know no container
    assert set(worker) == set(sandbox_definitions())
    for name in ("stripe", "generic", "razorpay", "paypal"):  # the others do not sign whatever bytes they are given
        signed = dict(worker[name].sign(BODY, datetime.now(UTC)))
        assert (await verified(demo, name, signed, httpx.MockTransport(web))).verified, name
        assert not (await verified(demo, name, _spoilt(signed), httpx.MockTransport(web))).verified, name


def _spoilt(headers: dict[str, str]) -> dict[str, str]:
    """Signed by nobody: the last of the signature's characters that counts is another."""
    name = next(name for name in headers if name.lower().endswith(("signature", "transmission-sig")))
    return {**headers, name: re.sub(r"[0-9a-zA-Z](?=[^0-9a-zA-Z]*$)", "!", headers[name])}


def test_payment_service_has_every_gateway_of_the_sandbox(demo: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in demo.environment("payment-service").items():
        monkeypatch.setenv(name, value)
    variables = PaymentSettings.load().gateway_variables
    for name, definition in gateway_definitions().items():
        assert set(definition.required) <= set(variables), name
        assert any(value.startswith(f"{SANDBOX}/{name}") for value in variables.values()), name
    assert re.fullmatch(r"rzp_test_[0-9A-Za-z]{14}", variables["RAZORPAY_KEY_ID"])


def test_the_demo_names_every_setting_that_a_gateway_of_the_sandbox_asks_for(demo: Folder) -> None:
    named = set(demo.read("gateways.env")) | {"SANDBOX_PAYPAL_SIGNING"}
    for definition in sandbox_definitions().values():
        asked = set(definition.secrets(fake_ports().randomness)) | set(definition.addresses(SANDBOX))
        assert {name for name in asked if name not in named and f"{name}_FILE" not in named} == set(), definition.name


def test_the_command_keys_are_some_that_both_ends_take(demo: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = demo.read(".env")
    orders, reconciler = made["COMMAND_SIGNING_KEY"], made["RECONCILER_COMMAND_SIGNING_KEY"]
    assert orders != reconciler
    keys = f"order_service:{orders},reconciler:{reconciler}"
    for name, value in {**DATABASE, "COMMAND_SIGNING_KEY": reconciler, "COMMAND_KEYS": keys}.items():
        monkeypatch.setenv(name, value)
    expected = {"order_service": (bytes.fromhex(orders),), "reconciler": (bytes.fromhex(reconciler),)}
    assert PaymentSettings.load().senders == expected
    assert OrderSettings.load().senders == expected
    assert ReconcilerSettings.load().command_key == bytes.fromhex(reconciler)


def test_a_second_run_changes_nothing(demo: Folder) -> None:
    before = demo.everything()
    demo.made("--demo").made()
    assert demo.everything() == before


def test_every_file_that_compose_mounts_is_there_and_the_folder_is_closed(demo: Folder) -> None:
    for secret in COMPOSE["secrets"].values():
        assert (demo.path / secret["file"]).stat().st_mode & stat.S_IROTH, secret
    assert (demo.path / "secrets").stat().st_mode & 0o077 == 0
    assert (demo.path / ".env").stat().st_mode & 0o077 == 0
    assert (demo.path / "gateways.env").stat().st_mode & 0o077 == 0
    # The root's key is forgotten: whoever had it could sign in PayPal's name.
    assert {path.name for path in (demo.path / "secrets" / "gateways").iterdir()} == {"paypal-root.pem"}
    assert not list((demo.path / "secrets").glob("made.*"))
    assert (demo.path / "secrets" / "paypal-signing.pem").read_text().count("PRIVATE KEY-----") == 2


def test_an_older_demo_gets_what_is_missing_and_keeps_what_is_there(folder: Folder) -> None:
    older = (
        f"STRIPE_API_BASE={SANDBOX}/stripe\nSTRIPE_API_KEY=sk_test_kept\nWEBHOOK_SECRET=kept"  # no newline at its end
    )
    (folder.path / "gateways.env").write_text(older)
    (folder.path / ".env").write_text("PAYRAIL_ENVIRONMENT=development")
    settings = folder.made("--demo").read("gateways.env")
    assert (settings["STRIPE_API_KEY"], settings["WEBHOOK_SECRET"]) == ("sk_test_kept", "kept")
    assert settings["STRIPE_WEBHOOK_SECRET"].startswith("whsec_")
    assert {"GENERIC_API_KEY", "PAYPAL_WEBHOOK_ID", "RAZORPAY_KEY_ID"} <= set(settings)
    assert set(folder.read(".env")) == {"PAYRAIL_ENVIRONMENT", "COMMAND_SIGNING_KEY", "RECONCILER_COMMAND_SIGNING_KEY"}


def test_a_gateway_with_settings_of_somebodys_own_is_not_mixed_with_the_sandbox(folder: Folder) -> None:
    own = "PAYPAL_CLIENT_ID=mine\nPAYPAL_CLIENT_SECRET=mine too\n"
    (folder.path / "gateways.env").write_text(own)
    done = folder.run("--demo")
    assert (done.returncode, "PAYPAL" in done.stderr) == (0, True)
    settings = folder.read("gateways.env")
    assert {name for name in settings if name.startswith("PAYPAL_")} == {"PAYPAL_CLIENT_ID", "PAYPAL_CLIENT_SECRET"}
    assert settings["RAZORPAY_API_BASE"] == f"{SANDBOX}/razorpay"


def test_an_installation_that_is_no_demo_is_not_made_one(folder: Folder) -> None:
    before = folder.made().everything()
    done = folder.run("--demo")
    assert done.returncode == 1
    assert "not that of a demo" in done.stderr
    assert folder.everything() == before
    assert not [name for name in before if "paypal" in name or name == "gateways.env"]


def test_signing_material_that_is_half_there_is_made_anew(folder: Folder) -> None:
    signing = folder.made("--demo").path / "secrets" / "paypal-signing.pem"
    root = folder.path / "secrets" / "gateways" / "paypal-root.pem"
    before = root.read_text()
    signing.unlink()
    folder.made("--demo")
    assert root.read_text() != before
    command = ["openssl", "verify", "-CAfile", str(root), str(signing)]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
