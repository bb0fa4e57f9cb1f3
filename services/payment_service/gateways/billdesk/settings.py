"""One account at BillDesk, and what of it is the merchant's provisioning rather than documentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from services.payment_service.gateways.definition import AccountSettings
from shared.jose import CONTENT_KEY_BYTES
from shared.settings import split_list

ACCEPTED = frozenset({"0699", "0799"})
"""A refund taken on: before the payment was settled, which BillDesk calls a cancellation, or after it."""


class BillDeskSettings(AccountSettings):
    """Each field ``x`` is the variable ``BILLDESK_X``. Passwords are used as they are written, never decoded."""

    merchant_id: str
    client_id: str
    signing_key: SecretStr
    """Signs both ways, webhooks too. Several, comma-separated, while it is changed: the first one signs."""
    encryption_key: SecretStr | None = None
    """32 characters; several as above. Only for the scheme ``symmetric``."""
    key_id: str | None = None
    scheme: Literal["hmac", "symmetric"] = "hmac"
    """What the merchant is provisioned for: signed only, or encrypted and then signed."""
    api_base: str = "https://api.billdesk.com"
    api_version: Literal["ve1_2", "v1_2"] = "ve1_2"
    timestamp_format: Literal["ist", "seconds", "milliseconds"] = "ist"
    item_code: str = "DIRECT"
    device_ip: str = "127.0.0.1"
    device_user_agent: str = "Mozilla/5.0 (compatible; Payrail)"
    canceled_codes: str = "0398"
    failed_codes: str = "0399,NA"
    refund_failed_codes: str = ""
    """Which ``refund_status`` says that a refund has failed: none is documented."""
    refund_final_after_hours: int = Field(default=24, ge=0, le=24 * 90)
    """How old an accepted refund has to be to count as done; 0: being accepted is enough."""

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        return _keys(self.signing_key)

    @property
    def encryption_keys(self) -> tuple[bytes, ...]:
        return _keys(self.encryption_key) if self.encryption_key is not None else ()

    def check(self) -> None:
        """Raises ValueError, naming variables and no values."""
        if not self.signing_keys:
            raise ValueError("BILLDESK_SIGNING_KEY holds no key")
        if any(len(key) != CONTENT_KEY_BYTES for key in self.encryption_keys):
            raise ValueError(f"BILLDESK_ENCRYPTION_KEY must have {CONTENT_KEY_BYTES} characters")
        if self.scheme == "symmetric" and not (self.encryption_keys and self.key_id):
            raise ValueError("BILLDESK_SCHEME=symmetric needs BILLDESK_ENCRYPTION_KEY and BILLDESK_KEY_ID")
        if self.scheme == "hmac" and self.encryption_keys:
            raise ValueError("BILLDESK_ENCRYPTION_KEY is set, but BILLDESK_SCHEME is not symmetric")
        if not {"0300", "0002"}.isdisjoint((*split_list(self.canceled_codes), *split_list(self.failed_codes))):
            raise ValueError("BILLDESK_CANCELED_CODES and BILLDESK_FAILED_CODES cannot name success or pending")
        if not ACCEPTED.isdisjoint(split_list(self.refund_failed_codes)):
            raise ValueError("BILLDESK_REFUND_FAILED_CODES cannot name an accepted refund")


def _keys(secret: SecretStr) -> tuple[bytes, ...]:
    return tuple(key.encode() for key in split_list(secret.get_secret_value()))
