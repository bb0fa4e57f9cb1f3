"""Draws invoices in this process, for tests and for whoever wants no other: each one is a pause for everything else."""

from __future__ import annotations

import asyncio

from services.order_service.invoicing.drawing import draw_pdf
from services.order_service.invoicing.page import as_html
from services.order_service.use_cases.ports import InvoiceRecord


class InvoicePages:
    """Satisfies InvoiceRenderer."""

    def __init__(self) -> None:
        # Each drawing thread makes the event loop wait for the interpreter lock, so there is never more than one.
        self._one_at_a_time = asyncio.Semaphore(1)

    async def as_pdf(self, record: InvoiceRecord) -> bytes:
        async with self._one_at_a_time:
            return await asyncio.to_thread(draw_pdf, record)  # noqa: TID251 - the adapter of the renderer port

    def as_html(self, record: InvoiceRecord) -> str:
        return as_html(record)
