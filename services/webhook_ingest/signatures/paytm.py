"""Paytm: forms with a checksum among their fields, and JSON with one in its head (shared/paytm_checksum.py).

Of a form the values are signed, but not their names: whoever has one signed form, and every shopper's browser carries
one home, may call its values something else. So a form is a hint. Of JSON the body's exact characters are signed; one
that holds more beside it has been through somebody's hands, and is no more than a hint either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.webhook_ingest.signatures.fields import clean_identifier
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
from shared.paytm_checksum import CHECKSUM_FIELD, cut_member, form_fields, form_text, has_checksum, key_of


class PaytmScheme:
    """Total: any bytes give an answer."""

    secret_headers: frozenset[str] = frozenset()

    def check_secret(self, secret: SigningSecret) -> None:
        try:
            key_of(secret.text)
        except (ValueError, UnicodeError) as problem:
            raise InvalidSchemeConfig(f"paytm: {problem}") from None

    def verify(
        self,
        delivery: RawDelivery,
        secrets: Sequence[SigningSecret],
        received_at: datetime,  # noqa: ARG002 - the port's: no time is signed
    ) -> Verification:
        if delivery.body.lstrip(b" \t\r\n").startswith(b"{"):
            return _verify_json(delivery.body, secrets)
        return _verify_form(delivery.body, secrets)


def _verify_form(raw: bytes, secrets: Sequence[SigningSecret]) -> Verification:
    try:
        fields = form_fields(raw)
    except (ValueError, RecursionError):
        return refused(Refusal.CONTENT_AMBIGUOUS if b"=" in raw else Refusal.SIGNATURE_MISSING)
    # A blank in it is a plus that somebody on the way has decoded once too often.
    checksum = fields.get(CHECKSUM_FIELD, "").replace(" ", "+")
    if not checksum:
        return refused(Refusal.SIGNATURE_MISSING)
    texts = dict.fromkeys((form_text(fields), form_text(fields, null_is_empty=True)))
    key_id = _matching(tuple(texts), checksum, secrets)
    if isinstance(key_id, Refusal):
        return refused(key_id)
    names = ("ORDERID", "TXNID", "STATUS")
    return Verification(
        refusal=None,
        trust=Trust.HINT,
        key_id=key_id,
        event_id=_joined([fields.get(name) for name in names]),
        event_type=clean_identifier(fields.get("STATUS", "")),
    )


def _verify_json(raw: bytes, secrets: Sequence[SigningSecret]) -> Verification:
    """The whole object is cut by one parser, so that what is verified is what is read later: a member that comes twice
    is refused."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return refused(Refusal.CONTENT_INCOMPLETE)
    body_text, head_text = cut_member(text, "body"), cut_member(text, "head")
    if body_text is None or head_text is None:
        return refused(Refusal.SIGNATURE_MISSING if head_text is None else Refusal.CONTENT_INCOMPLETE)
    head, body = _object(head_text), _object(body_text)
    checksum = head.get("signature")
    if not isinstance(checksum, str) or not checksum:
        return refused(Refusal.SIGNATURE_MISSING)
    key_id = _matching((body_text,), checksum, secrets)
    if isinstance(key_id, Refusal):
        return refused(key_id)
    is_bare = _object(text).keys() == {"head", "body"}
    is_credited = bool(body.get("userCreditInitiateTimestamp"))
    event_type = "refund.credited" if is_credited else "refund.accepted"
    return Verification(
        refusal=None,
        trust=Trust.FULL if is_bare else Trust.HINT,
        key_id=key_id,
        event_id=_joined([body.get("refId") or body.get("refundId"), event_type, body.get("status") or "-"]),
        event_id_is_signed=is_bare,
        event_type=event_type,
    )


def _matching(texts: Sequence[str], checksum: str, secrets: Sequence[SigningSecret]) -> str | Refusal:
    """Which secret made this checksum of one of these texts. Every one is tried, so that the time tells nothing."""
    keys = []
    for secret in secrets:
        try:
            keys.append((secret.key_id, key_of(secret.text)))
        except (ValueError, UnicodeError):
            continue
    if not keys:
        return Refusal.NO_SECRET
    matched = [key_id for key_id, key in keys for text in texts if has_checksum(text, key, checksum)]
    return matched[0] if matched else Refusal.SIGNATURE_MISMATCH


def _joined(parts: Sequence[Any]) -> str | None:
    """An id of the parts that Paytm's deliveries are told apart by; None unless all are there."""
    if not all(isinstance(part, str) and part for part in parts):
        return None
    return clean_identifier(":".join(parts))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


REGISTRATION = Registration(
    "paytm",
    "PAYTM_MERCHANT_KEY",
    lambda _values: PaytmScheme(),
    summary="AES-128-CBC of a salted SHA-256, over a form's values (`CHECKSUMHASH`) or a JSON body",
    not_offered={
        Trait.WHOLE_BODY: "a payment's form signs values and not their names; refunds' JSON is signed as a whole",
        Trait.TIMESTAMP: "no time is signed; facts count once for ever",
    },
)
