"""What can be wrong with a run, and with asking about a payment."""

from __future__ import annotations

from shared.errors import DomainError, InfrastructureError


class SyncRefused(DomainError):
    """payment_service answered that it cannot ask about this payment, and why."""

    code = "sync_refused"
    status = 409

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class LeaseLost(InfrastructureError):
    """Another runner has taken the sweep over; nothing that was learnt meanwhile is written by this one."""

    code = "lease_lost"
