"""A gateway's settlement file for a window of time, written from its books."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.port import EntryFilter, SettlementFile, SettlementLine
from services.gateway_sandbox.use_cases.control import EntryWithRecords, with_records
from services.gateway_sandbox.use_cases.sandbox import Sandbox

FEE_BASIS_POINTS = 250
TAX_PERCENT = 18
"""Of the fee. Real gateways' fees differ by contract; what matters is that there are some, and that they add up."""


async def write_settlement(gateway_name: str, sandbox: Sandbox, *, since: datetime, until: datetime) -> SettlementFile:
    """Everything that was captured, refunded or lost to a dispute in ``[since, until)``. Raises NotFound."""
    gateway = sandbox.gateway(gateway_name)
    async with sandbox.uow() as tx:
        entries = await tx.entries.search(gateway_name, EntryFilter())
        found = await with_records(gateway_name, entries, tx)
    lines = [line for records in found for line in _lines(records) if since <= line.at < until]
    lines.sort(key=lambda line: (line.at, line.object_id))
    return gateway.settlement(lines, since.date())


def _lines(found: EntryWithRecords) -> Iterator[SettlementLine]:
    yield from _captures(found)
    entry = found.entry
    for refund in found.refunds:
        if refund.status == "succeeded":
            yield SettlementLine(
                "refund", entry, refund.refund_id, refund.reference, refund.amount_minor, 0, 0, refund.created_at
            )
    for dispute in found.disputes:
        if dispute.status == "lost" and dispute.closed_at is not None:
            yield SettlementLine(
                "dispute", entry, dispute.dispute_id, None, dispute.amount_minor, 0, 0, dispute.closed_at
            )


def _captures(found: EntryWithRecords) -> Iterator[SettlementLine]:
    entry = found.entry
    own = [capture for capture in found.captures if capture.status == "succeeded"]
    for capture in own:
        yield _captured(entry, capture.capture_id, capture.reference, capture.amount_minor, capture.created_at)
    if found.captures or not entry.captured_minor:
        return
    # Taken without a capture of its own: at once, or in one piece that only the list of operations tells of.
    at = next((o.at for o in found.operations if o.operation in ("charge", "capture")), entry.created_at)
    object_id = entry.payment_reference or entry.gateway_reference
    yield _captured(entry, object_id, entry.reference, entry.captured_minor, at)


def _captured(
    entry: BookEntry, object_id: str, reference: str | None, amount_minor: int, at: datetime
) -> SettlementLine:
    fee_minor = amount_minor * FEE_BASIS_POINTS // 10_000
    return SettlementLine(
        "capture", entry, object_id, reference, amount_minor, fee_minor, fee_minor * TAX_PERCENT // 100, at
    )
