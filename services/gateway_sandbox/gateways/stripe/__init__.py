"""Stripe: Checkout Sessions, PaymentIntents, Refunds and their webhooks, as the fact sheet describes them."""

from services.gateway_sandbox.gateways.stripe.gateway import StripeSandbox

__all__ = ["StripeSandbox"]
