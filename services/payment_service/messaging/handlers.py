"""Messages to use cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from services.payment_service.use_cases.apply_webhook import Reading, apply_webhook, read_webhook
from services.payment_service.use_cases.apply_webhooks import Arrived, apply_webhooks, may_be_together
from services.payment_service.use_cases.book_settlement import book_settlement
from services.payment_service.use_cases.give_back import give_back
from services.payment_service.use_cases.note_case import note_case
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.sync_on_command import sync_on_command
from shared.contracts.commands import Command, PaymentSyncRequested, RefundRequested, SettlementBooked
from shared.contracts.envelope import EventEnvelope
from shared.contracts.reconciliation_events import CASE_EVENTS
from shared.contracts.webhook_events import WebhookReceived
from shared.messaging.bus import ClaimedEvent
from shared.messaging.commands import require_signature
from shared.messaging.consumer import correlated_with
from shared.unit_of_work import InboxClaim

MAX_READ = 1_000
"""Events that were taken and not handed over since: their batch was given up."""


class WebhookHandler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        await apply_webhook(WebhookReceived.model_validate(envelope.data), claim, self._context)


class WebhookBatchHandler:
    """``WebhookHandler`` for many at once, of those that their gateways need not be asked about.

    What ``takes`` has read of an event is kept for the call that follows, so that it is read once.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._read: dict[str, Reading] = {}

    def takes(self, envelope: EventEnvelope) -> bool:
        try:
            reading = self._reading(envelope)
        except Exception:  # noqa: BLE001 - whatever it is, the handler meets it too, and it costs that message only
            return False
        if not may_be_together(reading):
            return False
        if len(self._read) >= MAX_READ:
            self._read.pop(next(iter(self._read)))
        self._read[envelope.id] = reading
        return True

    async def __call__(self, events: Sequence[ClaimedEvent]) -> None:
        await apply_webhooks([self._arrived(envelope, claim) for envelope, claim in events], self._context)

    def _arrived(self, envelope: EventEnvelope, claim: InboxClaim) -> Arrived:
        reading = self._read.pop(envelope.id, None) or self._reading(envelope)
        return Arrived(reading, claim, partial(correlated_with, envelope, claim.consumer))

    def _reading(self, envelope: EventEnvelope) -> Reading:
        return read_webhook(WebhookReceived.model_validate(envelope.data), self._context)


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
