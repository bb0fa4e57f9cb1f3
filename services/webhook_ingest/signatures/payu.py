"""PayU India: a SHA-512 in the body itself, over some of its fields in reverse order and the account's salt.

Covered are status, amount, txnid, the buyer and udf1 to udf5. What tells captured from held (``unmappedstatus``) and
PayU's own id are not, and the buyer's browser gets the same hash with its way back to the shop. Webhooks of refunds and
disputes carry no hash at all. So whatever arrives is a hint: it makes us ask, and changes nothing by itself; and of the
buyer, of whom a payment's form tells nearly everything, nothing travels on.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from urllib.parse import urlencode

from services.webhook_ingest.signatures.fields import FieldProblem, Fields, clean_identifier
from services.webhook_ingest.signatures.port import (
    Content,
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
    refused,
)
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.schemes import decode_digest
from services.webhook_ingest.signatures.values import GatewayValues

KEY_VARIABLE = "PAYU_MERCHANT_KEY"
SALT_VARIABLE = "PAYU_SALT"

_AFTER_SALT = ("udf5", "udf4", "udf3", "udf2", "udf1", "email", "firstname", "productinfo", "amount", "txnid", "key")
_EMPTY_FIELDS = (b"",) * 5  # udf10 to udf6, which nobody fills
_CHARGES = ("additionalCharges", "additional_charges")

_KEPT_OF_PAYMENT = ("txnid", "mihpayid", "status")
_KEPT_OF_REFUND = ("action", "merchantTxnId", "mihpayid", "status")
_KEPT_OF_DISPUTE = ("event", "txn_id", "cb_status")
"""What travels on, and is all that is read of it. The rest stays in the raw delivery: the buyer's name, address and
account (``name_on_card``, ``address1``, ``field1``) stand under too many names to be taken out one by one."""

Reader = Callable[[str], str | None]


def reverse_hash(fields: Mapping[str, bytes], salt: bytes) -> bytes:
    """The digest that PayU puts on what it sends back. A surcharge, under either of its names, goes in front."""
    charges = next((fields[name] for name in _CHARGES if fields.get(name)), None)
    front = (charges,) if charges else ()
    values = [fields.get(name, b"") for name in _AFTER_SALT]
    return hashlib.sha512(b"|".join((*front, salt, fields.get("status", b""), *_EMPTY_FIELDS, *values))).digest()


class PayuScheme:
    """``keys``: our merchant keys, one for each account; none named: any, since the salt decides anyway."""

    name = "payu"
    secret_headers: frozenset[str] = frozenset()

    def __init__(self, keys: frozenset[str] = frozenset()) -> None:
        self._keys = frozenset(key.encode() for key in keys)

    def check_secret(self, secret: SigningSecret) -> None:
        if not secret.text.strip() or "|" in secret.text:
            raise InvalidSchemeConfig(f"{SALT_VARIABLE}: a salt is empty or has a pipe in it")

    def verify(self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:  # noqa: ARG002 - no time is signed
        fields = Fields(delivery, unique_json_keys=True)
        try:
            read = _reader(delivery, fields)
            if read("hash"):
                return self._verify(read, secrets)
            return self._unsigned(delivery, read, secrets)
        except FieldProblem as problem:
            return refused(problem.reason)

    def _verify(self, read: Reader, secrets: Sequence[SigningSecret]) -> Verification:
        received = decode_digest((read("hash") or "").strip(), "hex", hashlib.sha512().digest_size)
        if received is None:
            return refused(Refusal.SIGNATURE_MALFORMED)
        content = _content(read)
        if not content["txnid"] or not content["status"]:
            return refused(Refusal.CONTENT_INCOMPLETE)
        if self._keys and content["key"] not in self._keys:
            return refused(Refusal.SIGNATURE_MISMATCH)
        matching = [secret for secret in secrets if secret.text and _matches(received, content, secret)]
        if not matching:
            return refused(Refusal.SIGNATURE_MISMATCH if any(s.text for s in secrets) else Refusal.NO_SECRET)
        names = [read(name) for name in ("mihpayid", "status", "unmappedstatus")]
        kept = _kept(read, _KEPT_OF_PAYMENT)
        return _hint(f"payment.{read('status')}", names, kept, key_id=matching[0].key_id)

    def _unsigned(self, delivery: RawDelivery, read: Reader, secrets: Sequence[SigningSecret]) -> Verification:
        """Only what PayU is known to send so. Its ``key`` proves nothing, but another one is not meant for us."""
        if not any(secret.text for secret in secrets):
            return refused(Refusal.NO_SECRET)
        key = read("key")
        is_stranger = bool(key) and bool(self._keys) and _encoded(key or "") not in self._keys
        if not _is_json(delivery) or is_stranger:
            return refused(Refusal.SIGNATURE_MISSING)
        if read("action") == "refund" and read("mihpayid"):
            names = [read(name) for name in ("request_id", "status", "bank_arn")]
            return _hint(f"refund.{read('status')}", names, _kept(read, _KEPT_OF_REFUND))
        if read("event") == "dispute" and read("txn_id"):
            names = [read(name) for name in ("cb_id", "cb_status", "updated_at")]
            return _hint(f"dispute.{read('cb_status')}", names, _kept(read, _KEPT_OF_DISPUTE))
        return refused(Refusal.SIGNATURE_MISSING)


def _reader(delivery: RawDelivery, fields: Fields) -> Reader:
    """The text of a field as it was received; a field that is there twice is refused."""
    if _is_json(delivery):
        return fields.json_value
    return lambda name: fields.single("form", name)


def _is_json(delivery: RawDelivery) -> bool:
    return any("json" in value.lower() for value in delivery.header_values("content-type"))


def _content(read: Reader) -> dict[str, bytes]:
    """Raises FieldProblem for a pipe in a value, which would make two different contents hash alike, and where the
    surcharge has two values."""
    content = {name: _encoded(read(name) or "") for name in ("status", *_AFTER_SALT, *_CHARGES)}
    charges = {content[name] for name in _CHARGES if content[name]}
    if len(charges) > 1 or any(b"|" in value for value in content.values()):
        raise FieldProblem(Refusal.CONTENT_AMBIGUOUS)
    return content


def _encoded(text: str) -> bytes:
    """Form values carry bytes that are no UTF-8 as surrogates; JSON may escape lone ones, which nobody has signed."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _matches(received: bytes, content: Mapping[str, bytes], secret: SigningSecret) -> bool:
    return hmac.compare_digest(received, reverse_hash(content, secret.text.encode("utf-8", "surrogatepass")))


