"""Messages to use cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.payment_service.use_cases.apply_webhook import apply_webhook
from services.payment_service.use_cases.book_settlement import book_settlement
from services.payment_service.use_cases.give_back import give_back
from services.payment_service.use_cases.note_case import note_case
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.sync_on_command import sync_on_command
from shared.contracts.commands import Command, PaymentSyncRequested, RefundRequested, SettlementBooked
from shared.contracts.envelope import EventEnvelope
from shared.contracts.reconciliation_events import CASE_EVENTS
from shared.contracts.webhook_events import WebhookReceived
from shared.messaging.commands import require_signature
from shared.unit_of_work import InboxClaim


class WebhookHandler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        await apply_webhook(WebhookReceived.model_validate(envelope.data), claim, self._context)


class UnknownType(Exception):
    """The queue is bound to types that this release has no handler for: an older process beside a newer topology. The
    message is tried again, and kept in the end."""


_COMMANDS: Mapping[str, type[Command]] = {
    model.TYPE: model for model in (RefundRequested, PaymentSyncRequested, SettlementBooked)
}


class CommandHandler:
    """The consumer of commands. Write access to the broker is not power to refund: the signature is checked first."""

    def __init__(self, context: Context, senders: Mapping[str, Sequence[bytes]]) -> None:
        self._context = context
        self._senders = senders

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        """Raises UnsignedCommand: the message is set aside for a person, and nothing has moved."""
        model = _COMMANDS.get(envelope.type)
        if model is None:
            raise UnknownType(envelope.type)
        command = model.model_validate(envelope.data)
        require_signature(command, self._senders)
        match command:
            case RefundRequested():
                await give_back(command, claim, self._context)
            case PaymentSyncRequested():
                await sync_on_command(command, claim, self._context)
            case SettlementBooked():
                await book_settlement(command, claim, self._context)


class CaseHandler:
    """The consumer of the reconciler's cases. They move nothing, so they are not signed: all that they can do is to
    add a sentence of ours, with codes and amounts, to a timeline."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        model = next((each for each in CASE_EVENTS if envelope.type == each.TYPE), None)
        if model is None:
            raise UnknownType(envelope.type)
        await note_case(model.model_validate(envelope.data), envelope.time, claim, self._context)
