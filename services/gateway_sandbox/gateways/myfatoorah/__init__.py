"""MyFatoorah's wire format: invoices with a link or a page, holds, refund requests, the log of webhooks."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta, timezone

from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.myfatoorah.gateway import MyFatoorahSandbox
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.randomness import Randomness

_CURRENCIES = {
    "KWT": "KWD",
    "BHR": "BHD",
    "JOR": "JOD",
    "OMN": "OMR",
    "ARE": "AED",
    "SAU": "SAR",
    "QAT": "QAR",
    "EGY": "EGP",
}


def _build(site: Site) -> SandboxGateway | None:
    secrets = site.secrets("MYFATOORAH_WEBHOOK_SECRET")
    if not secrets:
        return None
    country = (site.text("MYFATOORAH_COUNTRY") or "KWT").upper()
    return MyFatoorahSandbox(
        api_token=site.text("MYFATOORAH_API_TOKEN"),
        webhook_secrets=secrets,
        currency=site.text("MYFATOORAH_BASE_CURRENCY") or _CURRENCIES[country],
        zone=timezone(timedelta(hours=int(site.text("MYFATOORAH_UTC_OFFSET_HOURS") or 3))),
        webhook_version=1 if (site.text("SANDBOX_MYFATOORAH_WEBHOOKS") or "").upper() == "V1" else 2,
        public_base_url=site.public_base_url,
        merchant=site.merchant,
    )


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    """The webhook secret looks like base64, as the real ones do, and is used as text."""
    return {
        "MYFATOORAH_API_TOKEN": base64.urlsafe_b64encode(randomness.token_bytes(48)).decode(),
        "MYFATOORAH_COUNTRY": "KWT",
        "MYFATOORAH_WEBHOOK_SECRET": base64.b64encode(randomness.token_bytes(32)).decode(),
    }


DEFINITION = SandboxDefinition(
    name="myfatoorah",
    build=_build,
    variables=(
        "MYFATOORAH_API_TOKEN",
        "MYFATOORAH_COUNTRY",
        "MYFATOORAH_BASE_CURRENCY",
        "MYFATOORAH_UTC_OFFSET_HOURS",
        "MYFATOORAH_WEBHOOK_SECRET",
        "SANDBOX_MYFATOORAH_WEBHOOKS",
    ),
    secrets=_secrets,
    addresses=lambda address: {"MYFATOORAH_API_BASE": address},
)

__all__ = ["DEFINITION", "MyFatoorahSandbox"]
