"""BillDesk's wire format: orders, transactions and refunds as signed JOSE, and a page that a browser's form opens."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.billdesk import objects
from services.gateway_sandbox.gateways.billdesk.envelope import Envelope
from services.gateway_sandbox.gateways.billdesk.gateway import BillDeskSandbox
from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    signing_keys = site.secrets("BILLDESK_SIGNING_KEY")
    if not signing_keys:
        return None
    envelope = Envelope(
        client_id=site.text("BILLDESK_CLIENT_ID"),
        key_id=site.text("BILLDESK_KEY_ID"),
        signing_keys=tuple(key.encode() for key in signing_keys),
        encryption_keys=tuple(key.encode() for key in site.secrets("BILLDESK_ENCRYPTION_KEY")),
        encrypts=site.text("BILLDESK_SCHEME") == "symmetric",
        randomness=site.randomness,
    )
    return BillDeskSandbox(
        merchant_id=site.text("BILLDESK_MERCHANT_ID"),
        envelope=envelope,
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    """Refunds count as done once they are accepted: a day is long for somebody who tries things out. Which code says
    that one has failed no documentation tells, so it is agreed upon."""
    return {
        "BILLDESK_MERCHANT_ID": f"BDUAT{randomness.token_bytes(3).hex().upper()}",
        "BILLDESK_CLIENT_ID": f"bduat{randomness.token_bytes(4).hex()}",
        "BILLDESK_SIGNING_KEY": randomness.token_bytes(16).hex(),
        "BILLDESK_REFUND_FINAL_AFTER_HOURS": "0",
        "BILLDESK_REFUND_FAILED_CODES": objects.REFUND_FAILED,
    }


DEFINITION = SandboxDefinition(
    name="billdesk",
    build=_build,
    variables=(
        "BILLDESK_MERCHANT_ID",
        "BILLDESK_CLIENT_ID",
        "BILLDESK_SIGNING_KEY",
        "BILLDESK_ENCRYPTION_KEY",
        "BILLDESK_KEY_ID",
        "BILLDESK_SCHEME",
    ),
    secrets=_secrets,
    addresses=lambda address: {"BILLDESK_API_BASE": address},
)

__all__ = ["DEFINITION", "BillDeskSandbox"]
