"""Paytm's wire format: orders with a token, a page that a form opens, refunds, the passbook."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.paytm.gateway import PaytmSandbox
from services.gateway_sandbox.gateways.paytm.wire import Wire
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.paytm_checksum import key_of
from shared.randomness import Randomness


def _build(site: Site) -> SandboxGateway | None:
    """Raises ValueError for a key of another length than Paytm's."""
    keys = tuple(map(key_of, site.secrets("PAYTM_MERCHANT_KEY")))
    merchant_id = site.text("PAYTM_MERCHANT_ID")
    if not keys or merchant_id is None:
        return None
    return PaytmSandbox(
        Wire(merchant_id, keys, site.randomness),
        website=site.text("PAYTM_WEBSITE_NAME"),
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    """The order list is on here: whoever tries things out wants to see it work."""
    return {
        "PAYTM_MERCHANT_ID": f"Sandbx{int.from_bytes(randomness.token_bytes(6), 'big') % 10**14:014}",
        "PAYTM_MERCHANT_KEY": randomness.token_bytes(8).hex(),
        "PAYTM_WEBSITE_NAME": "WEBSTAGING",
        "PAYTM_PASSBOOK": "true",
    }


DEFINITION = SandboxDefinition(
    name="paytm",
    build=_build,
    variables=("PAYTM_MERCHANT_ID", "PAYTM_MERCHANT_KEY", "PAYTM_WEBSITE_NAME"),
    secrets=_secrets,
    addresses=lambda address: {"PAYTM_API_BASE": address},
)

__all__ = ["DEFINITION", "PaytmSandbox"]
