"""Razorpay: HMAC-SHA256 over the raw body (schemes.py); the row is in providers.py."""

from __future__ import annotations

from services.webhook_ingest.signatures.providers import RAZORPAY
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.schemes import HmacScheme

# The secret is typed into Razorpay's dashboard by us, and after a change retries keep the old one for a day.
REGISTRATION = Registration(
    "razorpay",
    "RAZORPAY_WEBHOOK_SECRET",
    lambda _values: HmacScheme(RAZORPAY),
    we_choose_the_secret=True,
    summary="HMAC-SHA256 (hex) over the raw body in `X-Razorpay-Signature`",
    not_offered={Trait.TIMESTAMP: "no time is signed; each delivery counts once for ever"},
)
