"""What happens to a payment's money without a call of the client: in the dashboard, at banks, by time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.gateway_sandbox.domain.models import BookEntry, CaptureStatus, DisputeStatus, RefundStatus
from services.gateway_sandbox.gateways.port import Books
from services.gateway_sandbox.use_cases.books import TransactionBooks
from services.gateway_sandbox.use_cases.expire_sessions import expire_due_sessions
from services.gateway_sandbox.use_cases.sandbox import Sandbox
from services.gateway_sandbox.use_cases.settle_checkout import locked_entry
from shared.errors import NotFound


async def capture_in_dashboard(gateway: str, reference: str, amount_minor: int | None, sandbox: Sandbox) -> BookEntry:
    """All that can be captured, unless an amount is given. Raises NotFound, IllegalMove, MoreThanThereIs."""
    async with _at_work(gateway, reference, sandbox) as (entry, books):
        wanted_minor = entry.capturable_minor if amount_minor is None else amount_minor
        await sandbox.gateway(gateway).capture_in_dashboard(entry, wanted_minor, books)
    return entry


async def settle_capture(gateway: str, capture_id: str, status: CaptureStatus, sandbox: Sandbox) -> BookEntry:
    """Raises NotFound, IllegalMove."""
    async with _at_work(gateway, capture_id, sandbox) as (entry, books):
        capture = await books.find_capture(capture_id)
        if capture is None:
            raise NotFound(f"{gateway} knows no capture {capture_id!r}")
        await sandbox.gateway(gateway).settle_capture(entry, capture, status, books)
    return entry


async def expire_hold(gateway: str, reference: str, sandbox: Sandbox) -> BookEntry:
    """Raises NotFound, IllegalMove."""
    async with _at_work(gateway, reference, sandbox) as (entry, books):
        await sandbox.gateway(gateway).expire_hold(entry, books)
    return entry


async def refund_in_dashboard(gateway: str, reference: str, amount_minor: int | None, sandbox: Sandbox) -> BookEntry:
    """All that can be refunded, unless an amount is given. Raises NotFound, IllegalMove, MoreThanThereIs."""
    async with _at_work(gateway, reference, sandbox) as (entry, books):
        wanted_minor = entry.refundable_minor if amount_minor is None else amount_minor
        await sandbox.gateway(gateway).refund_in_dashboard(entry, wanted_minor, books)
    return entry


async def settle_refund(gateway: str, refund_id: str, status: RefundStatus, sandbox: Sandbox) -> BookEntry:
    """Raises NotFound, IllegalMove."""
    async with _at_work(gateway, refund_id, sandbox) as (entry, books):
        refund = await books.find_refund(refund_id)
        if refund is None:
            raise NotFound(f"{gateway} knows no refund {refund_id!r}")
        await sandbox.gateway(gateway).settle_refund(entry, refund, status, books)
    return entry


async def open_dispute(
    gateway: str, reference: str, amount_minor: int | None, reason: str | None, sandbox: Sandbox
) -> BookEntry:
    """About everything that was captured, unless an amount is given. Raises NotFound, IllegalMove, MoreThanThereIs."""
    async with _at_work(gateway, reference, sandbox) as (entry, books):
        wanted_minor = entry.captured_minor if amount_minor is None else amount_minor
        entry.check_disputable(wanted_minor)
        await sandbox.gateway(gateway).open_dispute(entry, wanted_minor, reason, books)
    return entry


async def close_dispute(gateway: str, dispute_id: str, status: DisputeStatus, sandbox: Sandbox) -> BookEntry:
    """Raises NotFound, IllegalMove."""
    async with _at_work(gateway, dispute_id, sandbox) as (entry, books):
        dispute = await books.find_dispute(dispute_id)
        if dispute is None:
            raise NotFound(f"{gateway} knows no dispute {dispute_id!r}")
        await sandbox.gateway(gateway).close_dispute(entry, dispute, status, books)
    return entry


@asynccontextmanager
async def _at_work(gateway_name: str, reference: str, sandbox: Sandbox) -> AsyncIterator[tuple[BookEntry, Books]]:
    """The locked entry and its books; what was announced goes out after the commit."""
    gateway = sandbox.gateway(gateway_name)
    async with sandbox.uow() as tx:
        books = TransactionBooks(tx, gateway=gateway_name, ports=sandbox.ports)
        await expire_due_sessions(gateway, books, tx)
        yield await locked_entry(gateway_name, reference, tx.entries), books
        has_news = await books.enqueue_announced()
    if has_news:
        sandbox.wake_deliverer()
