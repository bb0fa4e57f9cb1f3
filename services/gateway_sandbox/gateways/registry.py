"""Which gateways the sandbox speaks: its packages, and the plug-ins' (shared/plugins.py).

A gateway is on when the secret that it signs webhooks with is set.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox import gateways
from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.plugins import parts_of


def sandbox_definitions(environ: Mapping[str, str] | None = None) -> dict[str, SandboxDefinition]:
    """Every gateway that can be played, by name."""
    return parts_of(gateways, "DEFINITION", plugin_module="sandbox", environ=environ)


def build_gateways(site: Site) -> dict[str, SandboxGateway]:
    """Those that are on."""
    built = (definition.build(site) for definition in sandbox_definitions().values())
    return {gateway.name: gateway for gateway in built if gateway is not None}
