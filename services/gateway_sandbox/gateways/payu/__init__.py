"""PayU India's wire format: the signed form, the commands of its API, webhooks with a reverse hash."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.payu.gateway import PayuSandbox
from shared.randomness import Randomness

_KEY, _SALT = "PAYU_MERCHANT_KEY", "PAYU_SALT"
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def _build(site: Site) -> PayuSandbox | None:
    key, salts = site.text(_KEY), site.secrets(_SALT)
    if key is None or not salts:
        return None
    return PayuSandbox(merchant_key=key, salt=salts[0], public_base_url=site.public_base_url, merchant=site.merchant)


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    """With holding money switched on, so that it can be tried out."""
    return {_KEY: _text(randomness, 6), _SALT: _text(randomness, 32), "PAYU_PRE_AUTHORIZE": "1"}


def _text(randomness: Randomness, length: int) -> str:
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in randomness.token_bytes(length))


DEFINITION = SandboxDefinition(
    name="payu",
    build=_build,
    variables=(_KEY, _SALT),
    secrets=_secrets,
    addresses=lambda address: {"PAYU_API_BASE": address, "PAYU_CHECKOUT_BASE": address},
)

__all__ = ["DEFINITION", "PayuSandbox"]
