"""Every variable that payment_service reads, with its unit and reason."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from shared.settings import ServiceSettings


class PaymentSettings(ServiceSettings):
    stripe_api_key: SecretStr | None = Field(None, description="sk_test_… or sk_live_…; Stripe is enabled when set")
    stripe_api_base: str = "https://api.stripe.com"
    generic_api_base: str | None = Field(None, description="where the generic gateway's API is; enabled when set")
    generic_api_key: SecretStr | None = None
    generic_display_name: str = "Card (hosted page)"

    gateway_connect_timeout_seconds: float = Field(3.0, description="an unreachable gateway must not hold a shopper")
    gateway_read_timeout_seconds: float = Field(
        15.0, description="longer than gateways usually take, shorter than patience"
    )
    return_budget_seconds: float = Field(
        4.0, description="how long a shopper who comes back waits for the gateway's word"
    )

    amount_mismatch_policy: Literal["hold", "accept"] = Field(
        "hold", description="accept needs a tolerance (design.md §4)"
    )
    amount_mismatch_tolerance_minor: int = Field(0, ge=0, description="minor units by which an amount may differ")
    parked_deadline_hours: float = Field(72.0, gt=0, description="Stripe retries for three days; then a person looks")

    @property
    def tolerance_minor(self) -> int:
        return self.amount_mismatch_tolerance_minor if self.amount_mismatch_policy == "accept" else 0

    @model_validator(mode="after")
    def _accept_needs_a_tolerance(self) -> PaymentSettings:
        if self.amount_mismatch_policy == "accept" and self.amount_mismatch_tolerance_minor == 0:
            raise ValueError("AMOUNT_MISMATCH_POLICY=accept needs AMOUNT_MISMATCH_TOLERANCE_MINOR above 0")
        return self
