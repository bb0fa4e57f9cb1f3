"""What a gateway's package in the sandbox exports as ``DEFINITION``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from services.gateway_sandbox.domain.signatures import split_secrets
from services.gateway_sandbox.gateways.port import SandboxGateway
from shared.randomness import Randomness


@dataclass(frozen=True, slots=True)
class Site:
    """Where this sandbox is and whose it plays. ``variables``: the gateway's own settings, named as Payrail's services
    name them so that both ends agree by themselves; those that are not set are absent."""

    variables: Mapping[str, str]
    public_base_url: str
    merchant: str
    randomness: Randomness

    def text(self, variable: str) -> str | None:
        return self.variables.get(variable)

    def secrets(self, variable: str) -> tuple[str, ...]:
        """Several while one is rotated, comma-separated; the first one signs."""
        return split_secrets(self.variables.get(variable, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxDefinition:
    """``build`` returns None where the gateway is not on: where what it signs webhooks with is not set.

    ``variables``: every setting that it reads. ``secrets`` makes those that a development installation needs, once;
    what it returns may name more than ``variables``, for the other side. ``addresses`` says what points at the sandbox,
    given the gateway's own address there (``http://127.0.0.1:8000/sandbox/tabby``).
    """

    name: str
    build: Callable[[Site], SandboxGateway | None]
    variables: tuple[str, ...]
    secrets: Callable[[Randomness], Mapping[str, str]]
    addresses: Callable[[str], Mapping[str, str]] = field(default=lambda _address: {})
