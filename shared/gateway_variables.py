"""Gateways' settings as a flat mapping of environment variables, so that a new gateway changes no settings class.

A variable may name an account of ours at the gateway, where we have several: ``STRIPE_API_KEY__EU`` beside
``STRIPE_API_KEY``. Any of them may instead name a file: ``STRIPE_API_KEY_FILE``, ``STRIPE_API_KEY__EU_FILE`` (SEC-70).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from shared.settings import ConfigurationError

ACCOUNT_SEPARATOR = "__"


def read_gateway_variables(environ: Mapping[str, str], is_wanted: Callable[[str], bool]) -> dict[str, str]:
    """The variables whose name (without account and ``_FILE``) is wanted, blank ones left out.

    Raises ConfigurationError for a file that cannot be read.
    """
    values: dict[str, str] = {}
    for variable, value in environ.items():
        name = variable.upper()
        target = name.removesuffix("_FILE")
        if not value.strip():
            continue
        if name != target and is_wanted(base_name(target)):
            values[target] = _read(name, value)
        elif name == target and is_wanted(base_name(name)):
            values[name] = value
    return values


def base_name(variable: str) -> str:
    """Without the account: ``STRIPE_API_KEY`` of ``STRIPE_API_KEY__EU``."""
    return variable.partition(ACCOUNT_SEPARATOR)[0]


def account_key(account: str) -> str:
    """An account as it appears in a variable's name: ``eu-1`` is the ``EU_1`` of ``STRIPE_API_KEY__EU_1``."""
    return re.sub(r"[^A-Z0-9]", "_", account.upper())


def account_name(key: str) -> str:
    """An account as we write it: the ``eu_1`` of ``STRIPE_API_KEY__EU_1``, of ``/webhooks/stripe/EU-1`` too."""
    return account_key(key).lower()


def accounts_of(variables: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """The accounts that any of these variables is set for, sorted, as ``account_name`` writes them."""
    wanted = set(names)
    found = (variable.partition(ACCOUNT_SEPARATOR) for variable in variables)
    return sorted({account_name(key) for name, separator, key in found if separator and key and name in wanted})


def value_for(variables: Mapping[str, str], name: str, account: str | None) -> str | None:
    """The account's own value, else the one that all accounts share."""
    if account is not None:
        own = variables.get(f"{name}{ACCOUNT_SEPARATOR}{account_key(account)}")
        if own is not None:
            return own
    return variables.get(name)


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{variable} cannot be read: {type(error).__name__}") from None
