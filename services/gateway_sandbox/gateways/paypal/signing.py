"""The key and certificates that the sandbox's PayPal signs webhooks with.

Several processes must agree on them (the one that serves the certificate, and the worker that signs), and so must
Payrail's ingest, which has to trust the root: SANDBOX_PAYPAL_SIGNING holds the key with its certificate chain, and
PAYPAL_WEBHOOK_CA the root. Both come from ``new_signing_material``, whose root signs one leaf and is then forgotten.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

CERTIFICATE_NAME = "messageverificationcerts.sandbox.paypal.com"
ALGORITHM = "SHA256withRSA"

_FROM, _UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2099, 12, 31, tzinfo=UTC)
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SigningMaterial:
    """``signing``: private key and certificate chain, for the sandbox. ``root``: for who verifies."""

    signing: str = field(repr=False)
    root: str


def new_signing_material() -> SigningMaterial:
    root_key, leaf_key = _new_key(), _new_key()
    root = _certificate("Payrail sandbox root", root_key, root_key, is_authority=True)
    leaf = _certificate(CERTIFICATE_NAME, leaf_key, root_key, is_authority=False)
    key = leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = leaf.public_bytes(Encoding.PEM)
    return SigningMaterial((key + chain).decode(), root.public_bytes(Encoding.PEM).decode())


class Signer:
    """Signs as PayPal does, and judges what it has signed."""

    def __init__(self, signing: str, *, webhook_id: str, base_url: str) -> None:
        key = load_pem_private_key(signing.encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey), "SANDBOX_PAYPAL_SIGNING holds an RSA key"
        self._key = key
        self._webhook_id = webhook_id
        self._base_url = base_url
        self.chain = "".join(_PEM_CERTIFICATE.findall(signing))

    @cached_property
    def certificate_name(self) -> str:
        """Another certificate has another address, as with PayPal."""
        return f"CERT-{hashlib.sha256(self.chain.encode()).hexdigest()[:24]}"

    def headers(self, body: bytes, at: datetime) -> Mapping[str, str]:
        time = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha256(time.encode() + body).hexdigest()
        identifier = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
        signature = self._key.sign(self._message(identifier, time, body), padding.PKCS1v15(), SHA256())
        return {
            "PAYPAL-TRANSMISSION-ID": identifier,
            "PAYPAL-TRANSMISSION-TIME": time,
            "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode(),
            "PAYPAL-CERT-URL": f"{self._base_url}/v1/notifications/certs/{self.certificate_name}",
            "PAYPAL-AUTH-ALGO": ALGORITHM,
        }

    def has_signed(self, claim: Mapping[str, object], event: bytes) -> bool:
        """The postback's answer: ``event`` is the text of the event as it was delivered."""
        if claim.get("webhook_id") != self._webhook_id or claim.get("auth_algo") != ALGORITHM:
            return False
        message = self._message(str(claim.get("transmission_id")), str(claim.get("transmission_time")), event)
        try:
            signature = base64.b64decode(str(claim.get("transmission_sig")), validate=True)
            self._key.public_key().verify(signature, message, padding.PKCS1v15(), SHA256())
        except (ValueError, InvalidSignature):
            return False
        return True

    def _message(self, identifier: str, time: str, body: bytes) -> bytes:
        return f"{identifier}|{time}|{self._webhook_id}|{zlib.crc32(body) & 0xFFFFFFFF}".encode()


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _certificate(
    name: str, key: rsa.RSAPrivateKey, signing_key: rsa.RSAPrivateKey, *, is_authority: bool
) -> x509.Certificate:
    def named(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("Payrail sandbox root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key, critical=False)
        .sign(signing_key, SHA256())
    )
