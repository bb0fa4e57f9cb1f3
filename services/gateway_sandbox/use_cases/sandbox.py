"""What every use case works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.use_cases.ports import UnitOfWork
from shared.errors import NotFound
from shared.ports import Ports


class KeyInFlight(Exception):
    """Another call of this process with the same idempotency key is still being worked on."""


@dataclass(slots=True)
class KeysInFlight:
    """Keys that are being worked on in this process, so that a delayed call collides as a slow one would.

    Across processes the advisory lock of ``StoredAnswers.lock`` says the same for the time of the work itself.
    """

    _keys: set[tuple[str, str]] = field(default_factory=set)

    @property
    def count(self) -> int:
        return len(self._keys)

    @contextmanager
    def hold(self, gateway: str, key: str | None) -> Iterator[None]:
        """Raises KeyInFlight."""
        if key is None:
            yield
            return
        if (gateway, key) in self._keys:
            raise KeyInFlight
        self._keys.add((gateway, key))
        try:
            yield
        finally:
            self._keys.discard((gateway, key))


def _nobody_waits() -> None:
    return None


@dataclass(slots=True)
class Sandbox:
    """``wake_deliverer`` is called after a commit that left something to deliver."""

    uow: UnitOfWork
    gateways: Mapping[str, SandboxGateway]
    ports: Ports
    keys_in_flight: KeysInFlight = field(default_factory=KeysInFlight)
    wake_deliverer: Callable[[], None] = _nobody_waits

    def gateway(self, name: str) -> SandboxGateway:
        if name not in self.gateways:
            raise NotFound(f"the sandbox has no gateway {name!r}; it has {', '.join(sorted(self.gateways))}")
        return self.gateways[name]
