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

    paypal_client_id: str | None = Field(None, description="PayPal is enabled when this and the secret are set")
    paypal_client_secret: SecretStr | None = None
    paypal_api_base: str = "https://api-m.paypal.com"
    razorpay_key_id: str | None = Field(
        None, description="rzp_test_… or rzp_live_…; enabled when id and secret are set"
    )
    razorpay_key_secret: SecretStr | None = None
    razorpay_api_base: str = "https://api.razorpay.com"

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

    authorization_policy: Literal["none", "capture", "void"] = Field(
        "none", description="what happens to held funds shortly before the hold ends, if nobody has decided"
    )
    authorization_warning_hours: float = Field(24.0, gt=0, description="payment.authorization_expiring so long before")
    authorization_policy_hours: float = Field(6.0, gt=0, description="the policy acts so long before the hold ends")
    operation_give_up_hours: float = Field(
        24.0, gt=0, description="an operation that never reached the gateway is canceled after this"
    )
    command_keys: SecretStr | None = Field(
        None,
        description="comma-separated <sender>:<hex key>; whose commands are obeyed (order_service:0f…). Unset: nobody's",
    )

    @property
    def tolerance_minor(self) -> int:
        return self.amount_mismatch_tolerance_minor if self.amount_mismatch_policy == "accept" else 0

    @model_validator(mode="after")
    def _accept_needs_a_tolerance(self) -> PaymentSettings:
        if self.amount_mismatch_policy == "accept" and self.amount_mismatch_tolerance_minor == 0:
            raise ValueError("AMOUNT_MISMATCH_POLICY=accept needs AMOUNT_MISMATCH_TOLERANCE_MINOR above 0")
        return self
