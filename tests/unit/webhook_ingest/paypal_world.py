"""PayPal's side of a delivery: the fact sheet's vector, certificates of our own making, and signing with them."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from services.webhook_ingest.signatures.paypal_certificates import Chain
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret

BODY = (
    b'{"id":"WH-TEST-0001","event_version":"1.0","create_time":"2026-01-01T00:00:00.000Z","resource_type":"capture",'
    b'"resource_version":"2.0","event_type":"PAYMENT.CAPTURE.COMPLETED","summary":"Payment completed","resource":{"id":'
    b'"CAPTEST0000000001","status":"COMPLETED","amount":{"currency_code":"USD","value":"19.99"},"custom_id":"ORD-1001",'
    b'"invoice_id":"ORD-1001-1","final_capture":true,"supplementary_data":{"related_ids":{"order_id":'
    b'"ORDERTEST00000001"}}}}'
)
BODY_SHA256 = "a2e042b65fcd009883044c13bf32bf43d4ba878021cff3db1c37884817e95437"
CERTIFICATE_SHA256 = "46162624c4a597bc7541765f82c8229320aec73e1b6b4ae592680c59e7e37402"
TRANSMISSION_ID = "b7d3a1f0-e6a0-11f0-9c2e-5b7f3c9a0001"
TRANSMISSION_TIME = "2026-01-01T00:00:01Z"
WEBHOOK_ID = "WHTEST0000000001A"
SIGNATURE = (
    "OX7yD2GV8xHMUVocpE+LrSEf+dNEoP23Yz4MIChlBpHsLOrgmUASJwZMQKA3L3Al/g2UmCpm0aEnH0UBVj10LmuaQlxLOwLFaGC13JZNhK/IQNT4MVtq"
    "gLYVw/YzBWwDHTGDD/av0lUB2YYYIIRklyVhl9Wc957uvsgeamyFsZN3q0d8krSVaKKhV2F9lLNz/c4RrvR/BwD7TCd6ylxMGIh8bFzszivhYdcJKpwJw8"
    "+AHzoqrgWV+eXdZradcVq10FANyrThAUV+14au1R/P/2w7sPCpvG0iBl6JKAElsrRe6iMVSXCiO4ZYpObDwyuwlIrk8tWY3YqUvoqNAOgxHw=="
)
CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIDLzCCAhegAwIBAgIBATANBgkqhkiG9w0BAQsFADBaMTQwMgYDVQQDDCttZXNz
YWdldmVyaWZpY2F0aW9uY2VydHMuc2FuZGJveC5wYXlwYWwuY29tMSIwIAYDVQQK
DBlURVNUIEZJWFRVUkUgLSBOT1QgUEFZUEFMMCAXDTI1MDEwMTAwMDAwMFoYDzIw
OTkxMjMxMDAwMDAwWjBaMTQwMgYDVQQDDCttZXNzYWdldmVyaWZpY2F0aW9uY2Vy
dHMuc2FuZGJveC5wYXlwYWwuY29tMSIwIAYDVQQKDBlURVNUIEZJWFRVUkUgLSBO
T1QgUEFZUEFMMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyXHkP1fb
YBr1eDG4x2S/c07X1eVIR/zmYWlOQJqcf5l74G/RRaC2iDECbtKXbPQ+kKpYILDW
8He++wQifJK2x+SfThDM7bx8fzCt1e1jPpu786Dpb+JLd13RSZhBEJUWN2wgR9ai
q+MRjVGdI3+MoYNBs7PxP4JfHeOGzCgEcMjk0jYQwtp8SJzqPYH/R7dW7QiipsMW
e1z5U+UklPShjIoD9Ruaj7hSWliz7AlT9KkX0SnytA0fGj3mC3nlVnZtvAPIkAJm
Q7yEhxsxOrYd47eYT3+49R+fHFa8k8F6SBQX5llqKJZArqWLrW4TLJAaUfF7tBLz
mkQ8J/ykuVhowwIDAQABMA0GCSqGSIb3DQEBCwUAA4IBAQAmPJmCgzZIc1iGQboY
AcADI4QkcSACfWXWS4mLJqg9xixSZNM0/j4crrOu4twJPuDbl8c6p2J7XSD4UBUz
+Jnzjxrmd6rsthKe/1CehPxetb04Cm6Fhiyl9azU3kVoSwd6EqLJrkhRos+XM4PI
on9L1rgWUgS+1XzjzZkZTEqTBwskm+o3hCogeiypxAgM0DiFNWvz1Xsz81ix65w+
HMH6su003wuxEnWhQI+vbZziwt3qRcvBmbYlJBlvotwdS+PvoOV2sAJPH6rCMKUO
yBrbUXVsAgVPjcVcwZTDu2xChTgmn0MDFoFtH6Y4Gi7RyedCE2dvVGFVVpQ9J0HH
TDXk
-----END CERTIFICATE-----
"""
CERT_URL = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-TEST-1"
RECEIVED_AT = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)
SECRET = SigningSecret(WEBHOOK_ID)
CN = "messageverificationcerts.sandbox.paypal.com"


