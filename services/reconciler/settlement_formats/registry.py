"""Every settlement format: those of this package's modules, and those of plug-ins (``<package>.settlement``)."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import ModuleType

from services.reconciler import settlement_formats
from services.reconciler.settlement_formats.cells import shown
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext, SettlementFormat, Unreadable
from shared.configuration import ConfigurationError
from shared.plugins import PLUGINS, part_modules

PART = "settlement"

_MACHINERY = frozenset({"child", "isolation", "process", "registry", "workbook", "json_content"})
"""Modules that read files for the formats, some of them slow to import."""


def format_named(name: str) -> SettlementFormat:
    """Raises Unreadable."""
    found = formats().get(name)
    if found is None:
        known = ", ".join(sorted(formats()))
        raise Unreadable("format_unknown", f"there is no format {shown(name)}; there are {known}")
    return found


def formats_for(gateway: str) -> tuple[SettlementFormat, ...]:
    """The gateway's own, and those of any gateway."""
    return tuple(each for each in formats().values() if each.gateway in (gateway, None))


def recognise(head: Head, context: ReadingContext, *, name: str | None = None) -> SettlementFormat:
    """The format that this content is in; ``name``: which it is said to be. Raises Unreadable."""
    if name is not None:
        return _as_named(format_named(name), head, context)
    found = [each for each in formats().values() if _recognises(each, head, context)]
    own = [each for each in found if each.gateway in (context.gateway, None)]
    if len(own) == 1:
        return own[0]
    if own:
        names = ", ".join(each.name for each in own)
        raise Unreadable("format_ambiguous", f"it may be {names}: say which")
    if found:
        other = found[0]
        raise Unreadable("wrong_gateway", f"it is a {other.name} file of {other.gateway}, not of {context.gateway}")
    raise Unreadable("format_unknown", _unknown(head, context.gateway))


def _as_named(named: SettlementFormat, head: Head, context: ReadingContext) -> SettlementFormat:
    if named.gateway not in (context.gateway, None):
        raise Unreadable("wrong_gateway", f"{named.name} is a format of {named.gateway}, not of {context.gateway}")
    if not _recognises(named, head, context):
        raise Unreadable("format_mismatch", f"it is no {_described(named)}; {_seen(head)}")
    return named


def _recognises(format_: SettlementFormat, head: Head, context: ReadingContext) -> bool:
    """With the installation's own headers, for formats of its gateway that take them."""
    if format_.layout is not head.layout:
        return False
    arranged = getattr(format_, "recognises_arranged", None)
    if arranged is not None and context.header_map and format_.gateway == context.gateway:
        return bool(arranged(head, context.header_map))
    return format_.recognises(head)


def _unknown(head: Head, gateway: str) -> str:
    known = "; ".join(_described(each) for each in formats_for(gateway) if each.layout is head.layout)
    return f"no format of {gateway} knows it: {_seen(head)}. Known: {known or 'none of this kind of file'}"


def _described(format_: SettlementFormat) -> str:
    needs = ", ".join(getattr(format_, "needs", ()))
    return f"{format_.name} ({needs})" if needs else format_.name


def _seen(head: Head) -> str:
    """Names of columns and keys, which are no personal data: a first row that looks like data is only counted."""
    if head.layout is Layout.JSON:
        return f"it has the keys {', '.join(map(shown, sorted(head.keys)[:20])) or 'of no object'}"
    if not head.rows:
        return "it has no rows"
    return f"its first row has {len(head.rows[0].cells)} columns"


# --- finding them -----------------------------------------------------------------------------------------------------


def formats(environ: Mapping[str, str] | None = None) -> Mapping[str, SettlementFormat]:
    """By name. Raises ConfigurationError for a plug-in that cannot be used."""
    return _formats((os.environ if environ is None else environ).get(PLUGINS, ""))


@cache
def _formats(plugins: str) -> Mapping[str, SettlementFormat]:
    found: dict[str, SettlementFormat] = {}
    for module in (*_own_modules(), *part_modules({PLUGINS: plugins}, PART)):
        for each in _formats_in(module):
            if each.name in found:
                raise ConfigurationError(f"two formats are called {each.name!r}; the second is in {module.__name__}")
            found[each.name] = each
    return found


def _formats_in(module: ModuleType) -> Iterable[SettlementFormat]:
    return getattr(module, "FORMATS", ())


def _own_modules() -> Iterator[ModuleType]:
    for found in sorted(pkgutil.iter_modules(settlement_formats.__path__), key=lambda each: each.name):
        if found.name not in _MACHINERY:
            yield importlib.import_module(f"{settlement_formats.__name__}.{found.name}")
