from __future__ import annotations

from pathlib import Path

import pytest

from services.webhook_ingest.settings import gateway_variables
from shared.settings import ConfigurationError


def test_only_webhook_settings_reach_the_registry() -> None:
    environ = {
        "DATABASE_URL": "x",
        "STRIPE_WEBHOOK_SECRET": "a",
        "generic_signature_scheme": "github",
        "STRIPE_API_KEY": "k",
    }
    assert gateway_variables(environ) == {"STRIPE_WEBHOOK_SECRET": "a", "GENERIC_SIGNATURE_SCHEME": "github"}


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("whsec_from_file\n")
    assert gateway_variables({"STRIPE_WEBHOOK_SECRET_FILE": str(path)}) == {"STRIPE_WEBHOOK_SECRET": "whsec_from_file"}


def test_a_secret_file_that_cannot_be_read_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="STRIPE_WEBHOOK_SECRET_FILE"):
        gateway_variables({"STRIPE_WEBHOOK_SECRET_FILE": "/nowhere/at/all"})
