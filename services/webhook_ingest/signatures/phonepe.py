"""PhonePe: a header that is the SHA-256 of our own user name and password, the same for every delivery.

It proves who sends and nothing about what is sent, so a delivery is only a reason to ask (trust: hint). There is no
event id either: the one that is recorded is made of what an event is about, as PhonePe's repetitions of it agree on.
The older X-VERIFY of v1 is not taken: its payments are none of ours.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.webhook_ingest.signatures.fields import clean_identifier
from services.webhook_ingest.signatures.naming import event_id_of, object_in, text_in
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

HEADER = "Authorization"
USERNAME_VARIABLE = "PHONEPE_WEBHOOK_USERNAME"
PASSWORD_VARIABLE = "PHONEPE_WEBHOOK_PASSWORD"  # noqa: S105 - a name

_USERNAME = re.compile(r"[A-Za-z0-9_]{5,20}", re.ASCII)
_PASSWORD = re.compile(r"(?=.*[A-Za-z])(?=.*[0-9])[!-~]{8,20}", re.ASCII)
_DIGEST = re.compile(r"(?:sha256 +)?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)
_LONGEST_HEADER = 200


class PhonepeScheme:
    """Satisfies SignatureScheme. ``usernames``: several while one is replaced; each is tried with each password."""

    def __init__(self, usernames: Sequence[str]) -> None:
        if not usernames or not all(map(_USERNAME.fullmatch, usernames)):
            raise InvalidSchemeConfig(
                f"{USERNAME_VARIABLE} must be set with {PASSWORD_VARIABLE}: 5 to 20 letters, digits and underscores"
            )
        self._usernames = tuple(usernames)

    @property
    def secret_headers(self) -> frozenset[str]:
        """Whoever has seen it once can send anything."""
        return frozenset({HEADER.lower()})

    def check_secret(self, secret: SigningSecret) -> None:
        if not _PASSWORD.fullmatch(secret.text):
            raise InvalidSchemeConfig(f"{PASSWORD_VARIABLE} has 8 to 20 characters, letters and digits among them")

    def verify(
        self,
        delivery: RawDelivery,
        secrets: Sequence[SigningSecret],
        received_at: datetime,  # noqa: ARG002 - the port's: no time is signed
    ) -> Verification:
        values = delivery.header_values(HEADER)
        if len(values) > 1:
            return refused(Refusal.REPEATED_FIELD)
        if not values or not values[0].strip():
            return refused(Refusal.SIGNATURE_MISSING)
        match = _DIGEST.fullmatch(values[0].strip()) if len(values[0]) <= _LONGEST_HEADER else None
        if match is None:
            return refused(Refusal.SIGNATURE_MALFORMED)
        if not secrets:
            return refused(Refusal.NO_SECRET)
        secret = self._matching(match.group(1).lower(), secrets)
        if secret is None:
            return refused(Refusal.SIGNATURE_MISMATCH)
        body = object_in(delivery.body)
        return Verification(
            refusal=None,
            trust=Trust.HINT,
            key_id=secret.key_id,
            event_id=event_id_of(dedupe_input(body)),
            event_type=clean_identifier(text_in(body, "event") or text_in(body, "type") or ""),
        )

    def _matching(self, given: str, secrets: Sequence[SigningSecret]) -> SigningSecret | None:
        found: SigningSecret | None = None
        for secret in secrets:
            for username in self._usernames:
                # No early exit: how many there are and which one matched does not show in the time taken.
                if hmac.compare_digest(digest_of(username, secret.text), given) and found is None:
                    found = secret
        return found


def digest_of(username: str, password: str) -> str:
    """What PhonePe sends with every delivery, whatever it is about."""
    return hashlib.sha256(f"{username}:{password}".encode("utf-8", "surrogatepass")).hexdigest()


def dedupe_input(body: Mapping[str, Any]) -> str | None:
    """What makes two deliveries the same event (fact sheet: dedupe), or None for a body that is none of PhonePe's."""
    payload = body.get("payload")
    event = text_in(body, "event") or text_in(body, "type")
    if event is None or not isinstance(payload, dict):
        return None
    about, state = text_in(payload, "refundId") or text_in(payload, "orderId"), text_in(payload, "state")
    if about is None or state is None:
        return None
    return "|".join(("phonepe", event, about, state, _last_moment(payload)))


def _last_moment(payload: Mapping[str, Any]) -> str:
    """A number's text orders as the number does, among numbers of one length."""
    tries = payload.get("paymentDetails")
    moments = [payload.get("timestamp")]
    moments += [each.get("timestamp") for each in tries if isinstance(each, dict)] if isinstance(tries, list) else []
    return max((each for each in moments if isinstance(each, str)), key=lambda text: (len(text), text), default="")


def _build(values: GatewayValues) -> PhonepeScheme:
    return PhonepeScheme(values.items(USERNAME_VARIABLE))


REGISTRATION = Registration(
    "phonepe",
    PASSWORD_VARIABLE,
    _build,
    we_choose_the_secret=True,
    variables=(USERNAME_VARIABLE,),
    summary="`Authorization` is the hex SHA-256 of `username:password`, as we set them there; nothing is signed",
    not_offered={
        Trait.WHOLE_BODY: "the header is the same for every delivery: the payment is always asked for",
        Trait.TIMESTAMP: "no time is signed; each delivery counts once for ever",
    },
)
