"""Our own hosted-checkout gateway: JSON in and out, amounts as decimal numbers in major units."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.generic.gateway import GenericSandbox
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    secrets = site.secrets("WEBHOOK_SECRET")
    if not secrets:
        return None
    return GenericSandbox(
        api_key=site.text("GENERIC_API_KEY"),
        webhook_secrets=secrets,
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    return {
        "WEBHOOK_SECRET": randomness.token_bytes(24).hex(),
        "GENERIC_API_KEY": f"gk_{randomness.token_bytes(16).hex()}",
    }


DEFINITION = SandboxDefinition(
    name="generic",
    build=_build,
    variables=("WEBHOOK_SECRET", "GENERIC_API_KEY"),
    secrets=_secrets,
    addresses=lambda address: {"GENERIC_API_BASE": address},
)

__all__ = ["DEFINITION", "GenericSandbox"]
