"""Commands are obeyed for their signature: write access to the broker is not power to move money or goods (XS25)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from shared.contracts.commands import Command
from shared.metrics import COMMANDS_REFUSED

log = structlog.get_logger()


class UnsignedCommand(Exception):
    """A command that is not signed by a sender whose key we have."""


def require_signature(command: Command, senders: Mapping[str, Sequence[bytes]]) -> None:
    """Raises UnsignedCommand: the message is set aside for a person, and nothing has moved."""
    if command.is_signed_by(senders.get(command.sender, ())):
        return
    COMMANDS_REFUSED.labels(command.TYPE).inc()
    log.error("command_refused", type=command.TYPE, reason="signature")
    raise UnsignedCommand("the command is not signed by a sender whose key we have")
