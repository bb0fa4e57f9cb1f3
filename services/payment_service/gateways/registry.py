"""The gateways that can be enabled. Adding one: its file, its fact sheet, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.gateways.generic import Generic, GenericSettings
from services.payment_service.gateways.port import GatewayAdapter
from services.payment_service.gateways.stripe import Stripe, StripeSettings
from services.payment_service.settings import PaymentSettings
from shared.http import HttpCaller, HttpClient, build_http_client
from shared.ports import Ports

Build = Callable[[PaymentSettings, HttpCaller], GatewayAdapter | None]
"""Makes an adapter, or None where its credentials are not set: that gateway is not enabled."""


def _stripe(settings: PaymentSettings, http: HttpCaller) -> GatewayAdapter | None:
    if settings.stripe_api_key is None:
        return None
    return Stripe(StripeSettings(settings.stripe_api_key.get_secret_value(), settings.stripe_api_base), http)


def _generic(settings: PaymentSettings, http: HttpCaller) -> GatewayAdapter | None:
    if settings.generic_api_base is None:
        return None
    key = settings.generic_api_key.get_secret_value() if settings.generic_api_key else ""
    return Generic(GenericSettings(settings.generic_api_base, key, settings.generic_display_name), http)


REGISTRY: Mapping[str, Build] = {"stripe": _stripe, "generic": _generic}


@dataclass(frozen=True, slots=True)
class Gateways:
    """The enabled adapters by name, each over an HTTP pool of its own, so that one cannot starve another (failure
    H15)."""

    adapters: Mapping[str, GatewayAdapter]
    clients: tuple[HttpClient, ...] = ()

    def get(self, name: str) -> GatewayAdapter:
        """Raises GatewayNotEnabled."""
        try:
            return self.adapters[name]
        except KeyError:
            raise GatewayNotEnabled(f"the gateway {name!r} is not enabled here") from None

    def __contains__(self, name: str) -> bool:
        return name in self.adapters

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()


def build_gateways(settings: PaymentSettings, ports: Ports) -> Gateways:
    adapters: dict[str, GatewayAdapter] = {}
    clients: list[HttpClient] = []
    for name, build in REGISTRY.items():
        client = build_http_client(
            ports,
            connect_seconds=settings.gateway_connect_timeout_seconds,
            read_seconds=settings.gateway_read_timeout_seconds,
        )
        clients.append(client)
        adapter = build(settings, HttpCaller(client, ports))
        if adapter is not None:
            adapters[name] = adapter
    return Gateways(adapters, tuple(clients))
