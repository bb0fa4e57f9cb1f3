"""What sandbox gateways inherit where the gateway they play has no such thing."""

from __future__ import annotations

from dataclasses import replace

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    CaptureStatus,
    DisputeStatus,
    IllegalMove,
)
from services.gateway_sandbox.gateways.port import Books, WireAnswer, WireCall, WireError


class WithoutKeys:
    """No idempotency keys: every call counts."""

    def idempotency_key(self, call: WireCall) -> str | None:  # noqa: ARG002 - the port's
        return None

    def key_in_use(self) -> WireError:
        raise AssertionError("no call of this gateway carries a key")

    def key_reused(self, key: str) -> WireError:  # noqa: ARG002
        raise AssertionError("no call of this gateway carries a key")


class WithJsonAnswers:
    """Answers say that they are JSON, and which request they answer."""

    def finish(self, call: WireCall, answer: WireAnswer, request_id: str, *, replayed: bool) -> WireAnswer:  # noqa: ARG002
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        return replace(answer, headers={**headers, **answer.headers})


class WithoutPendingCaptures:
    """A capture is done at once, or has no record of its own: there is nothing to settle."""

    async def settle_capture(
        self,
        entry: BookEntry,  # noqa: ARG002
        capture: BookCapture,  # noqa: ARG002
        status: CaptureStatus,  # noqa: ARG002
        books: Books,  # noqa: ARG002
    ) -> None:
        raise IllegalMove("a capture of this gateway's is never pending")


class WithoutHolds(WithoutPendingCaptures):
    """The money is taken at once."""

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:  # noqa: ARG002
        raise IllegalMove("this gateway holds no money")

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:  # noqa: ARG002
        raise IllegalMove("this gateway holds no money")


class WithoutDisputes:
    """Disputes are no part of this gateway's interface; they arrive by post, so to speak."""

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:  # noqa: ARG002
        raise IllegalMove("this gateway tells nobody about disputes")

    async def close_dispute(
        self,
        entry: BookEntry,  # noqa: ARG002
        dispute: BookDispute,  # noqa: ARG002
        status: DisputeStatus,  # noqa: ARG002
        books: Books,  # noqa: ARG002
    ) -> None:
        raise IllegalMove("this gateway tells nobody about disputes")
