"""Settings are plain environment variables, read once in main.py or worker.py; every default has a unit and a reason.

Any variable may instead name a file: ``STRIPE_API_KEY_FILE=/run/secrets/stripe`` (SEC-70).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from shared.configuration import ConfigurationError as ConfigurationError  # noqa: PLC0414 - handed on
from shared.configuration import split_list as split_list  # noqa: PLC0414 - handed on

REDELIVERY_DAYS = 7
"""Attempts at a message end within two hours; this is for a broker or a service that is away over a long week."""


class _FilesSource(PydanticBaseSettingsSource):
    """``<NAME>_FILE``: the variable's value is the file's text, without the newline at its end."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{(field.alias or field_name).upper()}_FILE"
        path = os.environ.get(variable)
        return (_read_file(variable, path) if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                values[field.alias or key] = value
        return values


class BaseEnvironment(BaseSettings):
    """Reads the environment and ``*_FILE``; unknown variables are left alone."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False, populate_by_name=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _FilesSource(settings_cls)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Raises ConfigurationError with every mistake in one text, and never a value (failure L18)."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            lines = [f"  {_variable(entry['loc'])}: {entry['msg']}" for entry in error.errors(include_input=False)]
            raise ConfigurationError("these settings are missing or wrong:\n" + "\n".join(lines)) from None
        except SettingsError as error:  # a structured variable that is not JSON; the cause would show its text
            raise ConfigurationError(str(error)) from None


class ServiceSettings(BaseEnvironment):
    """What every service reads."""

    environment: Literal["production", "development"] = Field("production", alias="PAYRAIL_ENVIRONMENT")
    database_url: SecretStr = Field(description="postgresql://user:password@host/database")
    rabbitmq_url: SecretStr | None = Field(None, description="amqp://…; without it only the embedded bus can run")
    event_batches: bool = Field(
        True,
        description="many events in a RabbitMQ message; off while a consumer runs that cannot read that (ADR 0021)",
    )
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="`payrail work` serves its /metrics here; unset: nowhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    public_base_url: str = Field("http://127.0.0.1:8000", description="where browsers and gateways reach the proxy")
    cors_allowed_origins: str = Field("", description="comma-separated origins of SPAs that live elsewhere")
    database_pool_size: int = Field(
        8, ge=1, le=100, description="connections; PostgreSQL's default limit is 100 in all"
    )
    trusted_proxy_hops: int = Field(
        0, ge=0, le=10, description="how many proxies of ours add to X-Forwarded-For (SEC-5)"
    )

    jwt_issuer: str = "payrail"
    jwt_audience: str = "payrail"
    jwt_shared_key: SecretStr | None = Field(None, description="HS256, development only, at least 32 bytes (SEC-17)")
    jwt_jwks: str | None = Field(None, description="the JWKS document itself")
    jwt_jwks_url: str | None = Field(None, description="https URL of the JWKS; no redirect is followed (SEC-19)")
    jwt_signing_key: SecretStr | None = Field(None, description="PEM of this service's Ed25519 key (SEC-20)")
    jwt_signing_key_id: str | None = None
    jwt_max_lifetime_seconds: int = Field(
        900, description="exp - iat that is accepted (SEC-18); `make run` allows more"
    )

    event_retention_days: int = Field(
        30, ge=1, le=3650, description="days that published events are kept for consumers that catch up"
    )
    inbox_retention_days: int = Field(
        60, ge=2, le=3650, description="days that it is known which messages were applied; longer than events are kept"
    )
    retention_interval_seconds: float = Field(3600.0, gt=0, description="how often a worker prunes its tables")

    @model_validator(mode="after")
    def _claims_outlive_events(self) -> Self:
        """An event that may come once more must still be known as applied."""
        if self.inbox_retention_days < self.event_retention_days + REDELIVERY_DAYS:
            raise ValueError(
                f"INBOX_RETENTION_DAYS must be EVENT_RETENTION_DAYS and {REDELIVERY_DAYS} more at least: an event that"
                " is read or delivered again could be applied twice"
            )
        return self

    @property
    def cors_origins(self) -> tuple[str, ...]:
        return split_list(self.cors_allowed_origins)


def settings_for(service: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What ``<SERVICE>_DATABASE_URL`` says for this service, as an override of ``DATABASE_URL``."""
    environ = os.environ if environ is None else environ
    own = environ.get(f"{service.upper()}_DATABASE_URL")
    path = environ.get(f"{service.upper()}_DATABASE_URL_FILE")
    if own is None and path:
        own = _read_file(f"{service.upper()}_DATABASE_URL_FILE", path).strip()
    return {"database_url": own} if own else {}


def _read_file(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{variable} names a file that cannot be read ({type(error).__name__})") from None


def _variable(location: tuple[int | str, ...]) -> str:
    return str(location[0]).upper() if location else "settings"
