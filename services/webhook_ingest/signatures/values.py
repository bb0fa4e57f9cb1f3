"""The gateways' settings as one flat mapping, so that a new gateway's variables change no settings class."""

from __future__ import annotations

from collections.abc import Mapping

from services.webhook_ingest.signatures.port import InvalidSchemeConfig
from shared.gateway_variables import ACCOUNT_SEPARATOR


class GatewayValues:
    """Environment variables by name, with what their ``_FILE`` forms point to already read in."""

    def __init__(self, values: Mapping[str, str], *, public_base_url: str = "http://127.0.0.1:8000") -> None:
        self._values = {name.upper(): value for name, value in values.items()}
        self.public_base_url = public_base_url.rstrip("/")

    def for_account(self, key: str | None) -> GatewayValues:
        """As one account sees them: its own values where it has some, else those that all share, and no other
        account's."""
        shared = {name: value for name, value in self._values.items() if ACCOUNT_SEPARATOR not in name}
        ending = f"{ACCOUNT_SEPARATOR}{key}"
        own = {name.removesuffix(ending): value for name, value in self._values.items() if name.endswith(ending)}
        return GatewayValues(shared | (own if key is not None else {}), public_base_url=self.public_base_url)

    def __repr__(self) -> str:
        return "GatewayValues(…)"

    def text(self, name: str) -> str | None:
        """None when the variable is missing or blank."""
        value = self._values.get(name, "")
        return value if value.strip() else None

    def integer(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not value.strip().isascii() or not value.strip().isdigit():
            raise InvalidSchemeConfig(f"{name} must be a whole number")
        return int(value)

    def flag(self, name: str) -> bool:
        return (self.text(name) or "").strip().lower() in ("1", "true", "yes", "on")

    def items(self, name: str) -> tuple[str, ...]:
        """A comma-separated list; blanks are left out."""
        return tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())

    def secrets(self, name: str) -> tuple[str, ...]:
        """The secrets that are valid at the moment: several while one is rotated."""
        return self.items(name)

    def names_starting_with(self, prefix: str) -> list[str]:
        return sorted(name for name in self._values if name.startswith(prefix) and name != prefix)
