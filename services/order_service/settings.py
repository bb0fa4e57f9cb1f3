"""Every variable that order_service reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from services.order_service.domain.return_urls import origin_of
from services.order_service.use_cases.dependencies import OrderRules, Shop
from shared.command_keys import CommandKeys, CommandSigningKey, senders, signing_key
from shared.settings import ServiceSettings, split_list


class OrderSettings(ServiceSettings):
    payment_service_url: str = Field("http://127.0.0.1:8000", description="base URL of payment_service")
    payment_call_budget_seconds: float = Field(
        30.0, gt=0, le=120, description="one call to payment_service in all; its own gateway budget fits into it"
    )

    order_ttl_minutes: int = Field(30, ge=1, le=7 * 24 * 60, description="how long stock is held for an unpaid order")
    order_ttl_seconds: float | None = Field(None, gt=0, description="the same in seconds, for tests; wins over minutes")
    expiry_interval_seconds: float = Field(5.0, gt=0, description="how often unpaid orders are looked through")
    max_open_orders_per_email: int = Field(20, ge=1, description="unpaid orders that hold stock at once (SEC-15)")

    return_url_allowed_origins: str = Field(
        "", description="comma-separated origins that success_url and co. may have; empty: that of PUBLIC_BASE_URL"
    )
    order_rate_per_minute: int = Field(600, ge=1, description="POST /orders per client address (SEC-15)")
    pay_rate_per_minute: int = Field(600, ge=1, description="POST /orders/{id}/pay per client address (SEC-15)")
    stream_lifetime_seconds: float = Field(3600.0, gt=0, description="a stream ends after this and its client resumes")

    shop_name: str = Field("Payrail Demo Shop", max_length=100, description="on invoices and mails")
    shop_address: str = Field("", max_length=300, description="lines separated by |, on invoices")
    shop_tax_id: str = Field("", max_length=50)
    shop_email: str = Field("", max_length=254)

    smtp_url: SecretStr | None = Field(
        None,
        description="smtp://user:password@host:587 (STARTTLS) or smtps://…:465; without it mails go to the mailbox",
    )
    smtp_from: str = Field("Payrail Demo Shop <orders@payrail.invalid>", max_length=254)
    smtp_starttls: bool | None = Field(
        None, description="true: required, false: never, unset: when the server offers it"
    )
    smtp_verify_certificate: bool = True
    smtp_timeout_seconds: float = Field(
        20.0, gt=0, le=50, description="one step of a sending; two of them stay below the lease of a mail"
    )
    mail_rate_per_second: float = Field(20.0, gt=0, description="mails of one worker; what is more waits its turn")
    mail_interval_seconds: float = Field(5.0, gt=0, description="how often due mails are looked for")

    command_signing_key: CommandSigningKey = Field(
        None,
        description="hex, at least 32 bytes; signs the commands that ask payment_service to give money back, whose "
        "COMMAND_KEYS lists it as order_service:<hex>. Unset: late and second payments wait for a person",
    )
    command_keys: CommandKeys = Field(
        None,
        description="comma-separated <sender>:<hex key>: whose commands are obeyed (reconciler:0f…)",
    )

    @field_validator("smtp_url")
    @classmethod
    def _blank_is_unset(cls, value: SecretStr | None) -> SecretStr | None:
        """A compose file hands on variables that nobody set as empty ones."""
        return value if value is not None and value.get_secret_value().strip() else None

    @model_validator(mode="after")
    def _origins_are_origins(self) -> OrderSettings:
        for origin in split_list(self.return_url_allowed_origins):
            if origin_of(origin) is None or urlsplit(origin).path.strip("/"):
                raise ValueError(
                    "RETURN_URL_ALLOWED_ORIGINS is a comma-separated list of origins like https://shop.example"
                )
        return self

    @property
    def command_key(self) -> bytes | None:
        return signing_key(self.command_signing_key)

    @property
    def senders(self) -> Mapping[str, tuple[bytes, ...]]:
        """Whose commands are obeyed, with the keys that sign them (several while one is rotated)."""
        return senders(self.command_keys)

    @property
    def shop(self) -> Shop:
        return Shop(self.shop_name, self.shop_address, self.shop_tax_id, self.shop_email)

    @property
    def return_origins(self) -> frozenset[str]:
        listed = split_list(self.return_url_allowed_origins) or (self.public_base_url,)
        return frozenset(origin for origin in map(origin_of, listed) if origin is not None)

    @property
    def browser_origins(self) -> frozenset[str]:
        """Where the shop's own pages live: who may open a WebSocket."""
        others = {origin_of(origin) for origin in (self.public_base_url, *self.cors_origins)}
        return self.return_origins | frozenset(origin for origin in others if origin is not None)

    @property
    def rules(self) -> OrderRules:
        lifetime = timedelta(minutes=self.order_ttl_minutes)
        return OrderRules(
            order_lifetime=timedelta(seconds=self.order_ttl_seconds) if self.order_ttl_seconds else lifetime,
            max_open_orders_per_email=self.max_open_orders_per_email,
            return_origins=self.return_origins,
            allow_insecure_loopback=self.environment == "development",
        )
