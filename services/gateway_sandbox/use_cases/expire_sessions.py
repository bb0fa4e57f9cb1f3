"""Sessions and holds end by themselves, whether or not anybody looks at them."""

from __future__ import annotations

from services.gateway_sandbox.gateways.port import SandboxGateway
from services.gateway_sandbox.use_cases.books import TransactionBooks
from services.gateway_sandbox.use_cases.ports import SandboxTransaction
from services.gateway_sandbox.use_cases.sandbox import Sandbox

BATCH = 50


async def expire_due_sessions(gateway: SandboxGateway, books: TransactionBooks, tx: SandboxTransaction) -> int:
    """Expire what is due, inside the caller's transaction, so that no call sees a session that outlived itself."""
    due = await tx.entries.lock_expired(books.now, gateway=gateway.name, limit=BATCH)
    for entry in due:
        await (gateway.expire_hold if entry.is_held() else gateway.expire)(entry, books)
    return len(due)


async def expire_sessions(sandbox: Sandbox) -> bool:
    """One round of the worker; True when there may be more."""
    full = False
    async with sandbox.uow() as tx:
        concerned = await tx.entries.gateways_with_expired(sandbox.ports.clock.now())
    for gateway in (each for each in sandbox.gateways.values() if each.name in concerned):
        async with sandbox.uow() as tx:
            books = TransactionBooks(tx, gateway=gateway.name, ports=sandbox.ports)
            expired = await expire_due_sessions(gateway, books, tx)
            await books.enqueue_announced()
        if expired:
            sandbox.wake_deliverer()
        full = full or expired == BATCH
    return full
