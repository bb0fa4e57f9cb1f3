"""CCAvenue: the whole delivery is one encrypted field, ``encResp``. There is no signature.

The standard kit's encryption has no checksum: whoever changes or repeats a delivery may have it still decrypt. So it is
never more than a hint, and every way of not being one is refused in the same words (a padding oracle needs two).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from services.webhook_ingest.signatures.values import GatewayValues
from shared.ccavenue_cipher import ENCRYPTIONS, CannotDecrypt, CCAvenueCipher, Encryption, split_pairs

FIELD = "encResp"

LONGEST_FIELD = 65_536
"""Their answers have some two thousand digits."""

_KEPT = frozenset(
    "order_id order_no tracking_id reference_no order_status status_code response_code currency amount mer_amount "
    "trans_date payment_mode merchant_param1 merchant_param2 risk_status current_status".split()
)
"""What travels on. Names, addresses and telephone numbers (``billing_…``, ``delivery_…``) stay in the raw delivery."""

_TELLING = frozenset({"order_id", "order_no", "tracking_id", "reference_no", "current_status"})
"""One of these is in every genuine text; in what decrypts by chance there is none."""


@dataclass(frozen=True, slots=True)
class CCAvenueScheme:
    encryption: Encryption = "cbc"

    @property
    def secret_headers(self) -> frozenset[str]:
        return frozenset()

    def check_secret(self, secret: SigningSecret) -> None:
        try:
            CCAvenueCipher(secret.text, self.encryption)
        except ValueError as problem:
            raise InvalidSchemeConfig(f"ccavenue: {problem}") from None

    def verify(
        self,
        delivery: RawDelivery,
        secrets: Sequence[SigningSecret],
        received_at: datetime,  # noqa: ARG002 - no time is in it that could be trusted
    ) -> Verification:
        try:
            digits = Fields(delivery).single("form", FIELD)
        except FieldProblem as problem:
            return refused(problem.reason)
        if not digits:
            return refused(Refusal.SIGNATURE_MISSING)
        if not secrets:
            return refused(Refusal.NO_SECRET)
        if len(digits) > LONGEST_FIELD:
            return refused(Refusal.SIGNATURE_MISMATCH)
        # All are tried, whichever opens it, so that the time taken does not tell how far one came.
        opened = [(secret, self._opened(digits, secret)) for secret in secrets]
        return next((_accepted(secret, form) for secret, form in opened if form), refused(Refusal.SIGNATURE_MISMATCH))

    def _opened(self, digits: str, secret: SigningSecret) -> Mapping[str, str] | None:
        """None for anything that is not a text of CCAvenue's under this key."""
        try:
            text = CCAvenueCipher(secret.text, self.encryption).decrypt(digits.strip())
            form = dict(split_pairs(text))
        except (CannotDecrypt, ValueError):
            return None
        is_text = all(character.isprintable() or character in "\r\n\t" for character in text)
        return form if is_text and any(form.get(name) for name in _TELLING) else None


def _accepted(secret: SigningSecret, form: Mapping[str, str]) -> Verification:
    kept = [(name, value) for name, value in form.items() if name in _KEPT]
    return Verification(
        refusal=None,
        trust=Trust.HINT,
        key_id=secret.key_id,
        event_type=clean_identifier(form.get("order_status", "")),
        content=Content("application/x-www-form-urlencoded", urlencode(kept).encode()),
    )


def _build(values: GatewayValues) -> CCAvenueScheme:
    wanted = (values.text("CCAVENUE_ENCRYPTION") or "cbc").strip().lower()
    for encryption in ENCRYPTIONS:
        if encryption == wanted:
            return CCAvenueScheme(encryption)
    raise InvalidSchemeConfig(f"CCAVENUE_ENCRYPTION must be one of {', '.join(ENCRYPTIONS)}")


_UNSIGNED = "encrypted without a checksum, and not signed: it only makes us ask"

REGISTRATION = Registration(
    "ccavenue",
    "CCAVENUE_WORKING_KEY",
    _build,
    variables=("CCAVENUE_ENCRYPTION",),
    summary="no signature: the form's `encResp` is AES-128-CBC under MD5 of the working key (AES-256-GCM by setting)",
    not_offered={
        Trait.WHOLE_BODY: _UNSIGNED,
        Trait.TIMESTAMP: "no time is signed; each delivery counts once for ever",
    },
)
