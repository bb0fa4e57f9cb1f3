"""MyFatoorah: HMAC-SHA256 over fields in an order, and not over the body. Two versions, told apart by their shape.

Version 1 signs all of ``Data``, its names sorted without regard to case; version 2 signs a few fields per event, in an
order of their own, and none of them is an amount. The key is the secret's text, though it looks like base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.webhook_ingest.signatures.fields import FieldProblem, clean_identifier, unique_keys
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

HEADER = "MyFatoorah-Signature"

V2_FIELDS: Mapping[str, tuple[str, ...]] = {
    "1": (
        "Invoice.Id",
        "Invoice.Status",
        "Transaction.Status",
        "Transaction.PaymentId",
        "Invoice.ExternalIdentifier",
    ),
    "2": ("Refund.Id", "Refund.Status", "Amount.ValueInBaseCurrency", "ReferencedInvoice.Id"),
    "3": ("Deposit.Reference", "Deposit.ValueInBaseCurrency", "Deposit.NumberOfTransactions"),
    "5": ("Recurring.Id", "Recurring.Status", "Recurring.InitialInvoiceId"),
    "6": (
        "Dispute.DisputeTransactionId",
        "Dispute.Status",
        "Invoice.Id",
        "Invoice.Status",
        "Transaction.Status",
        "Transaction.PaymentId",
        "Invoice.ExternalIdentifier",
    ),
    "7": ("Supplier.Code", "RequestStatus.Status"),
}
"""By ``Event.Code``. Of supplier events (4) no documentation says what is signed, so they are refused."""

_V1_NOT_SIGNED: Mapping[str, str] = {"2": "GatewayReference", "4": "KycFeedback"}
"""By ``EventType``."""

_NAME = re.compile(r"[A-Za-z0-9_]{1,80}")
_LOOKS_LIKE_ANOTHER_FIELD = re.compile(r",[A-Za-z0-9_]+=")
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Signed:
    """What is signed of a body, and how far that can be believed."""

    content: bytes
    trust: Trust
    event_type: str | None
    event_id: str | None = None


class MyFatoorahScheme:
    """Satisfies SignatureScheme."""

    @property
    def secret_headers(self) -> frozenset[str]:
        return frozenset()

    def check_secret(self, secret: SigningSecret) -> None:
        if not secret.text.strip():
            raise InvalidSchemeConfig("myfatoorah: a secret is empty")

    def verify(
        self,
        delivery: RawDelivery,
        secrets: Sequence[SigningSecret],
        received_at: datetime,  # noqa: ARG002 - no time is signed
    ) -> Verification:
        values = delivery.header_values(HEADER)
        if not values:
            return refused(Refusal.SIGNATURE_MISSING)
        if len(values) > 1:
            return refused(Refusal.REPEATED_FIELD)
        digest = _digest_of(values[0])
        if digest is None:
            return refused(Refusal.SIGNATURE_MALFORMED)
        try:
            signed = signed_of(delivery.body)
        except FieldProblem as problem:
            return refused(problem.reason)
        return _answer(signed, digest, [secret for secret in secrets if secret.text])


def signed_of(body: bytes) -> Signed:
    """Raises FieldProblem for a body of neither version, or one that could be read in two ways."""
    parsed = _parse(body)
    event = parsed.get("Event")
    if isinstance(event, dict) == ("EventType" in parsed):
        raise FieldProblem(Refusal.CONTENT_AMBIGUOUS if "EventType" in parsed else Refusal.CONTENT_INCOMPLETE)
    data = parsed.get("Data")
    if not isinstance(data, dict) or not data:
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE)
    return _version_2(event, data) if isinstance(event, dict) else _version_1(parsed, data)


def sign(secret: str, body: bytes) -> dict[str, str]:
    """The header that MyFatoorah would send with this body. Raises FieldProblem."""
    digest = _hmac(secret, signed_of(body).content)
    return {HEADER: base64.b64encode(digest).decode()}


def _answer(signed: Signed, digest: bytes, secrets: Sequence[SigningSecret]) -> Verification:
    if not secrets:
        return refused(Refusal.NO_SECRET)
    # No early exit: how many secrets there are and which one matched does not show in the time taken.
    matches = [s.key_id for s in secrets if hmac.compare_digest(_hmac(s.text, signed.content), digest)]
    if not matches:
        return refused(Refusal.SIGNATURE_MISMATCH)
    return Verification(
        refusal=None,
        trust=signed.trust,
        key_id=matches[0],
        event_id=signed.event_id,
        event_type=signed.event_type,
    )


def _version_1(body: Mapping[str, Any], data: Mapping[str, Any]) -> Signed:
    """Where a value holds what could be the next field, another body has the same signature: then it is a hint."""
    event_type = body.get("EventType")
    left_out = _V1_NOT_SIGNED.get(event_type) if isinstance(event_type, str) else None
    names = sorted((name for name in data if name != left_out), key=str.lower)
    if not names or len({name.lower() for name in names}) != len(names):
        raise FieldProblem(Refusal.CONTENT_AMBIGUOUS if names else Refusal.CONTENT_INCOMPLETE)
    if not all(_NAME.fullmatch(name) for name in names):
        raise FieldProblem(Refusal.CONTENT_AMBIGUOUS)
    values = [_text(data[name]) for name in names]
    is_plain = not any(_LOOKS_LIKE_ANOTHER_FIELD.search(value) for value in values)
    name = body.get("Event")
    return Signed(
        _joined(zip(names, values, strict=True)),
        Trust.FULL if is_plain else Trust.HINT,
        clean_identifier(name) if isinstance(name, str) else None,
    )


def _version_2(event: Mapping[str, Any], data: Mapping[str, Any]) -> Signed:
    """``Event`` itself is not signed: its reference is a name for the logs, and its code only chooses the fields."""
    code = event.get("Code")
    fields = V2_FIELDS.get(code) if isinstance(code, str) else None
    if fields is None:
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE)
    name, reference = event.get("Name"), event.get("Reference")
    return Signed(
        _joined((field, _text(_walk(data, field))) for field in fields),
        Trust.HINT,
        clean_identifier(name) if isinstance(name, str) else None,
        clean_identifier(reference) if isinstance(reference, str) else None,
    )


def _joined(pairs: Iterator[tuple[str, str]] | zip[tuple[str, str]]) -> bytes:
    return ",".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "surrogatepass")


def _walk(data: Mapping[str, Any], path: str) -> Any:
    value: Any = data
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    """Numbers are text already, as they were written. How a boolean is written is not documented."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE)
    return value


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(
            body.decode("utf-8-sig"),
            parse_float=str,
            parse_int=str,
            parse_constant=str,
            object_pairs_hook=unique_keys,
        )
    except (ValueError, RecursionError):
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE) from None
    if not isinstance(parsed, dict):
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE)
    return parsed


def _hmac(secret: str, content: bytes) -> bytes:
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), content, "sha256")


def _digest_of(value: str) -> bytes | None:
    try:
        digest = base64.b64decode(value.strip().encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        return None
    return digest if len(digest) == _DIGEST_BYTES else None


REGISTRATION = Registration(
    "myfatoorah",
    "MYFATOORAH_WEBHOOK_SECRET",
    lambda _values: MyFatoorahScheme(),
    summary=(
        "HMAC-SHA256 (base64) over `name=value` pairs of `Data` in `MyFatoorah-Signature`: version 1 all of them,"
        " sorted; version 2 a few per event, without amounts"
    ),
    not_offered={
        Trait.WHOLE_BODY: "version 2 signs neither amount nor currency nor the event itself; the invoice is asked",
        Trait.TIMESTAMP: "no time is signed; an old delivery only causes another look",
    },
)
