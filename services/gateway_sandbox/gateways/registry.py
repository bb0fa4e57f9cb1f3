"""Which gateways the sandbox speaks. A gateway is on when the secret that it signs webhooks with is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.gateway_sandbox.domain.signatures import split_secrets
from services.gateway_sandbox.gateways.generic import GenericSandbox
from services.gateway_sandbox.gateways.paypal import PayPalSandbox, new_signing_material
from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.gateways.razorpay import RazorpaySandbox
from services.gateway_sandbox.gateways.stripe import StripeSandbox


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """``credentials`` are the settings named as in design.md §6, in lower case; those not set are absent."""

    credentials: Mapping[str, str]
    public_base_url: str
    merchant: str
    paypal_api_base: str | None = None


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


def _paypal(options: GatewayOptions) -> SandboxGateway | None:
    webhook_ids = split_secrets(options.credentials.get("paypal_webhook_id", ""))
    if not webhook_ids:
        return None
    return PayPalSandbox(
        client_id=options.credentials.get("paypal_client_id"),
        client_secret=options.credentials.get("paypal_client_secret"),
        webhook_id=webhook_ids[0],
        # One process alone may make its own; several have to share what signs.
        signing=options.credentials.get("sandbox_paypal_signing") or new_signing_material().signing,
        public_base_url=options.public_base_url,
        api_base=options.paypal_api_base,
        merchant=options.merchant,
    )


def _razorpay(options: GatewayOptions) -> SandboxGateway | None:
    secrets = split_secrets(options.credentials.get("razorpay_webhook_secret", ""))
    if not secrets:
        return None
    return RazorpaySandbox(
        key_id=options.credentials.get("razorpay_key_id"),
        key_secret=options.credentials.get("razorpay_key_secret"),
        webhook_secrets=secrets,
        public_base_url=options.public_base_url,
        merchant=options.merchant,
    )


BUILDERS: tuple[Callable[[GatewayOptions], SandboxGateway | None], ...] = (_generic, _stripe, _paypal, _razorpay)


def build_gateways(options: GatewayOptions) -> dict[str, SandboxGateway]:
    gateways = (build(options) for build in BUILDERS)
    return {gateway.name: gateway for gateway in gateways if gateway is not None}
