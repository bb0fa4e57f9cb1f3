"""Tell the ledger what a settlement file says beside payments: fees, tax, reserves, adjustments, payouts."""

from __future__ import annotations

import hashlib

import structlog

from services.reconciler.domain.settlement import SettlementFile
from services.reconciler.use_cases.act_on_case import SENDER
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.settling_ports import Booking
from shared.contracts.commands import SettlementBooked
from shared.contracts.envelope import EventData

log = structlog.get_logger()

BOOKINGS_AT_ONCE = 500
FIRST = ("", "")


async def book_settlement(tx: ReconcilerTransaction, file: SettlementFile, context: Context) -> bool:
    """One signed command per payout and currency, in the transaction that marks the file read (False: no key).

    Its key names file, payout and currency, and of a payout only what no file has booked before is booked: a file that
    states again what is known adds nothing.
    """
    key, tolerance_minor = context.command_key, context.settlement_rules.payout_rounding_minor
    if key is None:
        log.warning("settlement_not_booked", file_id=file.file_id, hint="set COMMAND_SIGNING_KEY")
        return False
    after = FIRST
    while True:
        bookings = await tx.settlement.bookings(
            file, tolerance_minor=tolerance_minor, after=after, limit=BOOKINGS_AT_ONCE
        )
        commands = [_command(file, booking).signed(key) for booking in bookings]
        events: list[tuple[str, EventData]] = [(command.command_key, command) for command in commands]
        await tx.outbox.add_all(events)
        if len(bookings) < BOOKINGS_AT_ONCE:
            break
        after = (bookings[-1].payout_reference or "", bookings[-1].currency)
    await tx.settlement.mark_booked(file, tolerance_minor=tolerance_minor)
    return True


def booking_key(file_id: str, payout_reference: str | None, currency: str) -> str:
    name = f"{file_id}:{payout_reference or ''}:{currency}"
    return hashlib.sha256(name.encode()).hexdigest()


def _command(file: SettlementFile, booking: Booking) -> SettlementBooked:
    return SettlementBooked(
        sender=SENDER,
        command_key=booking_key(file.file_id, booking.payout_reference, booking.currency),
        gateway=file.gateway,
        account=file.account,
        file_id=file.file_id,
        payout_reference=booking.payout_reference,
        currency=booking.currency,
        fees_minor=booking.fees_minor,
        tax_minor=booking.tax_minor,
        reserve_minor=booking.reserve_minor,
        adjustment_minor=booking.adjustment_minor,
        conversion_minor=booking.conversion_minor,
        payout_minor=booking.payout_minor,
        settled_at=booking.settled_at or file.covers_until,
    )