def headers_of_vector(**changes: str) -> dict[str, str]:
    """``TRANSMISSION_ID="…"`` replaces a header, ``None`` would be no string: leave it out with ``without``."""
    values = {
        "TRANSMISSION_ID": TRANSMISSION_ID,
        "TRANSMISSION_TIME": TRANSMISSION_TIME,
        "TRANSMISSION_SIG": SIGNATURE,
        "CERT_URL": CERT_URL,
        "AUTH_ALGO": "SHA256withRSA",
    } | changes
    return {f"PAYPAL-{name.replace('_', '-')}": value for name, value in values.items()}


def a_delivery(body: bytes = BODY, headers: dict[str, str] | None = None) -> RawDelivery:
    given = headers_of_vector() if headers is None else headers
    return RawDelivery("POST", "/api/v1/webhooks/paypal", "", tuple(given.items()), body)


@dataclass
class ListedCertificates:
    """Answers with what a test says, and keeps what it was asked for."""

    chain: Chain | None
    asked_for: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    async def load(self, url: str) -> Chain | None:
        self.asked_for.append(url)
        return self.chain

    def keep(self, url: str, chain: Chain) -> None:
        self.kept.append(url)


class Trusting:
    def trusts(self, chain: object, at: datetime) -> bool:
        return True


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Authority:
    """A root of our own, and what it signs."""

    key: rsa.RSAPrivateKey = field(default_factory=_key)
    name: str = "A test root"

    def __post_init__(self) -> None:
        self.certificate = self._certificate(self.name, self.key, is_authority=True)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, common_name: str = CN, *, days_from: int = -30, days_until: int = 300
    ) -> tuple[rsa.RSAPrivateKey, bytes]:
        """A leaf's key, and its PEM."""
        key = _key()
        leaf = self._certificate(common_name, key, days_from=days_from, days_until=days_until)
        return key, leaf.public_bytes(serialization.Encoding.PEM)

    def _certificate(
        self,
        common_name: str,
        key: rsa.RSAPrivateKey,
        *,
        is_authority: bool = False,
        days_from: int = -30,
        days_until: int = 300,
    ) -> x509.Certificate:
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(RECEIVED_AT + timedelta(days=days_from))
            .not_valid_after(RECEIVED_AT + timedelta(days=days_until))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, **usage
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())


def sign(key: rsa.RSAPrivateKey, body: bytes, webhook_id: str = WEBHOOK_ID, *, crc: str | None = None) -> str:
    checksum = str(zlib.crc32(body) & 0xFFFFFFFF) if crc is None else crc
    message = f"{TRANSMISSION_ID}|{TRANSMISSION_TIME}|{webhook_id}|{checksum}".encode()
    return base64.b64encode(key.sign(message, padding.PKCS1v15(), hashes.SHA256())).decode()
