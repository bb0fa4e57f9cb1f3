"""Verify a delivery, and make it durable with its event before anybody is told that it was accepted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import structlog

from services.webhook_ingest.domain.errors import (
    MalformedDelivery,
    SignatureInvalid,
    SignatureMissing,
    TimestampOutOfTolerance,
    UnknownGateway,
)
from services.webhook_ingest.domain.models import Arrival, Delivery, dedupe_key
from services.webhook_ingest.domain.sanitizing import safe_headers, safe_query, safe_text, without_card_numbers
from services.webhook_ingest.metrics import CARD_NUMBERS, WEBHOOK_KEYS
from services.webhook_ingest.signatures.port import PreparingScheme, Refusal, Verification
from services.webhook_ingest.signatures.registration import IngestGateway
from services.webhook_ingest.use_cases.ports import AppendResult, DeliveryStore
from shared.errors import DomainError
from shared.metrics import WEBHOOKS, series
from shared.ports import Ports

log = structlog.get_logger()

_ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,64}")

_REFUSALS: Mapping[Refusal, type[DomainError]] = {
    Refusal.SIGNATURE_MISSING: SignatureMissing,
    Refusal.TIMESTAMP_OUT_OF_TOLERANCE: TimestampOutOfTolerance,  # it tells a forger nothing: the signature matched
}


def find_gateway(gateways: Mapping[str, IngestGateway], name: str, account: str | None) -> IngestGateway:
    """As the account has it. Raises UnknownGateway for one that is not enabled, and an account that is not ours."""
    gateway = gateways.get(name)
    is_well_formed = account is None or _ACCOUNT.fullmatch(account) is not None
    found = gateway.for_account(account) if gateway is not None and is_well_formed else None
    if found is None:
        raise UnknownGateway
    return found


def is_prepared(gateway: IngestGateway, arrival: Arrival) -> bool:
    """Whether this delivery can be verified as it is, without ``prepare_gateway``; so it is for most gateways."""
    return not _prepares(type(gateway.scheme)) or not arrival.raw.body


async def prepare_gateway(arrival: Arrival, gateway: IngestGateway) -> IngestGateway:
    """The gateway with whatever verifying this delivery takes. Raises EvidenceUnavailable."""
    scheme = gateway.scheme
    assert isinstance(scheme, PreparingScheme)
    return replace(gateway, scheme=await scheme.prepare(arrival.raw, gateway.secrets, arrival.received_at))


@cache
def _prepares(scheme: type) -> bool:
    """Asked once of each class: looking whether an object has a Protocol's methods takes as long as a signature."""
    return issubclass(scheme, PreparingScheme)


def verify_delivery(arrival: Arrival, gateway: IngestGateway) -> Verification:
    """Raises MalformedDelivery, SignatureMissing, SignatureInvalid or TimestampOutOfTolerance."""
    if not arrival.raw.body:
        raise MalformedDelivery
    verification = gateway.scheme.verify(arrival.raw, gateway.secrets, arrival.received_at)
    if verification.refusal is not None:
        log.warning(
            "webhook_refused",
            gateway=gateway.name,
            reason=verification.refusal.value,
            header_names=sorted({safe_text(name, 60) for name, _ in arrival.raw.headers})[:40],
            body_sha256=arrival.digest.hex(),
        )
        raise _REFUSALS.get(verification.refusal, SignatureInvalid) from RefusedFor(verification.refusal)
    return verification


class RefusedFor(Exception):
    """Carries the precise reason to the kept copy; the answer's body never shows it."""

    def __init__(self, reason: Refusal) -> None:
        self.reason = reason
        super().__init__(reason.value)


async def store_delivery(
    arrival: Arrival, verification: Verification, gateway: IngestGateway, *, store: DeliveryStore, ports: Ports
) -> AppendResult:
    """Make the delivery and its event durable, once per delivery; a repetition gets the first one's id.

    A crash before that leaves nothing and no answer, so the gateway sends it again; after it, the repetition is a
    duplicate. Raises DatabaseUnavailable (then it may or may not be stored, and sending it again is right), StoreFull
    or DeliveryNotStorable.
    """
    delivery = _as_delivery(arrival, verification, gateway, ports)
    stored = await store.append(delivery)
    _count(delivery, stored)
    return stored


def _as_delivery(arrival: Arrival, verification: Verification, gateway: IngestGateway, ports: Ports) -> Delivery:
    raw, digest, content = arrival.raw, arrival.digest, verification.content
    return Delivery(
        id=ports.ids.new("whd"),
        gateway=arrival.gateway,
        account=arrival.account,
        dedupe_key=dedupe_key(verification, digest),
        event_id=verification.event_id,
        event_type=verification.event_type,
        trust=verification.trust,
        key_id=verification.key_id,
        signed_at=verification.timestamp,
        received_at=arrival.received_at,
        method=raw.method,
        path=safe_text(raw.path, 300),
        query=safe_query(raw.query),
        headers=safe_headers(raw.headers, secret_names=gateway.scheme.secret_headers),
        content_type=safe_text(arrival.content_type, 200),
        body=without_card_numbers(raw.body),
        body_digest=digest,
        body_size=len(raw.body),
        remote_address=arrival.remote_address,
        request_id=arrival.request_id,
        opened_type=content.content_type if content else None,
        opened_body=without_card_numbers(content.body) if content else None,
        traceparent=arrival.traceparent,
    )


def _count(delivery: Delivery, stored: AppendResult) -> None:
    series(WEBHOOKS, delivery.gateway, "duplicate" if stored.is_duplicate else "accepted").inc()
    series(WEBHOOK_KEYS, delivery.gateway, delivery.key_id or "none").inc()
    if len(delivery.body) != delivery.body_size:
        CARD_NUMBERS.labels(delivery.gateway).inc()
        log.error("card_number_in_webhook", gateway=delivery.gateway, delivery_id=stored.delivery_id)
    if stored.is_duplicate and stored.body_digest != delivery.body_digest:
        # Usual for a retry that counts its attempts; with another status under one id it is the sender's mistake.
        log.info("webhook_repeated_with_another_body", gateway=delivery.gateway, delivery_id=stored.delivery_id)
