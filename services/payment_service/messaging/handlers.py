"""Messages to use cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from services.payment_service.use_cases.apply_webhook import apply_webhook
from services.payment_service.use_cases.give_back import give_back
from services.payment_service.use_cases.ports import Context
from shared.contracts.commands import Command, RefundRequested
from shared.contracts.envelope import EventEnvelope
from shared.contracts.webhook_events import WebhookReceived
from shared.metrics import COMMANDS_REFUSED
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()


class WebhookHandler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        await apply_webhook(WebhookReceived.model_validate(envelope.data), claim, self._context)


class UnsignedCommand(Exception):
    """A command that moves money and is not signed by a sender whose key we have (XS25)."""


class CommandHandler:
    """The consumer of commands. Write access to the broker is not power to refund: the signature is checked first."""

    def __init__(self, context: Context, senders: Mapping[str, Sequence[bytes]]) -> None:
        self._context = context
        self._senders = senders

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        """Raises UnsignedCommand: the message is set aside for a person, and nothing has moved."""
        command = RefundRequested.model_validate(envelope.data)
        self._require_signature(command)
        await give_back(command, claim, self._context)

    def _require_signature(self, command: Command) -> None:
        if command.is_signed_by(self._senders.get(command.sender, ())):
            return
        COMMANDS_REFUSED.labels(command.TYPE).inc()
        log.error("command_refused", type=command.TYPE, reason="signature")
        raise UnsignedCommand("the command is not signed by a sender whose key we have")
