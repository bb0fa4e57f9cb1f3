"""What an invoice says, frozen at the moment of payment: later changes of prices, names or the shop do not touch it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.order_service.domain.models import Order, OrderPayment
from services.order_service.use_cases.dependencies import Shop


def invoice_snapshot(order: Order, payments: Sequence[OrderPayment], *, shop: Shop) -> Mapping[str, Any]:
    """JSON with integer minor units. Raises nothing: the order was confirmed by one of ``payments``."""
    paid_by = next(payment for payment in payments if payment.payment_id == order.confirmed_by)
    return {
        "order_id": order.id,
        "ordered_at": order.created_at.isoformat(),
        "currency": order.total.currency,
        "total_minor": order.total.amount_minor,
        "seller": {"name": shop.name, "address": shop.address, "tax_id": shop.tax_id, "email": shop.email},
        "customer": {"name": order.customer.name, "email": order.customer.email, "phone": order.customer.phone},
        "billing_address": order.billing_address or order.shipping_address,
        "items": [
            {
                "sku": item.sku,
                "name": item.name,
                "quantity": item.quantity,
                "unit_price_minor": item.unit_price.amount_minor,
                "total_minor": item.total.amount_minor,
            }
            for item in order.items
        ],
        "payment": {
            "payment_id": paid_by.payment_id,
            "gateway": paid_by.gateway,
            "gateway_reference": paid_by.snapshot.gateway_reference,
        },
    }
