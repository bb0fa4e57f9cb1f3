"""PayPal: Orders v2 and Payments v2. Quirks and sources: ../paypal.md."""

from services.payment_service.gateways.paypal.adapter import PayPal
from services.payment_service.gateways.paypal.client import PayPalSettings

__all__ = ["PayPal", "PayPalSettings"]
