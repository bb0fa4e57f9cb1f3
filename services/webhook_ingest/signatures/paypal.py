"""PayPal's webhooks: RSA over the transmission and a CRC32 of the body, or PayPal's own word for it.

``PAYPAL_WEBHOOK_VERIFICATION``: ``local`` (the default) verifies with the certificate that the delivery names, fetched
from PayPal's hosts only; ``postback`` sends the delivery back and asks. The webhook id is ours, from PAYPAL_WEBHOOK_ID:
it is part of what is signed, and a delivery for another listener does not verify.

CRC32 binds the body weakly, so what the event says about money is asked for before it is believed
(payment_service/gateways/paypal). Whether retries carry a new time is not documented: a delivery is not refused for its
age, and its event id guards against repetition for ever.
"""
# ruff: noqa: ARG002 - every scheme takes what the port passes

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from services.webhook_ingest.signatures.fields import FieldProblem, Fields, clean_identifier
from services.webhook_ingest.signatures.paypal_certificates import (
    LIVE_HOSTS,
    SANDBOX_HOSTS,
    CertificateAddresses,
    CertificateSource,
    ChainCheck,
    FetchedCertificates,
    TrustedRoots,
)
from services.webhook_ingest.signatures.paypal_postback import Judge, PayPalJudge
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SignatureScheme,
    SigningSecret,
    Trust,
    Verification,
    refused,
)
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.surroundings import Surroundings
from services.webhook_ingest.signatures.values import GatewayValues

ALGORITHM = "SHA256withRSA"
LONGEST_WEBHOOK_ID = 64
LONGEST_SIGNATURE = 2048
LONGEST_HEADER = 200


@dataclass(frozen=True, slots=True)
class Transmission:
    """The five headers, each exactly once."""

    identifier: str
    time: str
    signature: str
    certificate_url: str
    algorithm: str

    def message(self, webhook_id: str, body: bytes) -> bytes:
        """What PayPal signs: the CRC is written as an unsigned decimal number."""
        return f"{self.identifier}|{self.time}|{webhook_id}|{zlib.crc32(body) & 0xFFFFFFFF}".encode()


