"""The vectors of the fact sheets (generic-hmac section 6, stripe section 6), as deliveries that must verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Verification
from services.webhook_ingest.signatures.providers import PROVIDERS
from services.webhook_ingest.signatures.schemes import HmacScheme, SignatureConfig

BODY = b'{"type":"payment.captured","data":{"id":"pay_1001","amount":"12.345","currency":"KWD"}}'
TIMESTAMP = 1772355600
SIGNED_AT = datetime.fromtimestamp(TIMESTAMP, UTC)
SECRET = "generic-hmac-test-secret"
WHSEC = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
WHSEC_NEXT = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="

STRIPE_SECRET = "whsec_test_0123456789abcdefABCDEF"
STRIPE_OLD_SECRET = "whsec_test_rotated_OLD_9876543210"
STRIPE_TIMESTAMP = 1767225600
STRIPE_BODY = (
    b'{"id":"evt_test_0001","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_test_0001",'
    b'"object":"payment_intent","amount":1999,"amount_received":1999,"currency":"usd","status":"succeeded",'
    b'"metadata":{"order_ref":"ORD-1001"}}}}'
)
STRIPE_V1 = "8d436d836d0561733f06bf3f180bfedc6430cd6edba5daa670a0560aeb40b3da"
STRIPE_OLD_V1 = "0c08d240927c5118c83bbc53aa20e13746f9caf1a8f842f272d91e860b5a166f"


@dataclass(frozen=True, slots=True)
class Vector:
    config: SignatureConfig
    secret: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = BODY
    query: str = ""
    at: datetime = SIGNED_AT

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def delivery(self) -> RawDelivery:
        return RawDelivery("POST", "/", self.query, self.headers, self.body)

    def with_header(self, name: str, value: str | None) -> Vector:
        """The same delivery with one header replaced, or taken away."""
        kept = tuple(pair for pair in self.headers if pair[0] != name)
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def verify(self, *secrets: str, seconds_later: float = 0) -> Verification:
        return verify(self.config, self.delivery, secrets or (self.secret,), self.at + timedelta(seconds=seconds_later))


def verify(
    config: SignatureConfig, delivery: RawDelivery, secrets: Sequence[str], at: datetime = SIGNED_AT
) -> Verification:
    return HmacScheme(config).verify(delivery, [SigningSecret(text) for text in secrets], at)


def _row(name: str, **changes: object) -> SignatureConfig:
    return replace(PROVIDERS[name], **changes)  # type: ignore[arg-type]


_SQUARE_URL = "https://hooks.example.com/v1/webhooks/square"
_TWILIO_URL = "https://hooks.example.com/v1/webhooks/twilio"
_PAYSTACK = (
    "b1f81f27f503a07a3f03db1339a0208fa18c7248e3d89f68394c813c9d06fdb8"
    "e55d470897b69c68fea0b39fc052014b51f7a46c3a6180383c74356631ff61de"
)
_BRAINTREE_PAYLOAD = "PG5vdGlmaWNhdGlvbj48a2luZD5jaGVjazwva2luZD48L25vdGlmaWNhdGlvbj4=\n"
_BRAINTREE = _row("braintree", signature=replace(PROVIDERS["braintree"].signature, keys=("public_key",)))


def adyen_body(*, amount: int = 12345, signature: str = "OOG+Tj+ebIbRtdjtHqCY02WEwrSVOyxOaRkg9NtqWWs=") -> bytes:
    item = {
        "pspReference": "8835511210689965",
        "merchantAccountCode": "TestMerchant",
        "merchantReference": "ord_1001",
        "amount": {"value": amount, "currency": "KWD"},
        "eventCode": "AUTHORISATION",
        "success": "true",
        "additionalData": {"hmacSignature": signature},
    }
    return json.dumps({"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}).encode()


def braintree_body(digest: str) -> bytes:
    return urlencode({"bt_signature": f"public_key|{digest}", "bt_payload": _BRAINTREE_PAYLOAD}).encode()


VECTORS: tuple[Vector, ...] = (
    Vector(
        _row("standard_webhooks"),
        WHSEC,
        (
            ("webhook-id", "msg_2f6c1a9d"),
            ("webhook-timestamp", str(TIMESTAMP)),
            ("webhook-signature", "v1,n9oooRNzsThBzazLHHbuk3CgeXar7mfsaQiGC46fk48="),
        ),
    ),
    Vector(
        _row("github"),
        SECRET,
        (("X-Hub-Signature-256", "sha256=c1c7c78e81bb2d7308c9eef3d53740b58f9be1ec97da65e085da2a2c6cfeb76f"),),
    ),
    Vector(_row("shopify"), SECRET, (("X-Shopify-Hmac-SHA256", "wcfHjoG7LXMIye7z1TdAtY+b4eyX2mXghdoqLGz+t28="),)),
    Vector(_row("flutterwave"), SECRET, (("flutterwave-signature", "wcfHjoG7LXMIye7z1TdAtY+b4eyX2mXghdoqLGz+t28="),)),
    Vector(
        _row("stripe"),
        SECRET,
        (("Stripe-Signature", "t=1772355600,v1=e06c6ae8bba62b2fb90aca2ad482d2bf631624d6f9f32aa35aca44931081192b"),),
    ),
    Vector(
        _row("paddle"),
        SECRET,
        (("Paddle-Signature", "ts=1772355600;h1=6bdfaf21f1a2f9d8ca45766c051ac72c830725583c102c814e3486aa653f4781"),),
    ),
    Vector(
        _row("slack"),
        SECRET,
        (
            ("X-Slack-Request-Timestamp", str(TIMESTAMP)),
            ("X-Slack-Signature", "v0=c0ed1a4c8768af75c6aa76a2c8e913d3891eb3a33ba5ec3513c4ec1fa38679cc"),
        ),
    ),
    Vector(
        _row("square", registered_url=_SQUARE_URL),
        SECRET,
        (("x-square-hmacsha256-signature", "3PRAA9OQt1bZXXH4xuzM+qc+hKVSL6pMC2rJGoRCbZs="),),
    ),
    Vector(_row("paystack"), SECRET, (("x-paystack-signature", _PAYSTACK),)),
    Vector(
        _row("cashfree"),
        SECRET,
        (
            ("x-webhook-timestamp", "1772355600000"),
            ("x-webhook-signature", "+APVrV1MWZQ5fp1nzjAFF0eo2WCrCgSr4OzSqP6pJow="),
        ),
    ),
    Vector(
        _row("mercadopago"),
        SECRET,
        (
            ("x-request-id", "2066ca19-c6f1-498a-be75-1923005edd06"),
            ("x-signature", "ts=1772355600,v1=2f3236f6ef72a90507e3063744d92553befbbf36ff83d6cfb5962cb58780f8c3"),
        ),
        query="data.id=123456789&type=payment",
    ),
    Vector(_row("adyen"), "00112233445566778899AABBCCDDEEFF" * 2, (), body=adyen_body()),
    Vector(
        _row("twilio", registered_url=_TWILIO_URL),
        SECRET,
        (("X-Twilio-Signature", "VxFku/zHpShZpYZObBCw6XcD/C8="),),
        body=b"Body=hi&From=%2B96590000000&AccountSid=AC0",
    ),
    Vector(_BRAINTREE, "private_key", (), body=braintree_body("4557d2cf0e437cf7383dcb19f3a2c1836d2d2f06")),
    Vector(
        _row("stripe"),
        STRIPE_SECRET,
        (("Stripe-Signature", f"t={STRIPE_TIMESTAMP},v1={STRIPE_V1}"),),
        body=STRIPE_BODY,
        at=datetime.fromtimestamp(STRIPE_TIMESTAMP, UTC),
    ),
)
HEADER_VECTORS = tuple(vector for vector in VECTORS if vector.config.signature.location == "header")


def vector(name: str) -> Vector:
    return next(vector for vector in VECTORS if vector.name == name)


STRIPE_VECTOR = VECTORS[-1]
