"""Scripted faults: what a test asks the sandbox to do wrong, and to which calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.errors import InvalidRequest


class FaultKind(StrEnum):
    DELAY = "delay"
    TIMEOUT_BEFORE = "timeout_before"
    TIMEOUT_AFTER = "timeout_after"
    ERROR_5XX = "error_5xx"
    RATE_LIMIT = "rate_limit"
    PENDING = "pending"
    REJECT = "reject"
    WRONG_AMOUNT = "wrong_amount"
    UNKNOWN_STATUS = "unknown_status"
    UNPARSABLE = "unparsable"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    LOSE = "lose"
    LATE = "late"


WEBHOOK = "webhook"
ANY_CALL = "*"
READ_OPERATIONS = frozenset({"retrieve", "list"})
WRITE_OPERATIONS = frozenset({"create_session", "expire_session", "complete", "capture", "void", "refund", "token"})
"""``complete``: the client finishes a session that the buyer has approved; ``token``: it asks for an access token."""

CALL_OPERATIONS = WRITE_OPERATIONS | READ_OPERATIONS
OPERATIONS = CALL_OPERATIONS | {WEBHOOK, ANY_CALL}

_WEBHOOK_KINDS = frozenset(
    {FaultKind.DUPLICATE, FaultKind.REORDER, FaultKind.LOSE, FaultKind.LATE, FaultKind.WRONG_AMOUNT}
)
_ANSWERED_LATER = frozenset({"complete", "capture", "refund"})
_REFUSABLE = frozenset({"complete", "capture", "void", "refund"})
_CALL_KINDS = frozenset(FaultKind) - _WEBHOOK_KINDS - {FaultKind.PENDING, FaultKind.REJECT, FaultKind.UNKNOWN_STATUS}

DEFAULT_HOLD_SECONDS = 60.0
"""Longer than any client of ours waits for a gateway."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``remaining`` is how many more calls it hits; None hits every one until the list is replaced.

    With ``every`` it lets calls pass in between: of those that reach it in the list, each n-th is hit.
    """

    operation: str
    kind: FaultKind
    remaining: int | None = 1
    params: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        if self.kind not in _kinds_for(self.operation):
            raise InvalidRequest(f"the fault {self.kind} does not apply to the operation {self.operation}")

    @property
    def seconds(self) -> float:
        return float(self.params.get("seconds", DEFAULT_HOLD_SECONDS))

    @property
    def status(self) -> int:
        return int(self.params.get("status", 500))

    @property
    def after_work(self) -> bool:
        return bool(self.params.get("after_work", False))

    @property
    def code(self) -> str | None:
        """What a refusal says in the gateway's own words; None leaves the choice to the gateway."""
        return self.params.get("code")

    @property
    def every(self) -> int:
        return int(self.params.get("every", 1))

    @property
    def retry_after_seconds(self) -> int:
        return int(self.params.get("retry_after", 1))

    @property
    def copies(self) -> int:
        return int(self.params.get("copies", 1))

    @property
    def currency(self) -> str | None:
        """The currency to show with a wrong amount; None: the true one."""
        return self.params.get("currency")

    def amount_instead_of(self, amount_minor: int) -> int:
        """The amount to show: the one that was asked for, or else one that is wrong in every currency. With another
        currency the amount may stay as it is."""
        return int(self.params.get("amount_minor") or (amount_minor if self.currency else amount_minor + 100))


def _kinds_for(operation: str) -> frozenset[FaultKind]:
    if operation == WEBHOOK:
        return _WEBHOOK_KINDS
    more = {
        FaultKind.WRONG_AMOUNT: READ_OPERATIONS,
        FaultKind.UNKNOWN_STATUS: READ_OPERATIONS,
        FaultKind.PENDING: _ANSWERED_LATER,
        FaultKind.REJECT: _REFUSABLE,
    }
    return _CALL_KINDS | {kind for kind, operations in more.items() if operation in operations}