def _kept(read: Reader, names: Sequence[str]) -> Content:
    fields = [(name, _encoded(value)) for name in names if (value := read(name))]
    return Content("application/x-www-form-urlencoded", urlencode(fields).encode())


def _hint(event_type: str, names: Sequence[str | None], kept: Content, *, key_id: str | None = None) -> Verification:
    """The id is PayU's advice for telling repetitions apart. Nobody signs it, so it is only noted."""
    return Verification(
        refusal=None,
        trust=Trust.HINT,
        key_id=key_id,
        event_id=clean_identifier(":".join(name or "" for name in names)),
        event_type=clean_identifier(event_type),
        content=kept,
    )


def _scheme(values: GatewayValues) -> PayuScheme:
    keys = [values.text(KEY_VARIABLE), *(values.text(name) for name in values.names_starting_with(f"{KEY_VARIABLE}__"))]
    return PayuScheme(frozenset(key.strip() for key in keys if key))


REGISTRATION = Registration(
    "payu",
    SALT_VARIABLE,
    _scheme,
    variables=(KEY_VARIABLE,),
    summary="SHA-512 (hex) over the salt and eleven fields in reverse order, in the form's `hash`; "
    "refunds and disputes come without any",
    not_offered={
        Trait.WHOLE_BODY: "its hash leaves out captured or held, and PayU's id; refunds and disputes have none",
        Trait.TIMESTAMP: "no time is signed; each delivery counts once for ever",
    },
)
