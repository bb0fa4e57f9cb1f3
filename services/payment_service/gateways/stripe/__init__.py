"""Stripe, API version 2026-06-24.dahlia: hosted Checkout Sessions and what follows them. Quirks and sources: stripe.md.

Amounts: integers in Stripe's own minor units, lower-case currency. Keys: ``Idempotency-Key``, kept at least 24 h,
replayed with the first answer. Webhooks: HMAC-SHA256 over timestamp and raw body, verified by webhook_ingest.
"""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.stripe.adapter import Stripe, StripeSettings
from services.payment_service.gateways.stripe.amounts import STRIPE_EXPONENT, to_stripe_minor

DEFINITION = GatewayDefinition(
    facts=Stripe.facts,
    settings=StripeSettings,
    build=lambda settings, tools: Stripe(settings, tools.http),
    sheet=Sheet(
        regions="more than 40 countries, the United Arab Emirates and India (by invitation) among them",
        amounts="integers in its own minor units: ISK and UGX times 100, MGA whole, three-decimal currencies end in 0",
        settlement="itemized payout reconciliation, CSV with decimals in major units and UTC times",
        documented="Stripe's API reference, version 2026-06-24.dahlia",
        unconfirmed=(
            "whether a session says `paid` while its money is only held: with manual capture the intent is asked",
            "whether a capture and its mark in the metadata appear at once: marks beyond what was taken go to a person",
        ),
    ),
)

__all__ = ["DEFINITION", "STRIPE_EXPONENT", "Stripe", "StripeSettings", "to_stripe_minor"]
