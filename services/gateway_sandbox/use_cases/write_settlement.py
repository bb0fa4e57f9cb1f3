"""A gateway's settlement file for a window of time, written from its books, with what it paid out for it.

Faults may be sown into what is written (use_cases/sow_settlement.py), never into the books.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.bookkeeping import paid_out, payouts_of
from services.gateway_sandbox.gateways.port import (
    EntryFilter,
    Payout,
    SandboxGateway,
    SettlementFile,
    SettlementLine,
)
from services.gateway_sandbox.use_cases.control import EntryWithRecords, with_records
from services.gateway_sandbox.use_cases.sandbox import Sandbox
from services.gateway_sandbox.use_cases.sow_settlement import Field, Sow, Sown, cut_short, in_order
from shared.clock import to_rfc3339
from shared.money import Money

FEE_BASIS_POINTS = 250
TAX_PERCENT = 18
"""Of the fee. Real gateways' fees differ by contract; what matters is that there are some, and that they add up."""

_STATEMENT = ("payout_reference", "paid_at", "amount", "currency", "bank_reference")


@dataclass(frozen=True, slots=True)
class Settlement:
    """``payouts`` are those of the statement: what the bank, so to speak, says that it got."""

    file: SettlementFile
    statement: SettlementFile
    payouts: Sequence[Payout]
    sown: Sequence[Sown]


async def write_settlement(gateway_name: str, sandbox: Sandbox, *, since: datetime, until: datetime) -> SettlementFile:
    """Everything that was captured, refunded or lost to a dispute in ``[since, until)``. Raises NotFound."""
    return (await settle_period(gateway_name, sandbox, since=since, until=until)).file


async def settle_period(
    gateway_name: str, sandbox: Sandbox, *, since: datetime, until: datetime, sow: Sequence[Sow] = ()
) -> Settlement:
    """The same books, window and faults give the same bytes. Raises NotFound, NothingToSow."""
    lines = await read_movements(gateway_name, sandbox, since=since, until=until)
    return settle(sandbox.gateway(gateway_name), lines, since.date(), paid_at=until, sow=sow)


def settle(
    gateway: SandboxGateway, moved: Sequence[SettlementLine], day: date, *, paid_at: datetime, sow: Sequence[Sow] = ()
) -> Settlement:
    """What the gateway writes about these movements. Raises NothingToSow."""
    terms, field = gateway.payouts, Field(moved, gateway.payouts)
    sown = field.sow([each for each in sow if not each.is_about_payouts])
    lines = field.written()
    payouts = payouts_of(lines, terms, day)
    off = [field.sow_payout(each, list(payouts.values())) for each in sow if each.is_about_payouts]
    for each in off:
        payout = payouts[each.currency]
        payouts[each.currency] = replace(payout, amount_minor=payout.amount_minor + (each.difference_minor or 0))
    paid = paid_out(lines, payouts)
    file = gateway.settlement(paid, day)
    if field.is_truncated:
        file = cut_short(file, paid)
    stated = list(payouts.values())
    return Settlement(file, _statement(stated, day, paid_at), stated, [*sown, *off])


async def read_movements(
    gateway_name: str, sandbox: Sandbox, *, since: datetime, until: datetime
) -> list[SettlementLine]:
    """What the books really moved in ``[since, until)``, oldest first. Raises NotFound."""
    sandbox.gateway(gateway_name)
    async with sandbox.uow() as tx:
        entries = await tx.entries.search(gateway_name, EntryFilter())
        found = await with_records(gateway_name, entries, tx)
    return in_order(line for records in found for line in movements_of(records) if since <= line.at < until)


def _statement(payouts: Sequence[Payout], day: date, paid_at: datetime) -> SettlementFile:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_STATEMENT)
    for payout in payouts:
        amount = f"{Money(payout.amount_minor, payout.currency).as_major():f}"
        writer.writerow((payout.reference, to_rfc3339(paid_at), amount, payout.currency, payout.bank_reference))
    return SettlementFile(f"payouts-{day:%Y-%m-%d}.csv", "text/csv", text.getvalue().encode())


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
