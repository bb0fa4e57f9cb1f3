"""Orders with what belongs to their documents, read in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from services.order_service.domain.models import Order
from services.order_service.use_cases.ports import OrderTransaction, OrderView


async def view_of(tx: OrderTransaction, order: Order) -> OrderView:
    (view,) = await views_of(tx, [order])
    return view


async def views_of(tx: OrderTransaction, orders: Sequence[Order]) -> list[OrderView]:
    ids = [order.id for order in orders]
    payments = await tx.payments.of_orders(ids)
    refunds = await tx.refunds.of_orders(ids)
    numbers = await tx.invoices.numbers_of(ids)
    return [
        OrderView(order, tuple(payments.get(order.id, ())), tuple(refunds.get(order.id, ())), numbers.get(order.id))
        for order in orders
    ]
