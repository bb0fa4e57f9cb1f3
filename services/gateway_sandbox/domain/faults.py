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
    WRONG_AMOUNT = "wrong_amount"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    LOSE = "lose"
    LATE = "late"


WEBHOOK = "webhook"
ANY_CALL = "*"
READ_OPERATIONS = frozenset({"retrieve", "list"})
CALL_OPERATIONS = frozenset({"create_session", "expire_session", "capture", "void", "refund"}) | READ_OPERATIONS
OPERATIONS = CALL_OPERATIONS | {WEBHOOK, ANY_CALL}

_WEBHOOK_KINDS = frozenset(
    {FaultKind.DUPLICATE, FaultKind.REORDER, FaultKind.LOSE, FaultKind.LATE, FaultKind.WRONG_AMOUNT}
)
_CALL_KINDS = frozenset(FaultKind) - _WEBHOOK_KINDS

DEFAULT_HOLD_SECONDS = 60.0
"""Longer than any client of ours waits for a gateway."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``remaining`` is how many more calls it hits; None hits every one until the list is replaced."""

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
    def retry_after_seconds(self) -> int:
        return int(self.params.get("retry_after", 1))

    @property
    def copies(self) -> int:
        return int(self.params.get("copies", 1))

    def amount_instead_of(self, amount_minor: int) -> int:
        """The amount to show: the one that was asked for, or else one that is wrong in every currency."""
        return int(self.params.get("amount_minor") or amount_minor + 100)


def _kinds_for(operation: str) -> frozenset[FaultKind]:
    if operation == WEBHOOK:
        return _WEBHOOK_KINDS
    return _CALL_KINDS | {FaultKind.WRONG_AMOUNT} if operation in READ_OPERATIONS else _CALL_KINDS
