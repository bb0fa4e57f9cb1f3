"""How long one call to a gateway took and how it ended, as an entry of the timeline. Never its body."""

from __future__ import annotations

from typing import Any

from services.payment_service.domain.timeline import TimelineEntry, call_entry, call_result
from shared.clock import Clock
from shared.correlation import current_correlation
from shared.money import Money


class Stopwatch:
    """Starts when it is made."""

    def __init__(self, operation: str, gateway: str, clock: Clock) -> None:
        self._operation = operation
        self._gateway = gateway
        self._clock = clock
        self._began = clock.monotonic()

    def entry(
        self, error: BaseException | None, reference: str, *, amount: Money | None = None, **details: Any
    ) -> TimelineEntry:
        result = str(details.pop("result", None) or call_result(error))
        elapsed_ms = int((self._clock.monotonic() - self._began) * 1000)
        correlation = current_correlation()
        return call_entry(
            self._operation,
            result,
            elapsed_ms,
            reference,
            at=self._clock.now(),
            gateway=self._gateway,
            amount=amount,
            request_id=correlation.request_id if correlation else None,
            **details,
        )
