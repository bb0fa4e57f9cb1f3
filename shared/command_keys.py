"""The settings that sign and verify commands: ``COMMAND_SIGNING_KEY`` of a sender, ``COMMAND_KEYS`` of a receiver.

A compose file hands on variables that nobody set as empty ones, so blank means unset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from shared.settings import split_list

MIN_KEY_BYTES = 32
"""A key as long as the signature that it makes (HMAC-SHA256)."""

_KEY = re.compile(rf"(?:[0-9a-fA-F]{{2}}){{{MIN_KEY_BYTES},}}")


def signing_key(setting: SecretStr | None) -> bytes | None:
    """What this service signs its commands with; None: it sends none."""
    return bytes.fromhex(setting.get_secret_value().strip()) if setting is not None else None


def senders(setting: SecretStr | None) -> Mapping[str, tuple[bytes, ...]]:
    """Whose commands are obeyed, with the keys that sign them (several while one is rotated)."""
    keys: dict[str, tuple[bytes, ...]] = {}
    for entry in split_list(setting.get_secret_value() if setting is not None else ""):
        sender, _, key = entry.partition(":")
        keys[sender] = (*keys.get(sender, ()), bytes.fromhex(key))
    return keys


def _signing_key_is_long(setting: SecretStr | None) -> SecretStr | None:
    given = setting.get_secret_value().strip() if setting is not None else ""
    if given and not _KEY.fullmatch(given):
        raise ValueError(f"COMMAND_SIGNING_KEY is at least {MIN_KEY_BYTES} bytes in hex: openssl rand -hex 32")
    return setting if given else None


def _keys_are_keys(setting: SecretStr | None) -> SecretStr | None:
    entries = split_list(setting.get_secret_value() if setting is not None else "")
    for entry in entries:
        sender, _, key = entry.partition(":")
        if not sender or not _KEY.fullmatch(key):
            raise ValueError(
                f"COMMAND_KEYS is a comma-separated list of <sender>:<at least {MIN_KEY_BYTES} bytes in hex>"
            )
    return setting if entries else None


CommandSigningKey = Annotated[SecretStr | None, AfterValidator(_signing_key_is_long)]
"""The type of the setting ``command_signing_key``; read it with ``signing_key``."""

CommandKeys = Annotated[SecretStr | None, AfterValidator(_keys_are_keys)]
"""The type of the setting ``command_keys``; read it with ``senders``."""
