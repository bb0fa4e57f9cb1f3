"""Read one order, wait for it to change, and list orders."""

from __future__ import annotations

from dataclasses import replace

from services.order_service.use_cases.access import Access, require_access
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.order_view import views_of
from services.order_service.use_cases.order_watch import OrderWatch
from services.order_service.use_cases.ports import OrderFilter, OrderView
from shared.errors import Unauthenticated

MAX_WAIT_SECONDS = 30


async def read_order(order_id: str, access: Access, deps: Dependencies) -> OrderView:
    """Raises OrderNotFound, Unauthenticated."""
    async with deps.uow() as tx:
        view = await tx.pictures.find(order_id)
    order = view.order if view is not None else None
    require_access(order, access, writing=False, now=deps.ports.clock.now())
    assert view is not None, "nobody may see an order that is not there"
    return view


async def require_readable(order_id: str, access: Access, deps: Dependencies) -> None:
    """Raises OrderNotFound, Unauthenticated where ``read_order`` does, and reads no more than that takes."""
    async with deps.uow() as tx:
        require_access(await tx.orders.find(order_id), access, writing=False, now=deps.ports.clock.now())


async def wait_for_order(
    order_id: str, access: Access, deps: Dependencies, watch: OrderWatch, *, since_version: int, wait_seconds: float
) -> OrderView:
    """The order as soon as its version differs from ``since_version``, or as it is when the time is up."""
    deadline = deps.ports.clock.monotonic() + min(wait_seconds, MAX_WAIT_SECONDS)
    with watch.subscription(order_id) as changes:
        while True:
            changes.clear()
            view = await read_order(order_id, access, deps)
            changes.seen = view.order.version
            left = deadline - deps.ports.clock.monotonic()
            if view.order.version != since_version or left <= 0 or watch.is_stopping:
                return view
            await changes.wait(left)


async def list_orders(criteria: OrderFilter, access: Access, deps: Dependencies) -> list[OrderView]:
    """The back office sees every order, a customer their own; an order's secret lists nothing (SEC-10)."""
    if not access.reads_all:
        if access.subject is None:
            raise Unauthenticated
        criteria = replace(criteria, customer_subject=access.subject)
    async with deps.uow() as tx:
        return await views_of(tx, await tx.orders.search(criteria))
