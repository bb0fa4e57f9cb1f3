"""Draws an invoice from its snapshot; the same snapshot gives the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from unicodedata import bidirectional

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from services.order_service.use_cases.ports import InvoiceRecord
from shared.money import Money

_FONTS = Path(__file__).parent / "fonts"
_INK = (34, 29, 24)
_SOFT = (110, 101, 92)
_LINE = (222, 215, 205)
_ACCENT = (146, 64, 14)
_MARGIN_MM = 20
_COLUMNS_MM = (86, 20, 32, 32)
_ROW_MM = 7
_ADDRESS_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")


class InvoicePages:
    """Satisfies InvoiceRenderer."""

    def __init__(self) -> None:
        # Each drawing thread makes the event loop wait for the interpreter lock, so there is never more than one: a
        # batch of mails drawn side by side held up the orders behind it for seconds (docs/performance.md).
        self._one_at_a_time = asyncio.Semaphore(1)

    async def as_pdf(self, record: InvoiceRecord) -> bytes:
        # Drawing takes a tenth of a second of CPU, which an event loop that settles orders does not have.
        async with self._one_at_a_time:
            return await asyncio.to_thread(draw_pdf, record)  # noqa: TID251 - the adapter of the renderer port

    def as_html(self, record: InvoiceRecord) -> str:
        return _html(record)


def draw_pdf(record: InvoiceRecord) -> bytes:
    page = _Page(record)
    page.draw()
    return bytes(page.output())


class _Page(FPDF):
    def __init__(self, record: InvoiceRecord) -> None:
        super().__init__(format="A4")
        self._record = record
        self._invoice = record.snapshot
        self._currency = str(self._invoice["currency"])
        self.add_font("DejaVu", fname=_FONTS / "DejaVuSans.ttf")
        self.add_font("DejaVu", style="B", fname=_FONTS / "DejaVuSans-Bold.ttf")
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
        self._party("From", _seller_lines(self._invoice["seller"]), x=_MARGIN_MM)
        left_end = self.get_y()
        self.set_y(top)
        self._party("Billed to", _customer_lines(self._invoice), x=110)
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
        for line in _payment_lines(self._invoice):
            self.multi_cell(0, 5.5, line, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _digits(self, amount_minor: int) -> str:
        return _digits(amount_minor, self._currency)

    def _font(self, size: float, *, bold: bool = False, colour: tuple[int, int, int] = _INK) -> None:
        self.set_font("DejaVu", "B" if bold else "", size)
        self.set_text_color(*colour)


def _digits(amount_minor: int, currency: str) -> str:
    """``1,234.50``, ``12.500`` for KWD, ``1,480`` for JPY."""
    return f"{Money(amount_minor, currency).as_major():,f}"


def _seller_lines(seller: Mapping[str, str]) -> list[str]:
    lines = [seller["name"], *(part.strip() for part in seller["address"].split("|"))]
    lines += [f"Tax id {seller['tax_id']}"] if seller["tax_id"] else []
    return [line for line in [*lines, seller["email"]] if line]


def _customer_lines(invoice: Mapping[str, Any]) -> list[str]:
    address = invoice["billing_address"] or {}
    customer = invoice["customer"]
    lines = [
        address.get("name") or customer["name"],
        *(address.get(name) for name in _ADDRESS_FIELDS),
        customer["email"],
    ]
    return [line for line in lines if line]


def _payment_lines(invoice: Mapping[str, Any]) -> list[str]:
    payment = invoice["payment"]
    reference = f", reference {payment['gateway_reference']}" if payment["gateway_reference"] else ""
    ordered = datetime.fromisoformat(invoice["ordered_at"])
    return [
        f"Paid in full with {payment['gateway']}{reference}.",
        f"Payment {payment['payment_id']}, order {invoice['order_id']} of {ordered:%Y-%m-%d}.",
    ]


def _html(record: InvoiceRecord) -> str:
    invoice, currency = record.snapshot, str(record.snapshot["currency"])
    rows = "".join(
        f"<tr><td>{_text(item['name'])}</td><td>{item['quantity']}</td>"
        f"<td>{_digits(item['unit_price_minor'], currency)}</td><td>{_digits(item['total_minor'], currency)}</td></tr>"
        for item in invoice["items"]
    )
    total = f"{_digits(invoice['total_minor'], currency)} {currency}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{record.label}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head><body><main>'
        f'<header><h1>Invoice</h1><strong>Paid</strong></header><p class="soft">{record.label} · issued '
        f"{record.issued_at:%Y-%m-%d}</p><section>{_party_html('From', _seller_lines(invoice['seller']))}"
        f"{_party_html('Billed to', _customer_lines(invoice))}</section><table><thead><tr><th>Item</th>"
        f"<th>Quantity</th><th>Price</th><th>Amount</th></tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="total"><span>Total paid</span><span>{total}</span></p><p class="soft">'
        f"{'<br>'.join(map(_text, _payment_lines(invoice)))}</p></main></body></html>"
    )


def _party_html(title: str, lines: list[str]) -> str:
    first, *rest = [_text(line) for line in lines]
    return f'<div><p class="soft">{title}</p><p><strong>{first}</strong><br>{"<br>".join(rest)}</p></div>'


def _text(value: str) -> str:
    """Escaped; right-to-left text is isolated so that it does not pull the numbers beside it along."""
    escaped = escape(value)
    return f"<bdi>{escaped}</bdi>" if any(bidirectional(letter) in ("R", "AL") for letter in value) else escaped


_CSS = (
    "body{margin:0;background:#f6f3ee;color:#221d18;font:16px/1.5 system-ui,sans-serif}"
    "main{max-width:720px;margin:32px auto;padding:40px;background:#fff;border-radius:12px}"
    "header{display:flex;justify-content:space-between;align-items:baseline}header strong{color:#92400e}"
    "h1{margin:0;font-size:28px}.soft{color:#6e655c;font-size:14px;margin:0 0 8px}"
    "section{display:grid;grid-template-columns:1fr 1fr;gap:24px;margin:32px 0}"
    "table{width:100%;border-collapse:collapse}th{font-size:13px;color:#6e655c;text-align:right;font-weight:500}"
    "th:first-child,td:first-child{text-align:left}td{text-align:right;padding:10px 0;border-top:1px solid #ded7cd;"
    "font-variant-numeric:tabular-nums}.total{display:flex;justify-content:space-between;font-weight:700;font-size:20px}"
    "@media(max-width:560px){main{margin:0;border-radius:0;padding:24px}section{grid-template-columns:1fr}}"
    "@media print{body{background:#fff}}"
)
