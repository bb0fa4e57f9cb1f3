"""Stripe: Checkout Sessions, PaymentIntents, Refunds and their webhooks, as the fact sheet describes them."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.gateways.stripe.gateway import StripeSandbox
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    secrets = site.secrets("STRIPE_WEBHOOK_SECRET")
    if not secrets:
        return None
    return StripeSandbox(webhook_secrets=secrets, public_base_url=site.public_base_url, merchant=site.merchant)


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    return {
        "STRIPE_API_KEY": f"sk_test_{randomness.token_bytes(16).hex()}",
        "STRIPE_WEBHOOK_SECRET": f"whsec_{randomness.token_bytes(24).hex()}",
    }


DEFINITION = SandboxDefinition(
    name="stripe",
    build=_build,
    variables=("STRIPE_WEBHOOK_SECRET",),
    secrets=_secrets,
    addresses=lambda address: {"STRIPE_API_BASE": address},
)

__all__ = ["DEFINITION", "StripeSandbox"]
