"""Metrics of this service alone; the labels are gateways and key ids, which configuration bounds."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge

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
SPOOLED = Counter(
    "payrail_webhook_spooled_total",
    "Deliveries that were acknowledged from the spool, not the database",
    registry=REGISTRY,
)
SPOOL_BYTES = Gauge(
    "payrail_webhook_spool_bytes",
    "Bytes in the spool's directory, whoever's",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
SPOOL_OLDEST_SECONDS = Gauge(
    "payrail_webhook_spool_oldest_seconds", "Age of the oldest segment that is not drained", registry=REGISTRY
)
SPOOL_UNREADABLE = Gauge(
    "payrail_webhook_spool_unreadable",
    "Segments that cannot be opened or read, when it was last tried; the others are brought in",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
SPOOL_SET_ASIDE = Counter(
    "payrail_webhook_spool_set_aside_total",
    "Spooled records that no program can bring in: damaged, or refused by the database; a person has to look",
    registry=REGISTRY,
)
