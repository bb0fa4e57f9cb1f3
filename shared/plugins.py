"""Finding what a gateway brings: one module for each part of it, in a known package or in a plug-in.

A gateway has three parts, each an attribute of one module, and nothing else in the tree names it:

* ``services.payment_service.gateways.<name>.DEFINITION``   the adapter
* ``services.webhook_ingest.signatures.<name>.REGISTRATION``  the signature scheme
* ``services.gateway_sandbox.gateways.<name>.DEFINITION``   the sandbox's format, for trying it out

A gateway that lives outside this repository is a package named in ``PAYRAIL_PLUGINS`` (comma-separated), with the same
three in its modules ``adapter``, ``scheme`` and ``sandbox``; a part that it does not bring is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from shared.settings import ConfigurationError, split_list

PLUGINS = "PAYRAIL_PLUGINS"


def parts_of(
    package: ModuleType, attribute: str, *, plugin_module: str, environ: Mapping[str, str] | None = None
) -> list[Any]:
    """Every ``attribute`` of the package's own modules, in the order of their names, then those of the plug-ins.

    Raises ConfigurationError for a plug-in that cannot be imported.
    """
    environ = os.environ if environ is None else environ
    modules = [*_own_modules(package), *_plugin_modules(environ, plugin_module)]
    return [getattr(module, attribute) for module in modules if hasattr(module, attribute)]


def _own_modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        yield importlib.import_module(f"{package.__name__}.{found.name}")


def _plugin_modules(environ: Mapping[str, str], part: str) -> Iterator[ModuleType]:
    for name in split_list(environ.get(PLUGINS, "")):
        try:
            importlib.import_module(name)
            is_there = importlib.util.find_spec(f"{name}.{part}") is not None
        except ImportError as error:
            raise ConfigurationError(f"{PLUGINS}: {name} cannot be imported ({error})") from error
        if is_there:
            yield importlib.import_module(f"{name}.{part}")
