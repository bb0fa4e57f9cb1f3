"""Finding gateways outside the repository, and saying what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.webhook_ingest.signatures.registry import registrations
from shared.settings import ConfigurationError

SCHEME = """
from services.webhook_ingest.signatures.providers import STRIPE
from services.webhook_ingest.signatures.registration import Registration
from services.webhook_ingest.signatures.schemes import HmacScheme

REGISTRATION = Registration("{name}", "MINE_WEBHOOK_SECRET", lambda _values: HmacScheme(STRIPE))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def a_plugin(folder: Path, name: str, **modules: str) -> dict[str, str]:
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    for module, text in modules.items():
        (folder / name / f"{module}.py").write_text(text)
    return {"PAYRAIL_PLUGINS": f" {name} ,"}


def test_a_plugins_part_is_found_beside_our_own(folder: Path) -> None:
    found = registrations(a_plugin(folder, "plug_good", scheme=SCHEME.format(name="mine")))
    assert set(found) - set(registrations({})) == {"mine"}


def test_a_plugin_may_leave_a_part_out(folder: Path) -> None:
    environ = a_plugin(folder, "plug_partly", adapter="DEFINITION = None")
    assert set(registrations(environ)) == set(registrations({}))


@pytest.mark.parametrize(
    ("name", "modules", "says"),
    [
        ("plug_thief", {"scheme": SCHEME.format(name="stripe")}, "two gateways are called 'stripe'"),
        ("plug_broken", {"scheme": "import there_is_no_such_module"}, "cannot be imported"),
        ("plug_empty", {"adaptor": ""}, "none of the modules"),
    ],
)
def test_a_plugin_that_cannot_be_used_stops_the_start(
    folder: Path, name: str, modules: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        registrations(a_plugin(folder, name, **modules))


def test_a_plugin_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="PAYRAIL_PLUGINS: nowhere_at_all"):
        registrations({"PAYRAIL_PLUGINS": "nowhere_at_all"})
