"""Tabby's wire format: checkout sessions, payments with their captures and refunds, disputes."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.gateways.tabby.gateway import TabbySandbox
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    secrets = site.secrets("TABBY_WEBHOOK_SECRET")
    if not secrets:
        return None
    return TabbySandbox(
        secret_key=site.text("TABBY_SECRET_KEY"),
        merchant_code=site.text("TABBY_MERCHANT_CODE"),
        webhook_header=site.text("TABBY_WEBHOOK_HEADER") or "X-Tabby-Auth",
        webhook_secrets=secrets,
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    key = randomness.token_bytes(16).hex()
    return {
        "TABBY_SECRET_KEY": f"sk_test_{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}",
        "TABBY_MERCHANT_CODE": "payrail",
        "TABBY_WEBHOOK_SECRET": f"tabby_wh_{randomness.token_bytes(16).hex()}",
        # Tabby's own disputes have no test mode; the sandbox's have.
        "TABBY_DISPUTES": "true",
    }


DEFINITION = SandboxDefinition(
    name="tabby",
    build=_build,
    variables=("TABBY_SECRET_KEY", "TABBY_MERCHANT_CODE", "TABBY_WEBHOOK_HEADER", "TABBY_WEBHOOK_SECRET"),
    secrets=_secrets,
    addresses=lambda address: {"TABBY_API_BASE": address},
)

__all__ = ["DEFINITION", "TabbySandbox"]
