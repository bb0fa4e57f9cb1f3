"""Every variable that webhook_ingest reads.

The gateways' own (``<GATEWAY>_WEBHOOK_SECRET``, ``GENERIC_SIGNATURE_*``, ``PAYPAL_*``) stay a flat mapping that the
signature registry reads, so that a new gateway changes nothing here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from services.webhook_ingest.signatures.registry import SETTING_PREFIXES
from shared.settings import ConfigurationError, ServiceSettings


class WebhookIngestSettings(ServiceSettings):
    webhook_max_body_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=4 * 1024 * 1024,
        description="bytes; the largest event of any gateway is far below (SEC-2)",
    )
    webhook_failed_verifications_per_minute: int = Field(
        60, ge=1, le=100_000, description="refused deliveries per client address, then 429 (SEC-45)"
    )
    webhook_reject_retention_days: int = Field(
        7, ge=1, le=90, description="days that refused deliveries are kept (SEC-46)"
    )
    gateway_variables: dict[str, str] = Field(
        default_factory=lambda: gateway_variables(os.environ), repr=False, description="as found in the environment"
    )


def gateway_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with ``<NAME>_FILE`` of webhook settings read in (SEC-70). Raises ConfigurationError."""
    values = {name.upper(): value for name, value in environ.items() if _is_webhook_setting(name.upper())}
    for name in [name for name in values if name.endswith("_FILE")]:
        path = Path(values.pop(name))
        try:
            values[name.removesuffix("_FILE")] = path.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{name} cannot be read: {type(error).__name__}") from None
    return values


def _is_webhook_setting(name: str) -> bool:
    # Only these reach the registry: a database password has no business in a mapping of gateways' settings.
    return "WEBHOOK" in name or name.startswith(SETTING_PREFIXES)
