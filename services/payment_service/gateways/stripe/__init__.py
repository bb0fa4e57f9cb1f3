"""Stripe, API version 2026-06-24.dahlia: hosted Checkout Sessions and what follows them. Quirks and sources: stripe.md.

Amounts: integers in Stripe's own minor units, lower-case currency. Keys: ``Idempotency-Key``, kept at least 24 h,
replayed with the first answer. Webhooks: HMAC-SHA256 over timestamp and raw body, verified by webhook_ingest.
"""

from services.payment_service.gateways.stripe.adapter import Stripe, StripeSettings
from services.payment_service.gateways.stripe.amounts import STRIPE_EXPONENT, to_stripe_minor

__all__ = ["STRIPE_EXPONENT", "Stripe", "StripeSettings", "to_stripe_minor"]
