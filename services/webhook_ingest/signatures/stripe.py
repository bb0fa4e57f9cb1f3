"""Stripe: HMAC-SHA256 over the time and the raw body (schemes.py); the row is in providers.py."""

from __future__ import annotations

from services.webhook_ingest.signatures.providers import STRIPE
from services.webhook_ingest.signatures.registration import Registration
from services.webhook_ingest.signatures.schemes import HmacScheme

REGISTRATION = Registration(
    "stripe",
    "STRIPE_WEBHOOK_SECRET",
    lambda _values: HmacScheme(STRIPE),
    summary="HMAC-SHA256 (hex) over `<timestamp>.<raw body>` in `Stripe-Signature`; 300 s tolerance",
)
