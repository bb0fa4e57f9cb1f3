"""Every gateway that this installation knows, enabled or not: its packages, and the plug-ins' (shared/plugins.py)."""

from __future__ import annotations

from collections.abc import Mapping

from services.payment_service import gateways
from services.payment_service.gateways.definition import GatewayDefinition
from shared.plugins import parts_of


def gateway_definitions(environ: Mapping[str, str] | None = None) -> dict[str, GatewayDefinition]:
    """By name. Raises ConfigurationError."""
    return parts_of(gateways, "DEFINITION", plugin_module="adapter", environ=environ)
