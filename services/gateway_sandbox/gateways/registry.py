"""Which gateways the sandbox speaks. A gateway is on when the secret that it signs webhooks with is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.gateway_sandbox.domain.signatures import split_secrets
from services.gateway_sandbox.gateways.generic import GenericSandbox
from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.gateways.stripe import StripeSandbox


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """``credentials`` are the settings named as in design.md §6, in lower case; those not set are absent."""

    credentials: Mapping[str, str]
    public_base_url: str
    merchant: str


def _stripe(options: GatewayOptions) -> SandboxGateway | None:
    secrets = split_secrets(options.credentials.get("stripe_webhook_secret", ""))
    if not secrets:
        return None
    return StripeSandbox(webhook_secrets=secrets, public_base_url=options.public_base_url, merchant=options.merchant)


def _generic(options: GatewayOptions) -> SandboxGateway | None:
    secrets = split_secrets(options.credentials.get("webhook_secret", ""))
    if not secrets:
        return None
    return GenericSandbox(
        api_key=options.credentials.get("generic_api_key"),
        webhook_secrets=secrets,
        public_base_url=options.public_base_url,
        merchant=options.merchant,
    )


BUILDERS: tuple[Callable[[GatewayOptions], SandboxGateway | None], ...] = (_generic, _stripe)


def build_gateways(options: GatewayOptions) -> dict[str, SandboxGateway]:
    gateways = (build(options) for build in BUILDERS)
    return {gateway.name: gateway for gateway in gateways if gateway is not None}
