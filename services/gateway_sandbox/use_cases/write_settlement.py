"""A gateway's settlement file for a window of time, written from its books, with what it paid out for it.

Faults may be sown into what is written (use_cases/sow_settlement.py), never into the books.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from services.gateway_sandbox.gateways.bookkeeping import paid_out, payouts_of
from services.gateway_sandbox.gateways.port import (
    Payout,
    SandboxGateway,
    SettlementFile,
    SettlementLine,
)
from services.gateway_sandbox.use_cases.movements import movements
from services.gateway_sandbox.use_cases.sandbox import Sandbox
from services.gateway_sandbox.use_cases.sow_settlement import Field, Sow, Sown, cut_short
from shared.clock import to_rfc3339
from shared.money import Money

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
        return await movements(gateway_name, tx, since=since, until=until)


def _statement(payouts: Sequence[Payout], day: date, paid_at: datetime) -> SettlementFile:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_STATEMENT)
    for payout in payouts:
        amount = f"{Money(payout.amount_minor, payout.currency).as_major():f}"
        writer.writerow((payout.reference, to_rfc3339(paid_at), amount, payout.currency, payout.bank_reference))
    return SettlementFile(f"payouts-{day:%Y-%m-%d}.csv", "text/csv", text.getvalue().encode())
