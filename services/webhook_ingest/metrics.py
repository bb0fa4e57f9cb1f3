"""Metrics of this service alone; the labels are gateways and key ids, which configuration bounds."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter

WEBHOOK_KEYS = Counter(
    "payrail_webhook_keys_total",
    "Verified deliveries by the secret that matched: an old one that counts no more can be removed (SEC-43)",
    ["gateway", "key_id"],
    registry=REGISTRY,
)
CARD_NUMBERS = Counter(
    "payrail_webhook_card_numbers_total",
    "Deliveries with a card number in them, cut out before storing",
    ["gateway"],
    registry=REGISTRY,
)
