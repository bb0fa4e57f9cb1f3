"""Every variable that webhook_ingest reads.

The gateways' own (``<GATEWAY>_WEBHOOK_SECRET``, ``GENERIC_SIGNATURE_*``, ``PAYPAL_*``) stay a flat mapping that the
signature registry reads, so that a new gateway changes nothing here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from services.webhook_ingest.signatures.registry import registrations
from shared.gateway_variables import read_gateway_variables
from shared.settings import ServiceSettings


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
    webhook_retention_days: int = Field(
        396, ge=1, le=3650, description="days that a delivery's contents are kept: 13 months, for disputes (SEC-53)"
    )
    webhook_reject_retention_days: int = Field(
        7, ge=1, le=90, description="days that refused deliveries are kept (SEC-46)"
    )
    webhook_queue_max_deliveries: int = Field(
        1_500,
        ge=1,
        le=1_000_000,
        description="deliveries that wait for their commit in one process, then 503; it has 2 000 requests at once",
    )
    webhook_queue_max_bytes: int = Field(
        64 * 1024 * 1024, ge=1024 * 1024, description="bytes of them; a tenth of a second's worth at full speed is less"
    )
    webhook_spool_directory: Path | None = Field(
        None,
        description="where deliveries are kept while PostgreSQL is away; not shared between machines. Unset: 503 then",
    )
    webhook_spool_max_bytes: int = Field(
        256 * 1024 * 1024, ge=1024 * 1024, description="bytes on disk, about 150 000 deliveries; beyond them 503"
    )
    gateway_variables: dict[str, str] = Field(
        default_factory=lambda: gateway_variables(os.environ), repr=False, description="as found in the environment"
    )


def gateway_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The gateways' own settings, with ``<NAME>_FILE`` read in (SEC-70). Raises ConfigurationError.

    Only these reach the registry: a database password has no business in a mapping of gateways' settings.
    """
    known = registrations(environ).values()
    return read_gateway_variables(
        environ, lambda name: "WEBHOOK" in name or any(registration.wants(name) for registration in known)
    )
