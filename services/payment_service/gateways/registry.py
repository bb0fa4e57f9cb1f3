"""The gateways that can be enabled. Adding one: its file, its fact sheet, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.gateways.generic import Generic, GenericSettings
from services.payment_service.gateways.guarded import GuardedAdapter
from services.payment_service.gateways.paypal import PayPal, PayPalSettings
from services.payment_service.gateways.port import GatewayAdapter
from services.payment_service.gateways.razorpay import Razorpay, RazorpaySettings
from services.payment_service.gateways.stripe import Stripe, StripeSettings
from services.payment_service.settings import PaymentSettings
from services.payment_service.use_cases.breakers import Breakers
from shared.http import HttpCaller, HttpClient, build_http_client
from shared.ports import Ports

Build = Callable[[PaymentSettings, HttpCaller], GatewayAdapter | None]
"""Makes an adapter, or None where its credentials are not set: that gateway is not enabled."""


def _stripe(settings: PaymentSettings, http: HttpCaller) -> GatewayAdapter | None:
    if settings.stripe_api_key is None:
        return None
    return Stripe(StripeSettings(settings.stripe_api_key.get_secret_value(), settings.stripe_api_base), http)


def _paypal(settings: PaymentSettings, http: HttpCaller) -> GatewayAdapter | None:
    if settings.paypal_client_id is None or settings.paypal_client_secret is None:
        return None
    secret = settings.paypal_client_secret.get_secret_value()
    return PayPal(PayPalSettings(settings.paypal_client_id, secret, settings.paypal_api_base), http)


def _razorpay(settings: PaymentSettings, http: HttpCaller) -> GatewayAdapter | None:
    if settings.razorpay_key_id is None or settings.razorpay_key_secret is None:
        return None
    secret = settings.razorpay_key_secret.get_secret_value()
    return Razorpay(RazorpaySettings(settings.razorpay_key_id, secret, settings.razorpay_api_base), http)


def _generic(settings: PaymentSettings, http: HttpCaller) -> GatewayAdapter | None:
    if settings.generic_api_base is None:
        return None
    key = settings.generic_api_key.get_secret_value() if settings.generic_api_key else ""
    return Generic(GenericSettings(settings.generic_api_base, key, settings.generic_display_name), http)


REGISTRY: Mapping[str, Build] = {"stripe": _stripe, "generic": _generic, "paypal": _paypal, "razorpay": _razorpay}


@dataclass(frozen=True, slots=True)
class Gateways:
    """The enabled adapters by name, each behind its breakers and over an HTTP pool of its own, so that one cannot
    starve another (failure H15)."""

    adapters: Mapping[str, GatewayAdapter]
    breakers: Breakers
    clients: tuple[HttpClient, ...] = ()

    def get(self, name: str) -> GatewayAdapter:
        """Raises GatewayNotEnabled."""
        try:
            return self.adapters[name]
        except KeyError:
            raise GatewayNotEnabled(f"the gateway {name!r} is not enabled here") from None

    def require_available(self, name: str, operation_class: OperationClass) -> None:
        """Raises GatewayNotEnabled, or GatewayUnavailable while its breaker is open."""
        self.get(name)
        self.breakers.require_available(name, operation_class)

    def __contains__(self, name: str) -> bool:
        return name in self.adapters

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()


def build_gateways(settings: PaymentSettings, ports: Ports, breakers: Breakers) -> Gateways:
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
            adapters[name] = GuardedAdapter(adapter, name, breakers)
    return Gateways(adapters, breakers, tuple(clients))
