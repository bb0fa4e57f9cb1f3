"""The catalogue: read by everybody, changed by operators."""

from __future__ import annotations

from services.order_service.domain.errors import ProductNotFound
from services.order_service.domain.models import Product
from services.order_service.use_cases.dependencies import Dependencies


async def list_products(deps: Dependencies, *, after_sku: str | None, limit: int) -> list[Product]:
    async with deps.uow() as tx:
        return await tx.products.list_for_sale(after_sku=after_sku, limit=limit)


async def read_product(sku: str, deps: Dependencies) -> Product:
    """Raises ProductNotFound."""
    async with deps.uow() as tx:
        product = await tx.products.find_for_sale(sku)
    if product is None:
        raise ProductNotFound
    return product


async def put_product(product: Product, deps: Dependencies) -> Product:
    """Create or change. Orders keep the price and name they were made with. Raises StockBelowReserved."""
    async with deps.uow() as tx:
        return await tx.products.put(product, now=deps.ports.clock.now())


async def retire_product(sku: str, deps: Dependencies) -> None:
    """Take it out of the catalogue; orders that hold it stand (failure O9). Raises ProductNotFound."""
    async with deps.uow() as tx:
        if not await tx.products.retire(sku, now=deps.ports.clock.now()):
            raise ProductNotFound
