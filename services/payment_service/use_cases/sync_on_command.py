"""Ask the gateway about a payment because the reconciler wants to know."""

from __future__ import annotations

from services.payment_service.domain.models import FactSource
from services.payment_service.domain.timeline import decision_entry
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.sync_payment import sync_payment
from shared.contracts.commands import PaymentSyncRequested
from shared.unit_of_work import InboxClaim


async def sync_on_command(command: PaymentSyncRequested, claim: InboxClaim, context: Context) -> None:
    """The gateway is asked first, with no transaction open, and the claim says afterwards that it was: what dies in
    between asks again, and the same answer is no new fact.

    Raises NotFound; GatewayUnavailable or GatewayOutcomeUnknown where it cannot be asked now: the message waits, and
    does not use up its attempts.
    """
    synced = await sync_payment(command.payment_id, FactSource.SWEEP, context, asked_by=command.command_key[:64])
    async with context.uow() as tx:
        if not await tx.inbox.claim(claim):
            return
        found = "which changed the payment" if synced.changed else "which told nothing new"
        entry = decision_entry(
            "sync_requested",
            f"{synced.payment.gateway} was asked about this payment, {found}",
            at=context.clock.now(),
            actor=command.sender,
            command_key=command.command_key,
        )
        await tx.timeline.add(command.payment_id, entry)
