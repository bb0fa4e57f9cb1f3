"""Draws an invoice from its snapshot as PDF; the same snapshot gives the same bytes.

Drawing takes a tenth of a second of CPU, half of it for reading the fonts, and as much memory as a service: it is done
in a process of its own (``process.py``), which reads them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from services.order_service.invoicing.page import customer_lines, digits, payment_lines, seller_lines
from services.order_service.use_cases.ports import InvoiceRecord

_FONTS = Path(__file__).parent / "fonts"
_INK = (34, 29, 24)
_SOFT = (110, 101, 92)
_LINE = (222, 215, 205)
_ACCENT = (146, 64, 14)
_MARGIN_MM = 20
_COLUMNS_MM = (86, 20, 32, 32)
_ROW_MM = 7


Fonts = Mapping[str, Any]
"""As the library keeps them. Drawing changes them, so that each drawing takes fonts that nobody else will use."""


def read_fonts() -> Fonts:
    """All that the library would read for each invoice anew."""
    with_fonts = FPDF()
    _add_fonts(with_fonts)
    fonts: Fonts = with_fonts.fonts
    for font in fonts.values():
        for table in font.ttfont.keys():  # noqa: SIM118 - it is no mapping
            font.ttfont[table]  # reading it is what keeps it
        font.ttfont.getReverseGlyphMap()
        font.hbfont  # noqa: B018 - as above
    return fonts


def draw_pdf(record: InvoiceRecord, fonts: Fonts | None = None) -> bytes:
    """``fonts`` are used up."""
    page = _Page(record, fonts)
    page.draw()
    return bytes(page.output())


def _add_fonts(pdf: FPDF) -> None:
    pdf.add_font("DejaVu", fname=_FONTS / "DejaVuSans.ttf")
    pdf.add_font("DejaVu", style="B", fname=_FONTS / "DejaVuSans-Bold.ttf")


class _Page(FPDF):
    def __init__(self, record: InvoiceRecord, fonts: Fonts | None) -> None:
        super().__init__(format="A4")
        self._record = record
        self._invoice = record.snapshot
        self._currency = str(self._invoice["currency"])
        if fonts is None:
            _add_fonts(self)
        else:
            self.fonts.update(fonts)
        self.set_text_shaping(True)  # joins Arabic letters and orders right-to-left text
        self.set_margins(_MARGIN_MM, _MARGIN_MM)
        self.set_auto_page_break(True, margin=25)
        self.set_creation_date(record.issued_at)  # so that drawing it twice gives the same file
        self.set_title(f"{record.label}")
        self.set_lang("en")
        self.add_page()

    def draw(self) -> None:
        self._heading()
        self._parties()
        self._items()
        self._total()
        self._paid_note()

    def footer(self) -> None:
        self.set_y(-18)
        self._font(8, colour=_SOFT)
        self.cell(
            0, 5, f"{self._record.label} · {self._invoice['order_id']} · page {self.page_no()} of {{nb}}", align="C"
        )

    def _heading(self) -> None:
        self._font(20, bold=True)
        self.cell(100, 10, "Invoice", new_x=XPos.RIGHT, new_y=YPos.TOP)
        self._font(10, bold=True, colour=_ACCENT)
        self.cell(0, 10, "PAID", align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self._font(10, colour=_SOFT)
        issued = f"{self._record.issued_at:%Y-%m-%d}"
        self.cell(0, 6, f"{self._record.label}   ·   issued {issued}", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(8)

    def _parties(self) -> None:
        top = self.get_y()
        self._party("From", seller_lines(self._invoice["seller"]), x=_MARGIN_MM)
        left_end = self.get_y()
        self.set_y(top)
        self._party("Billed to", customer_lines(self._invoice), x=110)
        self.set_y(max(left_end, self.get_y()) + 8)

    def _party(self, title: str, lines: list[str], *, x: float) -> None:
        self.set_x(x)
        self._font(8, colour=_SOFT)
        self.cell(80, 5, title, new_x=XPos.LEFT, new_y=YPos.NEXT)
        for number, line in enumerate(lines):
            self.set_x(x)
            self._font(10, bold=number == 0)
            # The column starts at the left for right-to-left text too: shaping orders the letters, not the page.
            self.multi_cell(80, 5.5, line, align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)

    def _items(self) -> None:
        self._row(("Item", "Quantity", f"Price, {self._currency}", f"Amount, {self._currency}"), header=True)
        for item in self._invoice["items"]:
            self._row(
                (
                    item["name"],
                    str(item["quantity"]),
                    self._digits(item["unit_price_minor"]),
                    self._digits(item["total_minor"]),
                )
            )

    def _row(self, cells: tuple[str, str, str, str], *, header: bool = False) -> None:
        self._font(8 if header else 10, colour=_SOFT if header else _INK)
        lines = self.multi_cell(_COLUMNS_MM[0], _ROW_MM, cells[0], dry_run=True, output="LINES")
        assert isinstance(lines, list)
        height = _ROW_MM * max(1, len(lines))
        if self.will_page_break(height):
            self.add_page()
        top = self.get_y()
        self.multi_cell(_COLUMNS_MM[0], _ROW_MM, cells[0], align="L", new_x=XPos.RIGHT, new_y=YPos.TOP)
        for width, value in zip(_COLUMNS_MM[1:], cells[1:], strict=True):
            self.cell(width, _ROW_MM, value, align="R", new_x=XPos.RIGHT, new_y=YPos.TOP)
        self.set_xy(_MARGIN_MM, top + height)
        self.set_draw_color(*_LINE)
        self.line(_MARGIN_MM, self.get_y() + 0.5, _MARGIN_MM + sum(_COLUMNS_MM), self.get_y() + 0.5)
        self.ln(1.5)

    def _total(self) -> None:
        self.ln(3)
        self._font(12, bold=True)
        self.cell(_COLUMNS_MM[0] + _COLUMNS_MM[1], 9, "Total paid", new_x=XPos.RIGHT, new_y=YPos.TOP)
        amount = f"{self._digits(self._invoice['total_minor'])} {self._currency}"
        self.cell(_COLUMNS_MM[2] + _COLUMNS_MM[3], 9, amount, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _paid_note(self) -> None:
        self.ln(6)
        self._font(9, colour=_SOFT)
        for line in payment_lines(self._invoice):
            self.multi_cell(0, 5.5, line, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _digits(self, amount_minor: int) -> str:
        return digits(amount_minor, self._currency)

    def _font(self, size: float, *, bold: bool = False, colour: tuple[int, int, int] = _INK) -> None:
        self.set_font("DejaVu", "B" if bold else "", size)
        self.set_text_color(*colour)
