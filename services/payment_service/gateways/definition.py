"""What a gateway's package exports as ``DEFINITION``: all that the rest of the service knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from services.payment_service.gateways.port import Facts, GatewayAdapter
from shared.http import HttpCaller
from shared.ports import Ports
from shared.settings import split_list


class AccountSettings(BaseModel):
    """One account of ours at a gateway. A field ``x`` is the variable ``<GATEWAY>_X``, or ``<GATEWAY>_X__<ACCOUNT>``.

    A gateway is enabled when all fields without a default are set. Secrets are ``SecretStr``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    currencies: tuple[str, ...] = ()
    """Which currencies this account takes, comma-separated; empty: all that its gateway takes. Of several accounts the
    first one that names a payment's currency gets it."""

    @field_validator("currencies", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return tuple(part.upper() for part in split_list(value)) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Tools:
    """What an adapter is lent. ``webhook_url``: where this account's webhooks are to be sent, for gateways that want to
    be told with each session. ``ports``: randomness for salts and initialization vectors, the clock for tokens."""

    http: HttpCaller
    ports: Ports
    webhook_url: str
    is_production: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """What docs/gateways.md tells beyond the facts, one line each.

    ``amounts``: how the wire writes them. ``settlement``: the file that says what was paid out. ``documented``: whose
    documentation the adapter follows. ``unconfirmed``: what no documentation says, and what we do about it.
    """

    regions: str
    amounts: str
    settlement: str
    documented: str
    unconfirmed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayDefinition:
    """``facts`` are the standing ones; an adapter's own may differ by its settings (a display name, currencies).

    ``build`` raises ValueError for settings that cannot be used; the text names no value.
    """

    facts: Facts
    settings: type[AccountSettings]
    build: Callable[[Any, Tools], GatewayAdapter]
    sheet: Sheet

    @property
    def name(self) -> str:
        return self.facts.name

    def variable(self, field: str) -> str:
        """The variable that sets a field: ``STRIPE_API_KEY`` for ``api_key``."""
        return f"{self.name.upper()}_{field.upper()}"

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(map(self.variable, self.settings.model_fields))

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.variable(name) for name, field in self.settings.model_fields.items() if field.is_required())
