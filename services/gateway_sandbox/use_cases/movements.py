"""What a gateway's books moved: captures with their fees, refunds, lost disputes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.bookkeeping import in_order
from services.gateway_sandbox.gateways.port import EntryFilter, SettlementLine
from services.gateway_sandbox.use_cases.control import EntryWithRecords, with_records
from services.gateway_sandbox.use_cases.ports import SandboxTransaction

FEE_BASIS_POINTS = 250
TAX_PERCENT = 18
"""Of the fee. Real gateways' fees differ by contract; what matters is that there are some, and that they add up."""


async def movements(gateway: str, tx: SandboxTransaction, *, since: datetime, until: datetime) -> list[SettlementLine]:
    """In ``[since, until)``, oldest first."""
    found = await with_records(gateway, await tx.entries.search(gateway, EntryFilter()), tx)
    return in_order(line for records in found for line in movements_of(records) if since <= line.at < until)


def movements_of(found: EntryWithRecords) -> Iterator[SettlementLine]:
    entry, captures = found.entry, list(_captures(found))
    yield from captures
    taken = {line.object_id for line in captures}
    for refund in found.refunds:
        if refund.status == "succeeded":
            line = SettlementLine(
                "refund", entry, refund.refund_id, refund.reference, refund.amount_minor, 0, 0, refund.created_at
            )
            yield replace(line, parent_id=_parent(refund.details, taken))
    for dispute in found.disputes:
        if dispute.status == "lost" and dispute.closed_at is not None:
            line = SettlementLine(
                "dispute", entry, dispute.dispute_id, None, dispute.amount_minor, 0, 0, dispute.closed_at
            )
            yield replace(line, parent_id=_parent(dispute.details, taken))


def _parent(details: Mapping[str, object], taken: set[str]) -> str | None:
    """Where a payment was captured in several pieces, only some gateways say from which one money goes back."""
    named = details.get("capture_id")
    if isinstance(named, str) and named in taken:
        return named
    return next(iter(taken)) if len(taken) == 1 else None


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
