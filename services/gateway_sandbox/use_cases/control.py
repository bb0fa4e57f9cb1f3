"""What scripts and tests do: read the books, script faults, and empty both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.gateway_sandbox.domain.deliveries import Delivery
from services.gateway_sandbox.domain.faults import Fault
from services.gateway_sandbox.domain.models import BookCapture, BookDispute, BookEntry, BookRefund, Operation
from services.gateway_sandbox.gateways.port import EntryFilter
from services.gateway_sandbox.use_cases.ports import SandboxTransaction
from services.gateway_sandbox.use_cases.sandbox import Sandbox

STORED_ANSWERS_KEPT = timedelta(hours=24)  # Stripe keeps them at least this long


@dataclass(frozen=True, slots=True)
class EntryWithRecords:
    """An entry and all that happened to it, in the order in which it happened."""

    entry: BookEntry
    operations: Sequence[Operation]
    captures: Sequence[BookCapture]
    refunds: Sequence[BookRefund]
    disputes: Sequence[BookDispute]


@dataclass(frozen=True, slots=True)
class BooksView:
    payments: Sequence[EntryWithRecords]
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
        payments = await with_records(gateway, entries[::-1], tx)
        deliveries = await tx.deliveries.of(gateway, references if is_filtered else None)
    return BooksView(payments, deliveries)


async def read_entry(entry: BookEntry, sandbox: Sandbox) -> EntryWithRecords:
    async with sandbox.uow() as tx:
        [found] = await with_records(entry.gateway, [entry], tx)
    return found


async def with_records(gateway: str, entries: Sequence[BookEntry], tx: SandboxTransaction) -> list[EntryWithRecords]:
    """Each entry with what belongs to it, in the order of the entries."""
    references = [entry.gateway_reference for entry in entries]
    operations = await tx.operations.of(gateway, references)
    captures = await tx.captures.of(gateway, references)
    refunds = await tx.refunds.of(gateway, references)
    disputes = await tx.disputes.of(gateway, references)
    return [
        EntryWithRecords(entry, operations[name], captures[name][::-1], refunds[name][::-1], disputes[name][::-1])
        for entry, name in zip(entries, references, strict=True)
    ]


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
