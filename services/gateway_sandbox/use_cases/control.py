"""What scripts and tests do: read the books, script faults, and empty both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.gateway_sandbox.domain.deliveries import Delivery
from services.gateway_sandbox.domain.faults import Fault
from services.gateway_sandbox.domain.models import BookEntry, Operation
from services.gateway_sandbox.gateways.port import EntryFilter
from services.gateway_sandbox.use_cases.sandbox import Sandbox

STORED_ANSWERS_KEPT = timedelta(hours=24)  # Stripe keeps them at least this long


@dataclass(frozen=True, slots=True)
class EntryWithOperations:
    entry: BookEntry
    operations: Sequence[Operation]


@dataclass(frozen=True, slots=True)
class BooksView:
    payments: Sequence[EntryWithOperations]
    deliveries: Sequence[Delivery]


async def read_books(
    gateway: str, sandbox: Sandbox, *, reference: str | None = None, order_id: str | None = None
) -> BooksView:
    """Oldest first. With a filter, the deliveries are those of the payments that match."""
    sandbox.gateway(gateway)
    is_filtered = reference is not None or order_id is not None
    async with sandbox.uow() as tx:
        entries = await tx.entries.search(gateway, EntryFilter(reference=reference, order_id=order_id))
        references = [entry.gateway_reference for entry in entries]
        operations = await tx.operations.of(gateway, references)
        deliveries = await tx.deliveries.of(gateway, references if is_filtered else None)
    payments = [EntryWithOperations(entry, operations[entry.gateway_reference]) for entry in reversed(entries)]
    return BooksView(payments, deliveries)


async def read_entry(entry: BookEntry, sandbox: Sandbox) -> EntryWithOperations:
    async with sandbox.uow() as tx:
        operations = await tx.operations.of(entry.gateway, [entry.gateway_reference])
    return EntryWithOperations(entry, operations[entry.gateway_reference])


async def empty_books(gateway: str, sandbox: Sandbox) -> None:
    sandbox.gateway(gateway)
    async with sandbox.uow() as tx:
        await tx.forget_everything(gateway)


async def replace_faults(gateway: str, faults: Sequence[Fault], sandbox: Sandbox) -> list[Fault]:
    """Raises InvalidRequest when a kind does not apply to its operation."""
    sandbox.gateway(gateway)
    for fault in faults:
        fault.check()
    async with sandbox.uow() as tx:
        await tx.faults.replace(gateway, faults)
        return await tx.faults.of(gateway)


async def read_faults(gateway: str, sandbox: Sandbox) -> list[Fault]:
    sandbox.gateway(gateway)
    async with sandbox.uow() as tx:
        return await tx.faults.of(gateway)


async def forget_old_answers(sandbox: Sandbox) -> bool:
    """One round of the worker."""
    async with sandbox.uow() as tx:
        await tx.answers.forget_before(sandbox.ports.clock.now() - STORED_ANSWERS_KEPT)
    return False
