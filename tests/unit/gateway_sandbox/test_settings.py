from __future__ import annotations

import pytest

from services.gateway_sandbox.bootstrap import build
from shared.settings import ConfigurationError
from tests.support.clock import fake_ports
from tests.support.gateway_sandbox import sandbox_settings

URL = "postgresql://nobody@127.0.0.1:1/nothing"


async def test_production_refuses_the_sandbox() -> None:
    with pytest.raises(ConfigurationError, match="SANDBOX_ENABLED"):
        async with build(sandbox_settings(URL, environment="production"), ports=fake_ports()):
            raise AssertionError("it was built")


@pytest.mark.parametrize(
    ("environment", "enabled", "allowed"),
    [
        ("production", None, False),
        ("production", True, True),
        ("production", False, False),
        ("development", None, True),
        ("development", False, False),
    ],
)
def test_the_sandbox_runs_in_development_or_by_explicit_wish(
    environment: str, enabled: bool | None, allowed: bool
) -> None:
    settings = sandbox_settings(URL, environment=environment, sandbox_enabled=enabled)
    assert settings.is_allowed() is allowed


async def test_a_gateway_is_on_when_its_webhook_secret_is_set() -> None:
    settings = sandbox_settings(URL, gateway_variables={"WEBHOOK_SECRET": ""})
    async with build(settings, ports=fake_ports()) as container:
        assert set(container.sandbox.gateways) == {"stripe"}


def test_webhooks_go_to_payrail_unless_a_gateway_says_otherwise() -> None:
    settings = sandbox_settings(
        URL, sandbox_webhook_base_url="http://proxy:80/", sandbox_webhook_urls={"stripe": "http://else/hook"}
    )
    assert settings.webhook_url("generic") == "http://proxy:80/api/v1/webhooks/generic"
    assert settings.webhook_url("stripe") == "http://else/hook"
