"""The words of the mails. What people typed is escaped in HTML and carries no line breaks into headers."""

from __future__ import annotations

from datetime import datetime
from html import escape

from services.order_service.domain.models import Order
from services.order_service.use_cases.dependencies import Shop
from services.order_service.use_cases.ports import Attachment, InvoiceRecord, Mail
from shared.money import Money


def order_paid_mail(order: Order, record: InvoiceRecord, invoice_pdf: bytes, *, shop: Shop, mail_domain: str) -> Mail:
    """The confirmation. Its Message-ID depends on the order alone, so that every attempt carries the same."""
    lines = [(item.name, item.quantity, format_money(item.total)) for item in order.items]
    total = format_money(order.total)
    return Mail(
        message_id=f"<order-paid.{order.id}@{mail_domain}>",
        recipient=order.customer.email,
        recipient_name=order.customer.name,
        subject=f"{shop.name}: your order is paid ({record.label})",
        text_body=_text(order, record, lines, total, shop),
        html_body=_html(order, record, lines, total, shop),
        sent_at=_moment(order, record),
        attachments=(Attachment(f"{record.label}.pdf", "application/pdf", invoice_pdf),),
    )


def format_money(money: Money) -> str:
    """``12.500 KWD``, ``1,480 JPY``: every digit that the currency has."""
    return f"{money.as_major():,f} {money.currency}"


def _moment(order: Order, record: InvoiceRecord) -> datetime:
    return order.confirmed_at or record.issued_at


def _text(order: Order, record: InvoiceRecord, lines: list[tuple[str, int, str]], total: str, shop: Shop) -> str:
    rows = "\n".join(f"  {quantity} x {name}: {price}" for name, quantity, price in lines)
    return (
        f"Hello {order.customer.name},\n\nthank you: we have received your payment of {total}.\n\n{rows}\n\n"
        f"Total: {total}\nOrder: {order.id}\nInvoice: {record.label} (attached)\n\n{shop.name}\n"
    )


def _html(order: Order, record: InvoiceRecord, lines: list[tuple[str, int, str]], total: str, shop: Shop) -> str:
    cell = "padding:8px 0;border-bottom:1px solid #e6e1d8"
    rows = "".join(
        f'<tr><td style="{cell}"><bdi>{escape(name)}</bdi> &times; {quantity}</td>'
        f'<td style="{cell};text-align:right;white-space:nowrap">{escape(price)}</td></tr>'
        for name, quantity, price in lines
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Your order is paid</title></head>'
        '<body style="margin:0;background:#f6f3ee;font-family:system-ui,-apple-system,sans-serif;color:#221d18">'
        '<div style="max-width:560px;margin:32px auto;padding:32px;background:#fff;border-radius:12px">'
        f'<p style="margin:0 0 24px;font-weight:600">{escape(shop.name)}</p>'
        '<h1 style="font-size:22px;margin:0 0 8px">Thank you, your order is paid</h1>'
        f"<p>Hello <bdi>{escape(order.customer.name)}</bdi>, we have received your payment of "
        f"<strong>{escape(total)}</strong>.</p>"
        f'<table style="width:100%;border-collapse:collapse">{rows}<tr><td style="padding:12px 0">'
        '<strong>Total</strong></td><td style="padding:12px 0;text-align:right">'
        f"<strong>{escape(total)}</strong></td></tr></table>"
        f'<p style="color:#6b6259;font-size:14px">Order {escape(order.id)}<br>Invoice {record.label} is attached.</p>'
        "</div></body></html>"
    )
