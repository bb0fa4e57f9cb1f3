"""`payrail gateway`: what it writes is as good as what we write ourselves, and nothing is ever overwritten."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import gateways
from deploy.cli.app import app
from deploy.cli.gateways import ROOT, enabled_here
from services.gateway_sandbox import gateways as sandboxes
from services.gateway_sandbox.gateways.registry import sandbox_definitions
from services.payment_service import gateways as adapters
from services.payment_service.gateways.catalogue import gateway_definitions
from services.payment_service.gateways.port import Capability
from services.webhook_ingest import signatures
from services.webhook_ingest.signatures.registry import registrations

SHORTEST, LONGEST = "ab", "acme_pay_of_the_west"
LONG_TITLE = "The Honourable Acme Payments of the West"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As much of the repository as the command and the linter want to see."""
    for name in ("pyproject.toml", "tests/ruff.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests" / "conformance").mkdir()
    monkeypatch.setattr(gateways, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(name: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["gateway", "new", name, *options])


def written_in(directory: Path) -> set[str]:
    found = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(directory)) for path in found}


def ruff(directory: Path, *command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "title"), [(SHORTEST, SHORTEST), (LONGEST, LONG_TITLE)])
def test_in_the_repository_every_part_has_its_place(checkout: Path, name: str, title: str) -> None:
    before = written_in(checkout)
    answer = new(name, "--title", title)
    assert answer.exit_code == 0, answer.output
    assert f"pytest tests/conformance -k {name}" in answer.output
    parts = written_in(checkout) - before
    assert parts == {
        f"services/payment_service/gateways/{name}.md",
        f"services/payment_service/gateways/{name}/__init__.py",
        f"services/payment_service/gateways/{name}/adapter.py",
        f"services/webhook_ingest/signatures/{name}.py",
        f"services/gateway_sandbox/gateways/{name}/__init__.py",
        f"services/gateway_sandbox/gateways/{name}/gateway.py",
        f"tests/unit/payment_service/test_{name}_adapter.py",
    }
    for part in parts:
        text = (checkout / part).read_text(encoding="utf-8")
        assert part in answer.output
        assert not any(word in text for word in ("newpay", "NewPay", "NEWPAY", "New Pay", "gateway_template")), part
        if part.endswith(".py"):
            compile(text, part, "exec", dont_inherit=True)
    ruff(checkout, "check")
    ruff(checkout, "format", "--check")


@pytest.fixture
def found_in(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The packages of the repository, as if they had what was written into the other root."""
    packages: list[ModuleType] = [adapters, signatures, sandboxes]
    for package in packages:
        folder = checkout / package.__name__.replace(".", "/")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield
    for module in [module for module in sys.modules if SHORTEST in module.split(".")]:
        del sys.modules[module]
    for package in packages:
        vars(package).pop(SHORTEST, None)


@pytest.mark.usefixtures("found_in")
def test_in_the_repository_it_is_found_by_its_name() -> None:
    assert SHORTEST not in gateway_definitions()
    assert new(SHORTEST).exit_code == 0
    definition = gateway_definitions()[SHORTEST]
    assert definition.required == ("AB_SECRET_KEY",)
    assert registrations()[SHORTEST].secret_variable == "AB_WEBHOOK_SECRET"
    assert sandbox_definitions()[SHORTEST].addresses("https://sandbox.example") == {
        "AB_API_BASE": "https://sandbox.example"
    }
    facts = definition.facts
    assert facts.capabilities | set(facts.not_offered) == set(Capability)
    assert facts.capabilities.isdisjoint(facts.not_offered)


def test_a_plugin_is_a_package_whose_own_tests_pass(tmp_path: Path) -> None:
    answer = new("toy_pay", "--plugin", str(tmp_path))
    assert answer.exit_code == 0, answer.output
    assert "PAYRAIL_PLUGINS=toy_pay" in answer.output
    assert written_in(tmp_path) == {
        f"toy_pay/{name}"
        for name in ("__init__.py", "adapter.py", "facts.md", "sandbox.py", "scheme.py", "test_toy_pay_adapter.py")
    }
    config = str(ROOT / "pyproject.toml")
    ruff(tmp_path, "check", "--config", config)
    ruff(tmp_path, "format", "--check", "--config", config)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(checkout: Path) -> None:
    sheet = checkout / "services/payment_service/gateways/acme.md"
    sheet.parent.mkdir(parents=True)
    sheet.write_text("ours")
    before = written_in(checkout)
    answer = new("acme")
    assert answer.exit_code == 2
    assert "acme.md exists, and nothing is overwritten" in answer.output
    assert (written_in(checkout), sheet.read_text()) == (before, "ours")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Acme", "lower case letters"),
        ("a", "lower case letters"),
        ("acme-pay", "lower case letters"),
        ("9pay", "lower case letters"),
        ("acme__pay", "lower case letters"),
        ("acme_", "lower case letters"),
        ("../acme", "lower case letters"),
        ("a" * 21, "lower case letters"),
        ("class", "no word of Python's"),
        ("stripe", "is taken"),
        ("port", "is taken"),
        ("schemes", "is taken"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_what_to_do(checkout: Path, name: str, says: str) -> None:
    before = written_in(checkout)
    answer = new(name)
    assert answer.exit_code == 2
    assert says in " ".join(answer.output.split())
    assert written_in(checkout) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--title", 'Acme"""'), "--title"),
        (("--title", "Acme\nPay"), "--title"),
        (("--title", "x" * 41), "--title"),
    ],
)
def test_a_title_that_would_spoil_a_text_is_refused(checkout: Path, options: tuple[str, ...], says: str) -> None:
    answer = new("acme", *options)
    assert answer.exit_code == 2
    assert says in answer.output


def test_a_plugin_hides_no_other_package(tmp_path: Path) -> None:
    answer = new("json", "--plugin", str(tmp_path))
    assert answer.exit_code == 2
    assert "a Python package json already" in answer.output
    assert written_in(tmp_path) == set()


def test_without_a_checkout_a_plugin_is_the_way(checkout: Path) -> None:
    (checkout / "tests" / "conformance").rmdir()
    answer = new("acme")
    assert answer.exit_code == 2
    assert "--plugin DIRECTORY" in answer.output


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = new("acme", "--plugin", str(tmp_path / "file"))
    assert answer.exit_code == 2
    assert "cannot be written" in answer.output


def test_the_list_has_every_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    answer = CliRunner().invoke(app, ["gateway", "list"])
    assert answer.exit_code == 0, answer.output
    for name, definition in gateway_definitions().items():
        assert name in answer.output
        assert definition.facts.display_name in answer.output


def test_a_plugin_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYRAIL_PLUGINS", "no_such_gateway")
    answer = CliRunner().invoke(app, ["gateway", "list"])
    assert answer.exit_code == 2
    assert "PAYRAIL_PLUGINS: no_such_gateway cannot be imported" in answer.output


def test_what_is_missing_is_named() -> None:
    tabby, registration = gateway_definitions()["tabby"], registrations()["tabby"]
    needed = dict.fromkeys(tabby.required, "x")
    assert enabled_here(tabby, registration, {}) == f"no; it needs {', '.join(tabby.required)}"
    assert enabled_here(tabby, registration, needed) == f"yes; webhooks need {registration.secret_variable}"
    assert enabled_here(tabby, registration, needed | {registration.secret_variable: "x"}) == "yes"
    of_an_account = {f"{name}__EU_1": "x" for name in (*needed, registration.secret_variable)}
    assert enabled_here(tabby, registration, of_an_account) == "yes (eu_1)"
