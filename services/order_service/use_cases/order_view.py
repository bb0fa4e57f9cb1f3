"""An order with what belongs to its document, read in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

from services.order_service.domain.models import Order, OrderPayment
from services.order_service.use_cases.ports import OrderTransaction


@dataclass(frozen=True, slots=True)
class OrderView:
    order: Order
    payments: tuple[OrderPayment, ...]
    invoice_number: int | None


async def view_of(tx: OrderTransaction, order: Order) -> OrderView:
    payments = await tx.payments.of_order(order.id)
    numbers = await tx.invoices.numbers_of([order.id])
    return OrderView(order, tuple(payments), numbers.get(order.id))
