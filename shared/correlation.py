"""What ties one piece of work together across services: request id and trace context, bound once and carried along."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

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
    if parent and _TRACEPARENT.fullmatch(parent):
        return f"00-{parent[3:35]}-{randomness.token_bytes(8).hex()}-{parent[53:55]}"
    both = randomness.token_bytes(24).hex()
    return f"00-{both[:32]}-{both[32:]}-01"


class correlated:  # noqa: N801 - used like a function; as a generator it costs twice as much, for every message
    """Everything logged, called or published inside belongs to this piece of work."""

    __slots__ = ("_bound", "_correlation", "_fields", "_token")

    def __init__(self, correlation: Correlation, **log_fields: str | None) -> None:
        self._correlation = correlation
        self._fields = {name: value for name, value in log_fields.items() if value is not None}

    def __enter__(self) -> None:
        self._token = begin_work(self._correlation)
        self._bound = structlog.contextvars.bind_contextvars(**self._fields)  # bound_contextvars copies it all first

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._bound)
        end_work(self._token)


def begin_work(correlation: Correlation) -> Token[Correlation | None]:
    """As ``correlated``, for where a context manager would cost more than the work; ``end_work`` takes the result."""
    return _current.set(correlation)


def end_work(token: Token[Correlation | None]) -> None:
    _current.reset(token)


def add_correlation(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Puts the ids into a log line when it is written: most work writes none."""
    correlation = _current.get()
    if correlation is not None:
        event.setdefault("request_id", correlation.request_id)
        event.setdefault("trace_id", correlation.traceparent[3:35])
    return event
