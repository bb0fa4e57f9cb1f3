"""Tamara's wire format: a checkout that is approved, then authorised, captured, canceled and refunded by calls."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.gateways.tamara import objects
from services.gateway_sandbox.gateways.tamara.gateway import TamaraSandbox
from services.gateway_sandbox.gateways.tamara.wire import as_uuid
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    tokens = site.secrets("TAMARA_NOTIFICATION_TOKEN")
    if not tokens:
        return None
    name, value = site.text("TAMARA_WEBHOOK_HEADER"), site.text("TAMARA_WEBHOOK_HEADER_VALUE")
    return TamaraSandbox(
        api_token=site.text("TAMARA_API_TOKEN"),
        notification_token=tokens[0],
        public_base_url=site.public_base_url,
        merchant=site.merchant,
        own_headers={name: value} if name and value else {},
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    return {
        "TAMARA_API_TOKEN": f"tamara_sandbox_{randomness.token_bytes(32).hex()}",
        "TAMARA_NOTIFICATION_TOKEN": as_uuid(randomness.token_bytes(16).hex()),
        "TAMARA_FAILED_REFUND_WORDS": objects.FAILED_REFUND,
    }


DEFINITION = SandboxDefinition(
    name="tamara",
    build=_build,
    variables=(
        "TAMARA_API_TOKEN",
        "TAMARA_NOTIFICATION_TOKEN",
        "TAMARA_WEBHOOK_HEADER",
        "TAMARA_WEBHOOK_HEADER_VALUE",
    ),
    secrets=_secrets,
    addresses=lambda address: {"TAMARA_API_BASE": address},
)

__all__ = ["DEFINITION", "TamaraSandbox"]
