"""The installation's own say about a table that each merchant arranges with the gateway.

Its map has the format's logical columns as keys and the file's headers as values, and may hold two more keys:
``amounts_in`` (``major`` or ``minor``) and ``thousands_separator`` (``,``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from services.reconciler.settlement_formats.cells import AmountStyle, Unit, shown
from services.reconciler.settlement_formats.headers import NamesInFiles, normalised
from services.reconciler.settlement_formats.port import Unreadable

AMOUNTS_IN = "amounts_in"
THOUSANDS_SEPARATOR = "thousands_separator"


@dataclass(frozen=True, slots=True)
class Arrangement:
    headers: Mapping[str, str]
    """Logical column → header, normalised."""
    style: AmountStyle

    def in_files(self, columns: Mapping[str, tuple[str, ...]]) -> NamesInFiles:
        """The headers of each logical column: the installation's own, or else those that the format knows."""
        chosen = self.headers
        return {
            logical: (chosen[logical],) if logical in chosen else tuple(map(normalised, names))
            for logical, names in columns.items()
        }


def arrangement_of(header_map: Mapping[str, str], columns: Collection[str], style: AmountStyle) -> Arrangement:
    """Raises Unreadable for a map that names a column which the format does not have: it would count for nothing."""
    options = {AMOUNTS_IN, THOUSANDS_SEPARATOR}
    unknown = sorted(set(header_map) - set(columns) - options)
    if unknown:
        known = ", ".join(sorted({*columns, *options}))
        raise Unreadable("header_map_unknown", f"the header map names {shown(unknown[0])}; it may name {known}")
    headers = {logical: normalised(header) for logical, header in header_map.items() if logical not in options}
    return Arrangement(headers, _style(header_map, style))


def _style(header_map: Mapping[str, str], style: AmountStyle) -> AmountStyle:
    unit, separator = header_map.get(AMOUNTS_IN), header_map.get(THOUSANDS_SEPARATOR, "")
    if unit not in (None, Unit.MAJOR.value, Unit.MINOR.value) or separator not in ("", ","):
        raise Unreadable(
            "header_map_unknown", f"{AMOUNTS_IN} is 'major' or 'minor', {THOUSANDS_SEPARATOR} is ',' or nothing"
        )
    if unit is not None:
        style = replace(style, unit=Unit(unit), point_required=False)
    return replace(style, grouped=True) if separator else style
