"""Create an order: priced by the catalogue, its stock held, all in one transaction or not at all (failures O2, O3)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.order_service.domain.errors import OutOfStock, TooManyOpenOrders
from services.order_service.domain.models import Customer, LineItem, Order, Product
from services.order_service.domain.pricing import RequestedItem, price_items, refuse_duplicates, total_of
from services.order_service.use_cases.access import digest_of
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import OrderTransaction, OrderView
from services.order_service.use_cases.settle_order import announce
from services.order_service.use_cases.settling import Cause
from shared.contracts.order_events import OrderCreated
from shared.errors import FieldError

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class CreateOrder:
    items: tuple[RequestedItem, ...]
    currency: str
    customer: Customer
    customer_subject: str | None = None
    shipping_address: Mapping[str, Any] | None = None
    billing_address: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreatedOrder:
    """``client_secret`` exists here and in the caller's answer only; the database has its digest."""

    view: OrderView
    client_secret: str = field(repr=False)


Remember = Callable[[OrderTransaction, CreatedOrder], Awaitable[None]]
"""Stores the answer under the caller's idempotency key in the order's own transaction (failure O1)."""


async def create_order(command: CreateOrder, deps: Dependencies, *, remember: Remember | None = None) -> CreatedOrder:
    """Raises UnknownProduct, CurrencyMismatch, DuplicateItem, TotalOutOfBounds, OutOfStock, TooManyOpenOrders."""
    refuse_duplicates(command.items)
    client_secret = _new_secret(deps)
    async with deps.uow() as tx:
        if await tx.orders.count_open_of(command.customer.email) >= deps.rules.max_open_orders_per_email:
            raise TooManyOpenOrders(retry_after_seconds=int(deps.rules.order_lifetime.total_seconds()))
        catalogue = await tx.products.lock([item.sku for item in command.items])
        lines = price_items(command.items, catalogue, command.currency)
        order = _new_order(command, lines, deps, digest_of(client_secret))
        _require_stock(lines, catalogue)
        await tx.orders.add(order)
        await tx.products.hold(order.id, lines, now=order.created_at)
        await announce(tx, OrderCreated, order, Cause())
        created = CreatedOrder(OrderView(order, (), (), None), client_secret)
        if remember is not None:
            await remember(tx, created)
    return created


def _new_order(command: CreateOrder, lines: tuple[LineItem, ...], deps: Dependencies, secret_digest: bytes) -> Order:
    now = deps.ports.clock.now()
    return Order(
        id=deps.ports.ids.new("ord"),
        total=total_of(lines, command.currency),
        items=lines,
        customer=command.customer,
        customer_subject=command.customer_subject,
        secret_digest=secret_digest,
        expires_at=now + deps.rules.order_lifetime,
        created_at=now,
        updated_at=now,
        shipping_address=command.shipping_address,
        billing_address=command.billing_address,
        metadata=command.metadata,
    )


def _require_stock(lines: tuple[LineItem, ...], catalogue: Mapping[str, Product]) -> None:
    short = [
        FieldError(
            f"/items/{index}/quantity", f"{catalogue[line.sku].available} of {line.sku} are left", "out_of_stock"
        )
        for index, line in enumerate(lines)
        if catalogue[line.sku].available < line.quantity
    ]
    if short:
        raise OutOfStock(errors=short)


def _new_secret(deps: Dependencies) -> str:
    """``ocs_`` and 43 URL-safe characters: 256 random bits."""
    return "ocs_" + base64.urlsafe_b64encode(deps.ports.randomness.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