class Unverified:
    """What every PayPal scheme shares. By itself it verifies nothing, and says why."""

    secret_headers: frozenset[str] = frozenset()

    def __init__(self, reason: Refusal = Refusal.SIGNATURE_MISMATCH) -> None:
        self._reason = reason

    def check_secret(self, secret: SigningSecret) -> None:
        """The simulator's ``WEBHOOK_ID`` is none either: anybody can have PayPal sign for it."""
        if not secret.text.isascii() or not secret.text.isalnum() or len(secret.text) > LONGEST_WEBHOOK_ID:
            raise InvalidSchemeConfig("PAYPAL_WEBHOOK_ID is not a webhook id: letters and digits, as PayPal lists it")

    def verify(self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:
        return refused(self._reason)


class LocalScheme(Unverified):
    """Way A: verify with the certificate that the delivery names."""

    def __init__(self, addresses: CertificateAddresses, certificates: CertificateSource, roots: ChainCheck) -> None:
        super().__init__()
        self._addresses = addresses
        self._certificates = certificates
        self._roots = roots

    async def prepare(
        self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime
    ) -> SignatureScheme:
        try:
            transmission = read_transmission(delivery, self._addresses)
        except FieldProblem as problem:
            return Unverified(problem.reason)
        url = transmission.certificate_url
        chain = await self._certificates.load(url)
        if chain is None or not self._roots.trusts(chain, received_at):
            return Unverified(Refusal.SIGNATURE_MISMATCH)
        self._certificates.keep(url, chain)
        return CertifiedScheme(transmission, chain[0])


class CertifiedScheme(Unverified):
    """One delivery, with a certificate that has been found to be PayPal's."""

    def __init__(self, transmission: Transmission, leaf: x509.Certificate) -> None:
        super().__init__()
        self._transmission = transmission
        self._leaf = leaf

    def verify(self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:
        key = self._leaf.public_key()
        signature = _decoded(self._transmission.signature)
        if not isinstance(key, rsa.RSAPublicKey) or signature is None:
            return refused(Refusal.SIGNATURE_MALFORMED)
        for secret in secrets:
            try:
                message = self._transmission.message(secret.text, delivery.body)
                key.verify(signature, message, padding.PKCS1v15(), SHA256())
            except InvalidSignature:
                continue
            return verified(delivery, secret, self._transmission)
        return refused(Refusal.SIGNATURE_MISMATCH if secrets else Refusal.NO_SECRET)


class PostbackScheme(Unverified):
    """Way B: send the delivery back to PayPal and ask whether it is theirs. One call per event and webhook id."""

    def __init__(self, addresses: CertificateAddresses, judge: Judge) -> None:
        super().__init__()
        self._addresses = addresses
        self._judge = judge

    async def prepare(
        self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime
    ) -> SignatureScheme:
        try:
            transmission = read_transmission(delivery, self._addresses)
            require_one_json_object(delivery)
        except FieldProblem as problem:
            return Unverified(problem.reason)
        for secret in secrets:
            claim = {
                "auth_algo": transmission.algorithm,
                "cert_url": transmission.certificate_url,
                "transmission_id": transmission.identifier,
                "transmission_sig": transmission.signature,
                "transmission_time": transmission.time,
                "webhook_id": secret.text,
            }
            if await self._judge.confirms(claim, delivery.body):
                return ConfirmedScheme(transmission, secret)
        return Unverified(Refusal.SIGNATURE_MISMATCH)


class ConfirmedScheme(Unverified):
    """One delivery that PayPal has called its own."""

    def __init__(self, transmission: Transmission, secret: SigningSecret) -> None:
        super().__init__()
        self._transmission = transmission
        self._secret = secret

    def verify(self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:
        return verified(delivery, self._secret, self._transmission)


def paypal_scheme(values: GatewayValues, surroundings: Surroundings) -> SignatureScheme:
    """Raises InvalidSchemeConfig."""
    addresses = certificate_addresses(values, production=surroundings.production)
    way = (values.text("PAYPAL_WEBHOOK_VERIFICATION") or "local").strip().lower()
    if way == "postback":
        return PostbackScheme(addresses, PayPalJudge.of(values, surroundings.http))
    if way != "local":
        raise InvalidSchemeConfig("PAYPAL_WEBHOOK_VERIFICATION must be local or postback")
    # PAYPAL_WEBHOOK_CA_FILE names a file, and arrives here as its text.
    return LocalScheme(
        addresses, FetchedCertificates(surroundings.http), TrustedRoots(values.text("PAYPAL_WEBHOOK_CA"))
    )


def certificate_addresses(values: GatewayValues, *, production: bool) -> CertificateAddresses:
    """PayPal's hosts of the environment that PAYPAL_API_BASE belongs to; others only in development."""
    others = values.items("PAYPAL_CERT_HOSTS")
    if others and production:
        raise InvalidSchemeConfig("PAYPAL_CERT_HOSTS is for development: certificates come from PayPal's hosts only")
    if any(urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname for base in others):
        raise InvalidSchemeConfig("PAYPAL_CERT_HOSTS: an entry is written http://127.0.0.1:8000/sandbox/paypal")
    host = urlsplit(values.text("PAYPAL_API_BASE") or "https://api-m.paypal.com").hostname
    hosts = SANDBOX_HOSTS if host in SANDBOX_HOSTS else LIVE_HOSTS
    return CertificateAddresses(hosts, tuple(base.rstrip("/") for base in others))


def read_transmission(delivery: RawDelivery, addresses: CertificateAddresses) -> Transmission:
    """Raises FieldProblem for a delivery that need not be asked about."""
    fields = Fields(delivery)
    names = ("TRANSMISSION-ID", "TRANSMISSION-TIME", "TRANSMISSION-SIG", "CERT-URL", "AUTH-ALGO")
    values = [fields.single("header", f"PAYPAL-{name}") for name in names]
    if not all(values):
        raise FieldProblem(Refusal.SIGNATURE_MISSING)
    transmission = Transmission(*(value or "" for value in values))
    is_plain = all(
        len(text) <= LONGEST_HEADER and text.isascii() and text.isprintable() and "|" not in text
        for text in (transmission.identifier, transmission.time)
    )
    if transmission.algorithm != ALGORITHM or not is_plain or _decoded(transmission.signature) is None:
        raise FieldProblem(Refusal.SIGNATURE_MALFORMED)
    if not addresses.allows(transmission.certificate_url):
        raise FieldProblem(Refusal.SIGNATURE_MALFORMED)
    return transmission


def require_one_json_object(delivery: RawDelivery) -> None:
    """The body is spliced into the question as it is: ``{…},"webhook_id":"…"`` would ask about somebody else's."""
    fields = Fields(delivery, unique_json_keys=True)
    starts_well = delivery.body.lstrip(b" \t\r\n").startswith(b"{")
    if not starts_well or not fields.json_value("id"):
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE)


def verified(delivery: RawDelivery, secret: SigningSecret, transmission: Transmission) -> Verification:
    fields = Fields(delivery)
    event_id, event_type = fields.optional("json", "id"), fields.optional("json", "event_type")
    return Verification(
        refusal=None,
        trust=Trust.FULL,
        key_id=secret.key_id,
        event_id=clean_identifier(event_id) if event_id else None,
        event_id_is_signed=True,
        event_type=clean_identifier(event_type) if event_type else None,
        timestamp=_moment(transmission.time),
    )


def _decoded(signature: str) -> bytes | None:
    if len(signature) > LONGEST_SIGNATURE:
        return None
    try:
        return base64.b64decode(signature.encode("ascii"), validate=True) or None
    except (ValueError, binascii.Error):
        return None


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


# The webhook's id is what is signed along with the body: one per listener, told to us by PayPal.
REGISTRATION = Registration(
    "paypal",
    "PAYPAL_WEBHOOK_ID",
    build_preparing=paypal_scheme,
    variables=("PAYPAL_",),
    summary="RSA-SHA256 over id, time, webhook id and CRC32 of the raw body, with a certificate of a pinned host",
    not_offered={Trait.TIMESTAMP: "retries come for three days with the first try's time; each counts once for ever"},
)
