"""PayPal in the sandbox: Orders v2, Payments v2, disputes, reports and signed webhooks."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.paypal.gateway import PayPalSandbox
from services.gateway_sandbox.gateways.paypal.signing import SigningMaterial, new_signing_material
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    webhook_ids = site.secrets("PAYPAL_WEBHOOK_ID")
    if not webhook_ids:
        return None
    return PayPalSandbox(
        client_id=site.text("PAYPAL_CLIENT_ID"),
        client_secret=site.text("PAYPAL_CLIENT_SECRET"),
        webhook_id=webhook_ids[0],
        # One process alone may make its own; several have to share what signs.
        signing=site.text("SANDBOX_PAYPAL_SIGNING") or new_signing_material().signing,
        public_base_url=site.public_base_url,
        api_base=site.text("PAYPAL_API_BASE"),
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    signing = new_signing_material()
    return {
        "PAYPAL_CLIENT_ID": f"payrail-{randomness.token_bytes(8).hex()}",
        "PAYPAL_CLIENT_SECRET": randomness.token_bytes(24).hex(),
        "PAYPAL_WEBHOOK_ID": randomness.token_bytes(9).hex().upper()[:17],
        "SANDBOX_PAYPAL_SIGNING": signing.signing,
        "PAYPAL_WEBHOOK_CA": signing.root,
    }


DEFINITION = SandboxDefinition(
    name="paypal",
    build=_build,
    variables=(
        "PAYPAL_CLIENT_ID",
        "PAYPAL_CLIENT_SECRET",
        "PAYPAL_WEBHOOK_ID",
        "PAYPAL_API_BASE",
        "SANDBOX_PAYPAL_SIGNING",
    ),
    secrets=_secrets,
    addresses=lambda address: {"PAYPAL_API_BASE": address, "PAYPAL_CERT_HOSTS": address},
)

__all__ = ["DEFINITION", "PayPalSandbox", "SigningMaterial", "new_signing_material"]
