"""Tamara: a JWT (HS256, the account's notification token as the key) beside a body that it does not cover.

One token seen in a log authenticates any body for a quarter of an hour, so a delivery is only a hint. A static header
that is registered with the webhook can be demanded on top.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import jwt

from services.webhook_ingest.signatures.fields import FieldProblem, Fields, clean_identifier
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
    refused,
)
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.values import GatewayValues

ALGORITHM = "HS256"
ISSUER = "Tamara"
LEEWAY = timedelta(seconds=60)

MIN_SECRET_BYTES = 32
"""HS256 wants a key of 256 bits (RFC 7518); Tamara's notification tokens are longer."""

LONGEST_TOKEN = 4096

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OBJECT_IDS = ("data.refund_id", "data.cancel_id", "data.capture_id")
"""A refund names its capture too, and one capture may have several."""


class TamaraScheme:
    """Satisfies SignatureScheme. ``header``: name and value of our own header, if one is registered at Tamara."""

    def __init__(self, header: tuple[str, str] | None = None) -> None:
        self._header = header

    @property
    def secret_headers(self) -> frozenset[str]:
        return frozenset({"authorization"} | ({self._header[0].lower()} if self._header else set()))

    def check_secret(self, secret: SigningSecret) -> None:
        if len(_key_of(secret)) < MIN_SECRET_BYTES:
            raise InvalidSchemeConfig(f"tamara: a notification token has at least {MIN_SECRET_BYTES} bytes")

    def verify(self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:
        fields = Fields(delivery)
        try:
            token = _token_of(fields)
            secret, claims = _verified_claims(token, secrets)
            issued_at = _check_claims(claims, received_at)
            self._check_own_header(fields)
        except FieldProblem as problem:
            return refused(problem.reason)
        event_type = _event_type(fields)
        return Verification(
            refusal=None,
            trust=Trust.HINT,
            key_id=secret.key_id,
            event_id=_event_id(fields, event_type),
            event_type=event_type,
            timestamp=issued_at,
        )

    def _check_own_header(self, fields: Fields) -> None:
        if self._header is None:
            return
        name, wanted = self._header
        given = fields.single("header", name)
        if given is None:
            raise FieldProblem(Refusal.SIGNATURE_MISSING)
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass")):
            raise FieldProblem(Refusal.SIGNATURE_MISMATCH)


def tamara_scheme(values: GatewayValues) -> TamaraScheme:
    """Raises InvalidSchemeConfig where only half of our own header is set."""
    name, value = values.text("TAMARA_WEBHOOK_HEADER"), values.text("TAMARA_WEBHOOK_HEADER_VALUE")
    if (name is None) != (value is None):
        raise InvalidSchemeConfig("TAMARA_WEBHOOK_HEADER and TAMARA_WEBHOOK_HEADER_VALUE go together")
    if name is None or value is None:
        return TamaraScheme()
    if name.strip().lower() == "authorization":
        raise InvalidSchemeConfig("TAMARA_WEBHOOK_HEADER: the header Authorization is Tamara's own")
    return TamaraScheme((name.strip(), value.strip()))


def _token_of(fields: Fields) -> str:
    """From the header, else from the query. Raises FieldProblem."""
    header = fields.single("header", "authorization") or ""
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        token = fields.single("query", "tamaraToken") or ""
    token = token.strip()
    if not token:
        raise FieldProblem(Refusal.SIGNATURE_MISSING)
    if len(token) > LONGEST_TOKEN or not token.isascii() or token.count(".") != 2:
        raise FieldProblem(Refusal.SIGNATURE_MALFORMED)
    return token


def _verified_claims(token: str, secrets: Sequence[SigningSecret]) -> tuple[SigningSecret, Mapping[str, Any]]:
    """The algorithm is ours, not the token's. Raises FieldProblem."""
    usable = [secret for secret in secrets if len(_key_of(secret)) >= MIN_SECRET_BYTES]
    if not usable:
        raise FieldProblem(Refusal.NO_SECRET)
    why = Refusal.SIGNATURE_MALFORMED
    for secret in usable:
        try:
            # The times are checked against the time of receipt; the library would ask a clock of its own.
            unchecked = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}
            options: Any = {**unchecked, "verify_iss": False, "verify_sub": False, "verify_jti": False}
            return secret, jwt.decode(token, _key_of(secret), algorithms=[ALGORITHM], options=options)
        except jwt.InvalidSignatureError:
            why = Refusal.SIGNATURE_MISMATCH
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            continue
    raise FieldProblem(why)


def _check_claims(claims: Mapping[str, Any], received_at: datetime) -> datetime | None:
    """When it was issued, as far as it says so. Raises FieldProblem."""
    if "iss" in claims and claims["iss"] != ISSUER:
        raise FieldProblem(Refusal.SIGNATURE_MISMATCH)
    now = (received_at - _EPOCH) / timedelta(seconds=1)
    expires, issued = claims.get("exp"), claims.get("iat")
    if expires is None:
        raise FieldProblem(Refusal.TIMESTAMP_MISSING)
    if not _is_time(expires) or not (issued is None or _is_time(issued)):
        raise FieldProblem(Refusal.TIMESTAMP_MALFORMED)
    leeway = LEEWAY.total_seconds()
    if expires <= now - leeway or (issued is not None and issued > now + leeway):
        raise FieldProblem(Refusal.TIMESTAMP_OUT_OF_TOLERANCE)
    return None if issued is None else _EPOCH + timedelta(seconds=max(issued, 0))


def _is_time(value: object) -> bool:
    """NaN compares false with everything, and so would never expire."""
    return type(value) is int or (type(value) is float and isfinite(value))


def _event_type(fields: Fields) -> str | None:
    found = fields.optional("json", "event_type")
    status = fields.optional("json", "order_status")  # the older channel, one address for each order
    return clean_identifier(found or (f"order_{status}" if status else ""))


def _event_id(fields: Fields, event_type: str | None) -> str | None:
    """Deliveries carry no id; these fields together are one. Nobody signed them, so it is only written down."""
    order_id = fields.optional("json", "order_id")
    if event_type is None or order_id is None:
        return None
    about = next((found for path in _OBJECT_IDS if (found := fields.optional("json", path))), "")
    return clean_identifier(f"tamara|{event_type}|{order_id}|{about}")


def _key_of(secret: SigningSecret) -> bytes:
    return secret.text.encode("utf-8", "surrogatepass")


REGISTRATION = Registration(
    "tamara",
    "TAMARA_NOTIFICATION_TOKEN",
    tamara_scheme,
    variables=("TAMARA_WEBHOOK_HEADER", "TAMARA_WEBHOOK_HEADER_VALUE"),
    summary="JWT (HS256) in `Authorization` or the query's `tamaraToken`, valid for 15 minutes; it covers no body",
    not_offered={Trait.WHOLE_BODY: "the token is not bound to the body: a delivery only makes us ask"},
)
