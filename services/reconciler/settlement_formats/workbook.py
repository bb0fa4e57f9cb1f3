"""Sheets of an .xlsx workbook as tables of text.

Formulas are never computed: a cell has the value that was stored with it, or none. defusedxml, which openpyxl uses
where it is installed, refuses entities.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import Any, cast
from zipfile import BadZipFile

import openpyxl
from defusedxml.common import DefusedXmlException
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from services.reconciler.domain.settlement import BadRow, Parsed
from services.reconciler.settlement_formats.content import HEAD_ROWS, Notes
from services.reconciler.settlement_formats.limits import ReadingLimits
from services.reconciler.settlement_formats.opening import Opened
from services.reconciler.settlement_formats.port import (
    Head,
    Layout,
    ReadingContext,
    Row,
    SettlementFormat,
    TableFormat,
    Unreadable,
)

MAX_SHEETS = 50

_WHOLE_NUMBERS = 10**30
"""Above it nothing is an amount or an id, and digits without an exponent would be noise."""

_DAMAGED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, SyntaxError, EOFError, BadZipFile)
"""What openpyxl raises at a workbook that is none: it has no error of its own (ParseError is a SyntaxError)."""


def sheets(opened: Opened, limits: ReadingLimits) -> Iterator[Sheet]:
    assert openpyxl.DEFUSEDXML, "without defusedxml a workbook could expand entities"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, which are nothing to us
        try:
            workbook = openpyxl.load_workbook(opened.raw, read_only=True, data_only=True, keep_links=False)
        except _DAMAGED as error:
            raise _damaged(error) from None
    # What nobody sees is not what was sent: templates keep old tables and lookups on hidden sheets.
    visible = [each for each in workbook.worksheets if each.sheet_state == "visible"]
    if len(visible) > MAX_SHEETS:
        raise Unreadable("too_many_sheets", f"the workbook has {len(visible)} sheets; {MAX_SHEETS} are accepted")
    for worksheet in visible:
        if isinstance(worksheet, ReadOnlyWorksheet):
            yield Sheet(worksheet, limits)


class Sheet:
    def __init__(self, worksheet: ReadOnlyWorksheet, limits: ReadingLimits) -> None:
        worksheet.reset_dimensions()  # what it says about its size may be anything
        self._worksheet = worksheet
        self._limits = limits
        self.head = Head(Layout.TABLE, rows=tuple(islice(self.rows(Notes()), HEAD_ROWS)))

    def rows(self, notes: Notes) -> Iterator[Row]:
        limits, width = self._limits, 0
        for line_number, values in enumerate(self._values(), start=1):
            if line_number > limits.max_rows:
                raise Unreadable("too_many_rows", f"the sheet has more than {limits.max_rows} rows")
            if len(values) > limits.max_columns:
                raise Unreadable(
                    "too_many_columns", f"a row has {len(values)} columns; {limits.max_columns} are accepted"
                )
            cells = [cell_text(value) for value in values]
            if not any(cells):
                continue
            notes.rows += 1
            if max(map(len, cells)) > limits.max_cell_length:
                detail = f"a cell has more than {limits.max_cell_length} characters"
                notes.bad_rows.append(BadRow(line_number, "cell_too_long", detail))
                continue
            # A spreadsheet stores no empty cells at a row's end.
            width = max(width, len(cells))
            yield Row(line_number, cells + [""] * (width - len(cells)))

    def parsed(self, format_: SettlementFormat, context: ReadingContext, notes: Notes) -> Iterator[Parsed]:
        return cast("TableFormat", format_).read(self.rows(notes), context)

    def _values(self) -> Iterator[tuple[Any, ...]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield from self._worksheet.iter_rows(values_only=True)  # type: ignore[misc]
            except _DAMAGED as error:
                raise _damaged(error) from None


def cell_text(value: Any) -> str:
    """As a person would have typed it: 19.99 is ``19.99``, a whole number has no point, dates are ISO."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return _number_text(value)
    if isinstance(value, datetime):
        is_day = value.time() == time()
        return value.date().isoformat() if is_day else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def _number_text(value: float) -> str:
    """The shortest digits that mean this number: those that were typed, up to the fifteen that a sheet keeps."""
    if value.is_integer() and abs(value) < _WHOLE_NUMBERS:
        return str(int(value))
    return f"{Decimal(repr(value)):f}" if abs(value) < _WHOLE_NUMBERS else repr(value)


def _damaged(error: Exception) -> Unreadable:
    if isinstance(error, DefusedXmlException) or isinstance(error.__cause__, DefusedXmlException):
        return Unreadable("archive_refused", "the workbook defines entities, which no spreadsheet program does")
    return Unreadable("workbook_damaged", f"the workbook cannot be read: {type(error).__name__}")
