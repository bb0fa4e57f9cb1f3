"""Every variable the sandbox reads."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, SecretStr

from shared.settings import ServiceSettings


class SandboxSettings(ServiceSettings):
    """The gateways' secrets have the names that Payrail's services read, so that both ends agree by themselves."""

    sandbox_enabled: bool | None = Field(
        None, description="unset: on in development, refused in production; false: off; true: on, even in production"
    )
    sandbox_merchant_name: str = Field("Payrail demo shop", description="what the hosted pages call the merchant")
    sandbox_webhook_base_url: str = Field(
        "http://127.0.0.1:8000", description="webhooks go to <this>/api/v1/webhooks/<gateway>"
    )
    sandbox_webhook_urls: dict[str, str] = Field(
        default_factory=dict, description='JSON, a whole URL for a gateway that differs: {"stripe": "http://…"}'
    )
    sandbox_webhook_concurrency: int = Field(16, ge=1, le=200, description="deliveries under way at once")
    sandbox_webhook_timeout_seconds: float = Field(10.0, gt=0, description="how long a gateway waits for our answer")
    sandbox_webhook_wait_multiplier: float = Field(
        1.0, gt=0, description="stretches or shrinks the waits between tries (1, 2, 5, 15, 60, 300 s, …)"
    )
    sandbox_poll_seconds: float = Field(0.5, gt=0, description="looking for due deliveries that no commit announced")

    stripe_webhook_secret: SecretStr | None = Field(None, description="enables stripe; several separated by commas")
    webhook_secret: SecretStr | None = Field(None, description="enables generic; the first one signs")
    generic_api_key: SecretStr | None = Field(None, description="what the generic gateway accepts; unset: any key")

    paypal_client_id: SecretStr | None = Field(None, description="what PayPal's token endpoint accepts; unset: any")
    paypal_client_secret: SecretStr | None = Field(None, description="what PayPal's token endpoint accepts; unset: any")
    paypal_webhook_id: SecretStr | None = Field(None, description="enables paypal; part of what its webhooks sign")
    paypal_api_base: str | None = Field(
        None,
        description="where services reach this PayPal, and its certificates; unset: <PUBLIC_BASE_URL>/sandbox/paypal",
    )
    sandbox_paypal_signing: SecretStr | None = Field(
        None,
        description="PEM: the key and certificate that PayPal's webhooks are signed with; unset: made at the start",
    )
    razorpay_key_id: SecretStr | None = Field(None, description="what Razorpay's API accepts; unset: any")
    razorpay_key_secret: SecretStr | None = Field(None, description="what Razorpay's API accepts; unset: any")
    razorpay_webhook_secret: SecretStr | None = Field(None, description="enables razorpay; the first one signs")

    def credentials(self) -> Mapping[str, str]:
        """The gateways' own settings, by name, without those that are not set."""
        secrets = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {
            name: value.get_secret_value()
            for name, value in secrets
            if isinstance(value, SecretStr) and name not in ServiceSettings.model_fields
        }

    def webhook_url(self, gateway: str) -> str:
        base = self.sandbox_webhook_base_url.rstrip("/")
        return self.sandbox_webhook_urls.get(gateway, f"{base}/api/v1/webhooks/{gateway}")

    def is_allowed(self) -> bool:
        """A sandbox next to real money is a way to mark orders paid: production has to ask for it by name."""
        return self.sandbox_enabled if self.sandbox_enabled is not None else self.environment == "development"
