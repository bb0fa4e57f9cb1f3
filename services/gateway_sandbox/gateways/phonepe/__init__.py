"""PhonePe's wire format, v2: tokens, orders that are paid on a page, refunds."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.phonepe.gateway import PhonepeSandbox
from services.gateway_sandbox.gateways.phonepe.tokens import Client
from services.gateway_sandbox.gateways.phonepe.wire import BASE
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    usernames, passwords = site.secrets("PHONEPE_WEBHOOK_USERNAME"), site.secrets("PHONEPE_WEBHOOK_PASSWORD")
    if not usernames or not passwords:
        return None
    client = Client(
        client_id=site.text("PHONEPE_CLIENT_ID"),
        client_secret=site.text("PHONEPE_CLIENT_SECRET"),
        client_version=site.text("PHONEPE_CLIENT_VERSION") or "1",
    )
    return PhonepeSandbox(
        client,
        webhook_credentials=f"{usernames[0]}:{passwords[0]}",
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    """The password has letters and digits, whatever is drawn."""
    return {
        "PHONEPE_CLIENT_ID": f"PAYRAILUAT_{randomness.token_bytes(6).hex()}",
        "PHONEPE_CLIENT_SECRET": randomness.token_bytes(24).hex(),
        "PHONEPE_WEBHOOK_USERNAME": f"payrail_{randomness.token_bytes(4).hex()}",
        "PHONEPE_WEBHOOK_PASSWORD": f"Pw1{randomness.token_bytes(8).hex()}",
    }


DEFINITION = SandboxDefinition(
    name="phonepe",
    build=_build,
    variables=(
        "PHONEPE_CLIENT_ID",
        "PHONEPE_CLIENT_SECRET",
        "PHONEPE_CLIENT_VERSION",
        "PHONEPE_WEBHOOK_USERNAME",
        "PHONEPE_WEBHOOK_PASSWORD",
    ),
    secrets=_secrets,
    addresses=lambda address: {"PHONEPE_API_BASE": address + BASE},
)

__all__ = ["DEFINITION", "PhonepeSandbox"]
