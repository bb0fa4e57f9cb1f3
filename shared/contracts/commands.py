"""Commands: events that ask another service to move money or goods. They are signed by their sender (XS25).

Write access to the broker is not power to refund: the receiver checks ``signature`` against the sender's key before it
does anything. What is signed is the command's canonical JSON without the signature, with its type; it names all that it
is about itself, so the envelope around it needs no trust.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from shared.contracts.envelope import EventData


class Command(EventData):
    """``command_key`` is what makes it the same command for ever: repeated, it does nothing more."""

    sender: str = Field(min_length=1, max_length=40)
    command_key: str = Field(min_length=1, max_length=100)
    signature: str = ""

    def signed(self, key: bytes) -> Self:
        """A copy with its signature. ``key`` is the sender's own, at least 32 bytes."""
        return self.model_copy(update={"signature": _sign(self, key)})

    def is_signed_by(self, keys: Sequence[bytes]) -> bool:
        """Whether one of the sender's keys (several while they are rotated) signed exactly this."""
        return any(hmac.compare_digest(self.signature.encode(), _sign(self, key).encode()) for key in keys)


class RefundRequested(Command):
    """Give back all that this payment still has: captured money is refunded, held money is released."""

    TYPE: ClassVar[str] = "refund.requested.v1"

    payment_id: str
    order_id: str
    reason: Literal["late_payment", "duplicate_payment", "order_canceled"]


def _sign(command: Command, key: bytes) -> str:
    content = command.model_dump(mode="json", exclude={"signature"})
    canonical = json.dumps([command.TYPE, content], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()
