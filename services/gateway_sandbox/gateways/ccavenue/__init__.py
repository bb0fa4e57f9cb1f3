"""CCAvenue's wire format: an encrypted form for the page, an encrypted envelope for the API, encrypted webhooks."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.ccavenue.gateway import CCAvenueSandbox
from services.gateway_sandbox.gateways.ccavenue.wire import Keys
from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.ccavenue_cipher import CCAvenueCipher, Encryption
from shared.randomness import Randomness

_VARIABLES = (
    "CCAVENUE_MERCHANT_ID",
    "CCAVENUE_ACCESS_CODE",
    "CCAVENUE_WORKING_KEY",
    "CCAVENUE_API_ACCESS_CODE",
    "CCAVENUE_API_WORKING_KEY",
    "CCAVENUE_ENCRYPTION",
    "CCAVENUE_MANUAL_CAPTURE",
)


def _build(site: Site) -> SandboxGateway | None:
    working_keys = site.secrets("CCAVENUE_WORKING_KEY")
    if not working_keys:
        return None
    encryption: Encryption = "gcm" if (site.text("CCAVENUE_ENCRYPTION") or "").lower() == "gcm" else "cbc"
    api_keys = site.secrets("CCAVENUE_API_WORKING_KEY") or working_keys
    access_code = site.text("CCAVENUE_ACCESS_CODE")
    return CCAvenueSandbox(
        merchant_id=site.text("CCAVENUE_MERCHANT_ID"),
        page=Keys(access_code, CCAvenueCipher(working_keys[0], encryption), site.randomness),
        api=Keys(
            site.text("CCAVENUE_API_ACCESS_CODE") or access_code,
            CCAvenueCipher(api_keys[0], encryption),
            site.randomness,
        ),
        is_confirmed_by_hand=(site.text("CCAVENUE_MANUAL_CAPTURE") or "").lower() in ("1", "true", "yes", "on"),
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    """An account that leaves confirming to us, so that all there is can be tried out, with a pair of the API's own."""

    def upper(size: int) -> str:
        return randomness.token_bytes(size).hex().upper()

    return {
        "CCAVENUE_MERCHANT_ID": str(1_000_000 + int.from_bytes(randomness.token_bytes(3), "big") % 9_000_000),
        "CCAVENUE_ACCESS_CODE": f"AVTE{upper(7)}",
        "CCAVENUE_WORKING_KEY": upper(16),
        "CCAVENUE_API_ACCESS_CODE": f"AVTA{upper(7)}",
        "CCAVENUE_API_WORKING_KEY": upper(16),
        "CCAVENUE_MANUAL_CAPTURE": "true",
    }


DEFINITION = SandboxDefinition(
    name="ccavenue",
    build=_build,
    variables=_VARIABLES,
    secrets=_secrets,
    addresses=lambda address: {"CCAVENUE_API_BASE": address, "CCAVENUE_CHECKOUT_BASE": address},
)

__all__ = ["DEFINITION", "CCAvenueSandbox"]
