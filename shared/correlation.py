"""What ties one piece of work together across services: request id and trace context, bound once and carried along."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog

from shared.randomness import Randomness

_TRACEPARENT = re.compile(r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


@dataclass(frozen=True, slots=True)
class Correlation:
    request_id: str
    traceparent: str


_current: ContextVar[Correlation | None] = ContextVar("payrail_correlation", default=None)


def current_correlation() -> Correlation | None:
    return _current.get()


def accept_request_id(value: str | None) -> str | None:
    """A caller's X-Request-Id, if it is one; anything else is replaced, because it goes into logs (XS13)."""
    return value if value and _REQUEST_ID.fullmatch(value) else None


def child_traceparent(parent: str | None, randomness: Randomness) -> str:
    """A new span in the caller's trace, or a new trace where the caller sent none (or nonsense)."""
    span = randomness.token_bytes(8).hex()
    if parent and _TRACEPARENT.fullmatch(parent):
        return f"00-{parent[3:35]}-{span}-{parent[53:55]}"
    return f"00-{randomness.token_bytes(16).hex()}-{span}-01"


@contextmanager
def correlated(correlation: Correlation, **log_fields: str | None) -> Iterator[None]:
    """Everything logged, called or published inside belongs to this piece of work."""
    token = _current.set(correlation)
    fields = {name: value for name, value in log_fields.items() if value is not None}
    try:
        with structlog.contextvars.bound_contextvars(
            request_id=correlation.request_id, trace_id=correlation.traceparent[3:35], **fields
        ):
            yield
    finally:
        _current.reset(token)
