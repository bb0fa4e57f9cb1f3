"""Providers as data: one row each, from the generic-hmac fact sheet (sections 3 and 4). Nothing here is code.

A row is a configuration, not yet a scheme: Square and Twilio still need the registered URL and Braintree its public
key. ``[O]`` in the fact sheet is the vendor's own documentation, ``[C]`` is a connector's source.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.webhook_ingest.signatures.port import Trust
from services.webhook_ingest.signatures.schemes import EventField, SignatureConfig, SignatureField, TimestampField


def _json(*names: str) -> EventField:
    return EventField("json", names)


def _header(*names: str) -> EventField:
    return EventField("header", names)


def _standard_webhooks(name: str, headers: str) -> SignatureConfig:
    """Standard Webhooks 1.0.0. The id header is signed and the same on every retry, so it is the event id."""
    return SignatureConfig(
        name=name,
        signature=SignatureField(f"{headers}-signature", format="list", key_separator=",", keys=("v1",)),
        encoding="base64",
        secret_decoding="whsec",  # noqa: S106 - how it is written
        content=(f"{{header:{headers}-id}}", ".", "{timestamp}", ".", "{body}"),
        timestamp=TimestampField(f"{headers}-timestamp"),
        event_id=_header(f"{headers}-id"),
        event_type=_json("type"),
    )


def _body_hex(
    name: str, header: str, *, event_id: EventField | None = None, event_type: EventField | None = None
) -> SignatureConfig:
    return SignatureConfig(name=name, signature=SignatureField(header), event_id=event_id, event_type=event_type)


def _body_base64(
    name: str, header: str, *, event_id: EventField | None = None, event_type: EventField | None = None
) -> SignatureConfig:
    return SignatureConfig(
        name=name, signature=SignatureField(header), encoding="base64", event_id=event_id, event_type=event_type
    )


def _body_sha256_prefix(
    name: str, header: str, *, event_id: EventField | None = None, event_type: EventField | None = None
) -> SignatureConfig:
    return SignatureConfig(
        name=name,
        signature=SignatureField(header, format="prefix", prefix="sha256="),
        event_id=event_id,
        event_type=event_type,
    )


def _static_token(
    name: str, header: str, *, event_id: EventField | None = None, event_type: EventField | None = None
) -> SignatureConfig:
    """A shared token in a header proves who can send, not what was sent: the body is only a hint."""
    return SignatureConfig(
        name=name,
        mode="static_token",
        signature=SignatureField(header),
        trust=Trust.HINT,
        event_id=event_id,
        event_type=event_type,
    )


STRIPE = SignatureConfig(
    name="stripe",
    # v0 is a fake scheme of test mode; the whole whsec_… string is the key, undecoded.
    signature=SignatureField("Stripe-Signature", format="kv", keys=("v1",)),
    content=("{timestamp}", ".", "{body}"),
    timestamp=TimestampField("t", location="kv"),
    event_id=_json("id"),
    event_type=_json("type"),
)

GENERIC = _body_hex("generic", "X-Signature", event_id=_json("event_id"), event_type=_json("status"))

# The event id's header is not covered by the signature, so deliveries are told apart by their bytes, never by it.
RAZORPAY = _body_hex(
    "razorpay", "X-Razorpay-Signature", event_id=_header("X-Razorpay-Event-Id"), event_type=_json("event")
)

_ADYEN_ITEM = "notificationItems.0.NotificationRequestItem."
_ADYEN_FIELDS = (
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "amount.value",
    "amount.currency",
    "eventCode",
    "success",
)
_MYFATOORAH_FIELDS = (
    "Invoice.Id",
    "Invoice.Status",
    "Transaction.Status",
    "Transaction.PaymentId",
    "Invoice.ExternalIdentifier",
)

_ROWS = (
    STRIPE,
    _standard_webhooks("standard_webhooks", "webhook"),
    _standard_webhooks("svix", "svix"),
    _body_sha256_prefix(
        "github", "X-Hub-Signature-256", event_id=_header("X-GitHub-Delivery"), event_type=_header("X-GitHub-Event")
    ),
    _body_sha256_prefix("meta", "X-Hub-Signature-256"),
    _body_sha256_prefix("cursor", "X-Webhook-Signature"),
    _body_sha256_prefix("flinks", "X-Webhook-Signature"),
    # Mollie repeats the header while a secret is rotated.
    _body_sha256_prefix("mollie", "X-Mollie-Signature", event_id=_json("id"), event_type=_json("type")),
    _body_base64(
        "shopify",
        "X-Shopify-Hmac-SHA256",
        event_id=_header("X-Shopify-Webhook-Id"),
        event_type=_header("X-Shopify-Topic"),
    ),
    _body_base64("woocommerce", "x-wc-webhook-signature", event_type=_header("x-wc-webhook-topic")),
    _body_base64("xero", "x-xero-signature"),
    _body_base64("flutterwave", "flutterwave-signature", event_id=_json("webhook_id"), event_type=_json("type")),
    _body_hex("checkout_com", "Cko-Signature", event_id=_json("id"), event_type=_json("type")),
    _body_hex(
        "coinbase_commerce", "X-CC-Webhook-Signature", event_id=_json("event.id"), event_type=_json("event.type")
    ),
    RAZORPAY,
    _body_hex("gocardless", "Webhook-Signature"),
    _body_hex("lemon_squeezy", "X-Signature", event_type=_json("meta.event_name")),
    SignatureConfig(
        name="elevenlabs",
        signature=SignatureField("ElevenLabs-Signature", format="kv", keys=("v0",)),
        content=("{timestamp}", ".", "{body}"),
        timestamp=TimestampField("t", location="kv", tolerance_seconds=1800),
    ),
    SignatureConfig(
        name="zoho_payments",
        signature=SignatureField("X-Zoho-Webhook-Signature", format="kv", keys=("v",)),
        content=("{timestamp}", ".", "{body}"),
        timestamp=TimestampField("t", location="kv", unit="ms", tolerance_seconds=None),
        event_id=_json("event_id"),
        event_type=_json("event_type"),
    ),
    SignatureConfig(
        name="paddle",
        signature=SignatureField("Paddle-Signature", format="kv", pair_separator=";", keys=("h1",)),
        content=("{timestamp}", ":", "{body}"),
        # The SDK's 5 s refuse deliveries that were only slow; retries are signed afresh.
        timestamp=TimestampField("ts", location="kv", tolerance_seconds=30),
        event_id=_json("event_id"),
        event_type=_json("event_type"),
    ),
    SignatureConfig(
        name="slack",
        signature=SignatureField("X-Slack-Signature", format="prefix", prefix="v0="),
        content=("v0:", "{timestamp}", ":", "{body}"),
        timestamp=TimestampField("X-Slack-Request-Timestamp"),
        event_id=_json("event_id"),
        event_type=_json("event.type"),
    ),
    SignatureConfig(
        name="webflow",
        signature=SignatureField("x-webflow-signature"),
        content=("{timestamp}", ":", "{body}"),
        timestamp=TimestampField("x-webflow-timestamp", unit="ms"),
    ),
    SignatureConfig(
        name="square",
        signature=SignatureField("x-square-hmacsha256-signature"),
        encoding="base64",
        content=("{url}", "{body}"),
        event_id=_json("event_id"),
        event_type=_json("type"),
    ),
    SignatureConfig(
        name="twilio",
        signature=SignatureField("X-Twilio-Signature"),
        algorithm="sha1",
        allow_sha1=True,  # Twilio signs forms with nothing better
        encoding="base64",
        content=("{url}", "{form_sorted}"),
    ),
    SignatureConfig(
        name="vercel",
        signature=SignatureField("x-vercel-signature"),
        algorithm="sha1",
        allow_sha1=True,  # Vercel offers nothing better
        event_id=_json("id"),
        event_type=_json("type"),
    ),
    SignatureConfig(
        name="adyen",
        signature=SignatureField(f"{_ADYEN_ITEM}additionalData.hmacSignature", location="json"),
        encoding="base64",
        secret_decoding="hex",  # noqa: S106 - how it is written
        content=tuple(
            piece
            for position, name in enumerate(_ADYEN_FIELDS)
            for piece in ((":",) if position else ()) + (f"{{json:{_ADYEN_ITEM}{name}}}",)
        ),
        event_id=_json(*(f"{_ADYEN_ITEM}{name}" for name in ("pspReference", "eventCode", "success"))),
        event_type=_json(f"{_ADYEN_ITEM}eventCode"),
        # Eight fields of the first item are signed. Whatever else the body holds could be anybody's.
        trust=Trust.HINT,
    ),
    SignatureConfig(
        name="adyen_platform",
        signature=SignatureField("HmacSignature"),
        encoding="base64",
        secret_decoding="hex",  # noqa: S106 - how it is written
        event_type=_json("type"),
    ),
    SignatureConfig(
        name="paystack", signature=SignatureField("x-paystack-signature"), algorithm="sha512", event_type=_json("event")
    ),
    SignatureConfig(
        name="cashfree",
        signature=SignatureField("x-webhook-signature"),
        encoding="base64",
        content=("{timestamp}", "{body}"),
        # No tolerance is documented, nor whether retries are signed afresh.
        timestamp=TimestampField("x-webhook-timestamp", unit="ms", tolerance_seconds=None),
        event_type=_json("type"),
    ),
    SignatureConfig(
        name="bluesnap",
        signature=SignatureField("bls-signature"),
        content=("{timestamp}", "{body}"),
        timestamp=TimestampField("bls-ipn-timestamp", tolerance_seconds=None),  # its unit is not documented
    ),
    SignatureConfig(
        name="mercadopago",
        signature=SignatureField("x-signature", format="kv", keys=("v1",)),
        content=("id:", "{query_lower:data.id}", ";request-id:", "{header:x-request-id}", ";ts:", "{timestamp}", ";"),
        timestamp=TimestampField("ts", location="kv", tolerance_seconds=None),  # its unit is not documented
        event_id=_json("id"),
        event_type=_json("type"),
        trust=Trust.HINT,  # the body is not signed
    ),
    SignatureConfig(
        name="braintree",
        signature=SignatureField("bt_signature", location="form", format="kv", pair_separator="&", key_separator="|"),
        algorithm="sha1",
        allow_sha1=True,  # Braintree offers nothing better
        secret_decoding="sha1",  # noqa: S106 - how it is written
        content=("{form:bt_payload}",),
        trust=Trust.HINT,  # one field of the form is signed, the rest is not
    ),
    SignatureConfig(
        name="myfatoorah",
        signature=SignatureField("MyFatoorah-Signature"),
        encoding="base64",
        content=tuple(
            piece
            for position, name in enumerate(_MYFATOORAH_FIELDS)
            for piece in (f"{',' if position else ''}{name}=", f"{{json:Data.{name}}}")
        ),
        event_type=_json("Event.Name"),
        trust=Trust.HINT,  # amount and currency are not signed
    ),
    _static_token("xendit", "x-callback-token", event_type=_json("event")),
    _static_token("flutterwave_v3", "verif-hash", event_type=_json("event")),
    _static_token("gitlab", "X-Gitlab-Token", event_type=_header("X-Gitlab-Event")),
)

PROVIDERS: Mapping[str, SignatureConfig] = {row.name: row for row in (GENERIC, *_ROWS)}
"""Every scheme that GENERIC_SIGNATURE_SCHEME may name."""
