"""One account at Tamara: the variables ``TAMARA_…``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator

from services.payment_service.gateways.definition import AccountSettings
from shared.settings import split_list


class TamaraSettings(AccountSettings):
    api_token: SecretStr = Field(description="enables Tamara; of the sandbox or the live portal, as the host is")
    api_base: str = "https://api.tamara.co"
    payment_type: Literal["PAY_BY_INSTALMENTS", "PAY_NOW", "PAY_BY_LATER"] = "PAY_BY_INSTALMENTS"
    instalments: int = Field(3, ge=1, le=36, description="which numbers an account may use is agreed with Tamara")
    locale: Literal["en_US", "ar_SA"] = "en_US"
    item_type: str = Field("Physical", min_length=1, max_length=50, description="Physical, Digital, …")
    shipping_company: str = Field("N/A", min_length=1, max_length=100, description="each capture has to name one")
    expires_in_minutes: int | None = Field(
        None, ge=5, le=1440, description="how long a page is open; unset: Tamara's 30 minutes. Tamara has to enable it"
    )
    failed_refund_words: tuple[str, ...] = Field(
        (),
        description="comma-separated words of `refund_status` which, Tamara has told you, mean that a refund failed",
    )

    @field_validator("failed_refund_words", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return tuple(split_list(value)) if isinstance(value, str) else value
