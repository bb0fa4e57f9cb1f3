"""Every variable the sandbox reads."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import Field

from services.gateway_sandbox.gateways.registry import sandbox_definitions
from shared.gateway_variables import read_gateway_variables
from shared.settings import ServiceSettings


def gateway_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What the gateways here read, with ``<NAME>_FILE`` read in. Accounts are left out: a sandbox plays one of each.

    Raises ConfigurationError.
    """
    known = {variable for definition in sandbox_definitions(environ).values() for variable in definition.variables}
    found = read_gateway_variables(environ, known.__contains__)
    return {name: value for name, value in found.items() if name in known}


class SandboxSettings(ServiceSettings):
    sandbox_enabled: bool | None = Field(
        None, description="unset: on in development, refused in production; false: off; true: on, even in production"
    )
    sandbox_merchant_name: str = Field("Payrail demo shop", description="what the hosted pages call the merchant")
    sandbox_webhook_base_url: str = Field(
        "http://127.0.0.1:8000", description="webhooks go to <this>/api/v1/webhooks/<gateway>"
    )
    sandbox_webhook_urls: dict[str, str] = Field(
        default_factory=dict, description='JSON, a whole URL for a gateway that differs: {"stripe": "http://…"}'
    )
    sandbox_webhook_concurrency: int = Field(16, ge=1, le=200, description="deliveries under way at once")
    sandbox_webhook_timeout_seconds: float = Field(10.0, gt=0, description="how long a gateway waits for our answer")
    sandbox_webhook_wait_multiplier: float = Field(
        1.0, gt=0, description="stretches or shrinks the waits between tries (1, 2, 5, 15, 60, 300 s, …)"
    )
    sandbox_poll_seconds: float = Field(0.5, gt=0, description="looking for due deliveries that no commit announced")

    gateway_variables: dict[str, str] = Field(
        default_factory=lambda: gateway_variables(os.environ),
        repr=False,
        description="the gateways' own settings, named as Payrail's services name them, so that both ends agree",
    )

    def webhook_url(self, gateway: str) -> str:
        base = self.sandbox_webhook_base_url.rstrip("/")
        return self.sandbox_webhook_urls.get(gateway, f"{base}/api/v1/webhooks/{gateway}")

    def is_allowed(self) -> bool:
        """A sandbox next to real money is a way to mark orders paid: production has to ask for it by name."""
        return self.sandbox_enabled if self.sandbox_enabled is not None else self.environment == "development"
