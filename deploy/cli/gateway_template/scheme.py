"""New Pay: HMAC-SHA256 over the raw body (schemes.py).

LOOK UP what is signed, with which secret, and how it is written: header, prefix, encoding, a signed time. Where only a
part of the body is signed, or nothing but a token sent along, say ``trust=Trust.HINT`` and why in ``not_offered``.
"""

from __future__ import annotations

from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.schemes import EventField, HmacScheme, SignatureConfig, SignatureField

CONFIG = SignatureConfig(
    name="newpay",
    signature=SignatureField("NewPay-Signature"),
    event_id=EventField("json", ("event_id",)),
    event_type=EventField("json", ("type",)),
)

REGISTRATION = Registration(
    "newpay",
    "NEWPAY_WEBHOOK_SECRET",
    lambda _values: HmacScheme(CONFIG),
    summary="HMAC-SHA256 (hex) over the raw body in `NewPay-Signature`",
    not_offered={Trait.TIMESTAMP: "no time is signed; each delivery counts once for ever"},
)
