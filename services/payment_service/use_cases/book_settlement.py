"""Book what a settlement file says beside payments: fees, their taxes, reserves, adjustments and payouts."""

from __future__ import annotations

import structlog

from services.payment_service.domain.ledger import SettlementTotals, settlement_postings
from services.payment_service.use_cases.ports import Context
from shared.contracts.commands import SettlementBooked
from shared.money import Money
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

CAUSE = "settlement"


async def book_settlement(command: SettlementBooked, claim: InboxClaim, context: Context) -> bool:
    """One balanced entry, once per command key. False where it was booked before or there is nothing to book.

    Raises InvalidAmount for a currency that is none: the ledger could not be read any more with such a line in it.
    """
    Money(0, command.currency)
    lines = settlement_postings(
        SettlementTotals(
            fees_minor=command.fees_minor,
            tax_minor=command.tax_minor,
            reserve_minor=command.reserve_minor,
            adjustment_minor=command.adjustment_minor,
            conversion_minor=command.conversion_minor,
            payout_minor=command.payout_minor,
        )
    )
    async with context.uow() as tx:
        if not await tx.inbox.claim(claim):
            return False
        is_new = await tx.ledger.book(
            command.command_key, command.gateway, command.currency, lines, cause=CAUSE, at=context.clock.now()
        )
    log.info("settlement_booked", gateway=command.gateway, source_key=command.command_key, is_new=is_new)
    return is_new
