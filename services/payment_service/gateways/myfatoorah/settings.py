"""One account at MyFatoorah: the token, the country whose host it is valid at, and what that country settles in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator

from services.payment_service.gateways.definition import AccountSettings

Country = Literal["KWT", "BHR", "JOR", "OMN", "ARE", "SAU", "QAT", "EGY"]

TEST_HOST = "apitest.myfatoorah.com"
"""One for all countries, and it settles in Kuwaiti dinars whatever the country."""

_SHARED = "https://api.myfatoorah.com"


@dataclass(frozen=True, slots=True)
class Region:
    host: str
    currency: str


REGIONS: Mapping[str, Region] = {
    "KWT": Region(_SHARED, "KWD"),
    "BHR": Region(_SHARED, "BHD"),
    "JOR": Region(_SHARED, "JOD"),
    "OMN": Region(_SHARED, "OMR"),
    "ARE": Region("https://api-ae.myfatoorah.com", "AED"),
    "SAU": Region("https://api-sa.myfatoorah.com", "SAR"),
    "QAT": Region("https://api-qa.myfatoorah.com", "QAR"),
    "EGY": Region("https://api-eg.myfatoorah.com", "EGP"),
}
"""A token of one country is refused by another country's host, so they are one setting."""


class MyFatoorahSettings(AccountSettings):
    api_token: SecretStr = Field(description="API token of the account; MyFatoorah is enabled when it is set")
    country: Country = Field(description="KWT, BHR, JOR, OMN, ARE, SAU, QAT or EGY: decides the host and the currency")
    api_base: str | None = Field(None, description="instead of the country's live host, for example the test host")
    base_currency: str | None = Field(None, description="what the account settles in, where it is not its country's")
    currency_label: str | None = Field(None, description="how the portal writes that currency, where it is not known")
    utc_offset_hours: int = Field(3, ge=-12, le=14, description="the zone in which link expiry is written (Kuwait)")
    holds: bool = Field(True, description="false where the account has no authorize-and-capture: then it is refused")
    hold_method: str = Field("vm", description="code of the payment method that holds money (vm: Visa and Mastercard)")
    disputes: bool = Field(True, description="false where the log of webhooks, which tells of disputes, cannot be read")

    @field_validator("country", "base_currency", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value

    @property
    def base(self) -> str:
        return (self.api_base or REGIONS[self.country].host).rstrip("/")

    @property
    def currency(self) -> str:
        if self.base_currency is not None:
            return self.base_currency
        return "KWD" if TEST_HOST in self.base else REGIONS[self.country].currency

    @property
    def zone(self) -> timezone:
        return timezone(timedelta(hours=self.utc_offset_hours))
