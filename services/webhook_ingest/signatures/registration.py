"""How a gateway's deliveries are set up: what its module in this package exports as ``REGISTRATION``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.webhook_ingest.signatures.port import SignatureScheme, SigningSecret
from services.webhook_ingest.signatures.surroundings import Surroundings
from services.webhook_ingest.signatures.values import GatewayValues
from shared.gateway_variables import account_key


class Trait(StrEnum):
    """What a signature may protect from. What is missing is why a delivery is only a hint, or why it may be old."""

    WHOLE_BODY = "whole_body"  # every byte that counts is signed: what the delivery says is believed
    TIMESTAMP = "timestamp"  # old deliveries are refused


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The exact answer that a gateway insists on, instead of our own JSON (failure W21)."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class IngestGateway:
    """One enabled gateway, or one account of ours there. Where there are ``accounts``, any other one is unknown."""

    name: str
    scheme: SignatureScheme
    secrets: tuple[SigningSecret, ...]
    accounts: Mapping[str, IngestGateway] = field(default_factory=dict)
    acknowledgement: Acknowledgement | None = None

    def for_account(self, account: str | None) -> IngestGateway | None:
        """What an address with that account is verified by; None for an account that is not ours. Without accounts the
        label in the address says nothing."""
        if account is None or not self.accounts:
            return self if self.secrets else None
        return self.accounts.get(account_key(account))


@dataclass(frozen=True, slots=True)
class Registration:
    """How one gateway is set up: the variable with its secrets, and what builds its scheme.

    ``build_preparing``: instead of ``build``, for a scheme that fetches what it verifies with. ``variables``: its other
    settings, by name, or by where their names begin if they end in an underscore; those with WEBHOOK in their names
    need not be listed. ``summary`` is one line for docs/gateways.md: what is signed, how and where. ``not_offered``:
    what the gateway's signature lacks, with the reason.
    """

    name: str
    secret_variable: str
    build: Callable[[GatewayValues], SignatureScheme] | None = None
    we_choose_the_secret: bool = False
    acknowledgement: Acknowledgement | None = None
    build_preparing: Callable[[GatewayValues, Surroundings], SignatureScheme] | None = None
    variables: tuple[str, ...] = ()
    summary: str = ""
    not_offered: Mapping[Trait, str] = field(default_factory=dict)

    def wants(self, variable: str) -> bool:
        """Whether the settings hand this variable over."""
        return any(variable.startswith(name) if name.endswith("_") else variable == name for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.secret_variable, *self.variables)

    def scheme(self, values: GatewayValues, surroundings: Surroundings) -> SignatureScheme:
        if self.build_preparing is not None:
            return self.build_preparing(values, surroundings)
        assert self.build is not None, "a registration builds its scheme one way or the other"
        return self.build(values)
