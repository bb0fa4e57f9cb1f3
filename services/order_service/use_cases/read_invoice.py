"""The invoice of a paid order."""

from __future__ import annotations

from services.order_service.domain.errors import InvoiceNotReady
from services.order_service.use_cases.access import Access, require_access
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import InvoiceRecord


async def read_invoice(order_id: str, access: Access, deps: Dependencies) -> InvoiceRecord:
    """Raises OrderNotFound, InvoiceNotReady."""
    async with deps.uow() as tx:
        require_access(await tx.orders.find(order_id), access, writing=False, now=deps.ports.clock.now())
        record = await tx.invoices.find(order_id)
    if record is None:
        raise InvoiceNotReady
    return record
