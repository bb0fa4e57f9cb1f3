"""The words of the mails. What people typed is escaped in HTML and carries no line breaks into headers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape

from services.order_service.domain.models import Order
from services.order_service.use_cases.dependencies import Shop
from services.order_service.use_cases.ports import Attachment, InvoiceRecord, Mail, RefundRecord
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


_WHY_REFUNDED: Mapping[str, str] = {
    # Only our own codes: what a back office writes as a reason is not meant for the customer.
    "duplicate_payment": "This order had been paid twice, so we have given the second payment back.",
    "late_payment": "Your payment reached us when the order had already expired, so we have given it back.",
    "order_canceled": "Your payment reached us when the order had already been canceled, so we have given it back.",
}
_WHEN_IT_ARRIVES = "Most banks show it within 5 to 10 days; how long it takes is up to them."


def refund_mail(order: Order, record: RefundRecord, *, shop: Shop, mail_domain: str) -> Mail:
    """Sent when the gateway has confirmed a refund. Its Message-ID depends on the refund alone."""
    refund = record.refund
    amount = format_money(refund.amount)
    why = _WHY_REFUNDED.get(refund.reason or "", "We have given money back to you.")
    return Mail(
        message_id=f"<order-refunded.{refund.refund_id}@{mail_domain}>",
        recipient=order.customer.email,
        recipient_name=order.customer.name,
        subject=f"{shop.name}: your refund of {amount}",
        text_body=_refund_text(order, record, amount, why, shop),
        html_body=_refund_html(order, record, amount, why, shop),
        sent_at=record.updated_at,
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
    body = (
        f"<p>Hello <bdi>{escape(order.customer.name)}</bdi>, we have received your payment of "
        f"<strong>{escape(total)}</strong>.</p>"
        f'<table style="width:100%;border-collapse:collapse">{rows}<tr><td style="padding:12px 0">'
        '<strong>Total</strong></td><td style="padding:12px 0;text-align:right">'
        f"<strong>{escape(total)}</strong></td></tr></table>"
        f'<p style="color:#6b6259;font-size:14px">Order {escape(order.id)}<br>Invoice {record.label} is attached.</p>'
    )
    return _page("Your order is paid", "Thank you, your order is paid", body, shop)


def _refund_text(order: Order, record: RefundRecord, amount: str, why: str, shop: Shop) -> str:
    return (
        f"Hello {order.customer.name},\n\n{why}\n\n"
        f"Refunded: {amount}\nOrder: {order.id}\nRefund: {record.refund.refund_id}\n\n"
        f"The money goes back the way it was paid. {_WHEN_IT_ARRIVES}\n\n{shop.name}\n"
    )


def _refund_html(order: Order, record: RefundRecord, amount: str, why: str, shop: Shop) -> str:
    body = (
        f"<p>Hello <bdi>{escape(order.customer.name)}</bdi>, <strong>{escape(amount)}</strong> is on its way back "
        f"to you.</p><p>{escape(why)}</p><p>The money goes back the way it was paid. {escape(_WHEN_IT_ARRIVES)}</p>"
        f'<p style="color:#6b6259;font-size:14px">Order {escape(order.id)}<br>'
        f"Refund {escape(record.refund.refund_id)}</p>"
    )
    return _page("Your refund", "Your refund is on its way", body, shop)


def _page(title: str, heading: str, body: str, shop: Shop) -> str:
    """``body`` is markup; the rest is text."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
        '<body style="margin:0;background:#f6f3ee;font-family:system-ui,-apple-system,sans-serif;color:#221d18">'
        '<div style="max-width:560px;margin:32px auto;padding:32px;background:#fff;border-radius:12px">'
        f'<p style="margin:0 0 24px;font-weight:600">{escape(shop.name)}</p>'
        f'<h1 style="font-size:22px;margin:0 0 8px">{escape(heading)}</h1>{body}</div></body></html>'
    )
