"""Razorpay's wire format: payment links, orders with the hosted checkout, payments, refunds, disputes."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.gateways.razorpay.gateway import RazorpaySandbox
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    secrets = site.secrets("RAZORPAY_WEBHOOK_SECRET")
    if not secrets:
        return None
    return RazorpaySandbox(
        key_id=site.text("RAZORPAY_KEY_ID"),
        key_secret=site.text("RAZORPAY_KEY_SECRET"),
        webhook_secrets=secrets,
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    return {
        "RAZORPAY_KEY_ID": f"rzp_test_{randomness.token_bytes(7).hex()}",
        "RAZORPAY_KEY_SECRET": randomness.token_bytes(12).hex(),
        "RAZORPAY_WEBHOOK_SECRET": randomness.token_bytes(24).hex(),
    }


DEFINITION = SandboxDefinition(
    name="razorpay",
    build=_build,
    variables=("RAZORPAY_KEY_ID", "RAZORPAY_KEY_SECRET", "RAZORPAY_WEBHOOK_SECRET"),
    secrets=_secrets,
    addresses=lambda address: {"RAZORPAY_API_BASE": address},
)

__all__ = ["DEFINITION", "RazorpaySandbox"]
