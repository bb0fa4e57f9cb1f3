"""What an invoice says, line by line, and its HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any
from unicodedata import bidirectional

from services.order_service.use_cases.ports import InvoiceRecord
from shared.money import Money

_ADDRESS_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")


def digits(amount_minor: int, currency: str) -> str:
    """``1,234.50``, ``12.500`` for KWD, ``1,480`` for JPY."""
    return f"{Money(amount_minor, currency).as_major():,f}"


def seller_lines(seller: Mapping[str, str]) -> list[str]:
    lines = [seller["name"], *(part.strip() for part in seller["address"].split("|"))]
    lines += [f"Tax id {seller['tax_id']}"] if seller["tax_id"] else []
    return [line for line in [*lines, seller["email"]] if line]


def customer_lines(invoice: Mapping[str, Any]) -> list[str]:
    address = invoice["billing_address"] or {}
    customer = invoice["customer"]
    lines = [
        address.get("name") or customer["name"],
        *(address.get(name) for name in _ADDRESS_FIELDS),
        customer["email"],
    ]
    return [line for line in lines if line]


def payment_lines(invoice: Mapping[str, Any]) -> list[str]:
    payment = invoice["payment"]
    reference = f", reference {payment['gateway_reference']}" if payment["gateway_reference"] else ""
    ordered = datetime.fromisoformat(invoice["ordered_at"])
    return [
        f"Paid in full with {payment['gateway']}{reference}.",
        f"Payment {payment['payment_id']}, order {invoice['order_id']} of {ordered:%Y-%m-%d}.",
    ]


def as_html(record: InvoiceRecord) -> str:
    invoice, currency = record.snapshot, str(record.snapshot["currency"])
    rows = "".join(
        f"<tr><td>{_text(item['name'])}</td><td>{item['quantity']}</td>"
        f"<td>{digits(item['unit_price_minor'], currency)}</td><td>{digits(item['total_minor'], currency)}</td></tr>"
        for item in invoice["items"]
    )
    total = f"{digits(invoice['total_minor'], currency)} {currency}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{record.label}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head><body><main>'
        f'<header><h1>Invoice</h1><strong>Paid</strong></header><p class="soft">{record.label} · issued '
        f"{record.issued_at:%Y-%m-%d}</p><section>{_party_html('From', seller_lines(invoice['seller']))}"
        f"{_party_html('Billed to', customer_lines(invoice))}</section><table><thead><tr><th>Item</th>"
        f"<th>Quantity</th><th>Price</th><th>Amount</th></tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="total"><span>Total paid</span><span>{total}</span></p><p class="soft">'
        f"{'<br>'.join(map(_text, payment_lines(invoice)))}</p></main></body></html>"
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
