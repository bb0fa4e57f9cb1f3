"""Finding what a gateway brings: one module for each part of it, in a known package or in a plug-in.

A gateway has four parts, each an attribute of one module, and nothing else in the tree names it:

* ``services.payment_service.gateways.<name>.DEFINITION``   the adapter
* ``services.webhook_ingest.signatures.<name>.REGISTRATION``  the signature scheme
* ``services.gateway_sandbox.gateways.<name>.DEFINITION``   the sandbox's format, for trying it out
* ``services.reconciler.settlement_formats.<name>.FORMATS``   its settlement files

A gateway that lives outside this repository is a package named in ``PAYRAIL_PLUGINS`` (comma-separated), with the same
in its modules ``adapter``, ``scheme``, ``sandbox`` and ``settlement``; a part that it does not bring is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from shared.configuration import ConfigurationError, split_list

PLUGINS = "PAYRAIL_PLUGINS"


PARTS = ("adapter", "scheme", "sandbox", "settlement")


def parts_of(
    package: ModuleType, attribute: str, *, plugin_module: str, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Every ``attribute`` of the package's own modules, then those of the plug-ins, by their ``name``.

    Raises ConfigurationError for a plug-in that cannot be imported or brings no part, and where two share a name: a
    plug-in must not take the place of a gateway that is there.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, Any] = {}
    for module in (*_own_modules(package), *part_modules(environ, plugin_module)):
        part = getattr(module, attribute, None)
        if part is None:
            continue
        if part.name in found:
            raise ConfigurationError(f"two gateways are called {part.name!r}; the second is in {module.__name__}")
        found[part.name] = part
    return found


def _own_modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        yield importlib.import_module(f"{package.__name__}.{found.name}")


def part_modules(environ: Mapping[str, str], wanted: str) -> Iterator[ModuleType]:
    """The module ``wanted`` of each plug-in that has one. Raises ConfigurationError."""
    for name in split_list(environ.get(PLUGINS, "")):
        try:
            importlib.import_module(name)
            parts = [part for part in PARTS if importlib.util.find_spec(f"{name}.{part}") is not None]
            module = importlib.import_module(f"{name}.{wanted}") if wanted in parts else None
        except ImportError as error:
            raise ConfigurationError(f"{PLUGINS}: {name} cannot be imported ({error})") from error
        if not parts:
            raise ConfigurationError(f"{PLUGINS}: {name} has none of the modules {', '.join(PARTS)}")
        if module is not None:
            yield module
