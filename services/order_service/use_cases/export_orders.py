"""Every order that changed in a window of time, oldest change first, for whoever compares it with something else.

Read page by page, each in a short transaction of its own, so a stream of any length holds no cursor, no lock and one
page of memory. An order that changes meanwhile moves behind the place that was read: it comes again, or, where the
window ends before that, in the next one. ``updated_at`` is the writer's clock before its commit: what commits late, or
by a clock that is behind, may lie in a window that was already read. So readers let windows overlap.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import ExportedRow

PAGE = 500


@dataclass(frozen=True, slots=True)
class ExportWindow:
    """Of ``updated_at``: ``since`` included, ``before`` excluded; None: no bound."""

    since: datetime | None = None
    before: datetime | None = None


async def export_orders(
    window: ExportWindow, deps: Dependencies, *, page_size: int = PAGE, is_stopping: Callable[[], bool] = lambda: False
) -> AsyncGenerator[Sequence[ExportedRow], None]:
    """Pages, the last one shorter than ``page_size`` (perhaps empty): without it the stream broke off, because the
    process ends. Raises DatabaseUnavailable. No transaction is open while the caller has a page."""
    after: tuple[datetime, str] | None = None
    while not is_stopping():
        async with deps.uow() as tx:
            page = await tx.export.orders(since=window.since, before=window.before, after=after, limit=page_size)
        yield page
        if len(page) < page_size:
            return
        after = (page[-1].updated_at, page[-1].order_id)
