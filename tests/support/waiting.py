"""Waiting for a condition: the only place in the tests where anything sleeps."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""For two cores that four workers share; what is waited for comes in milliseconds when there is nothing else to do."""

_SHORTEST_SECONDS = 0.005
_LONGEST_SECONDS = 0.1


@overload
async def until(
    condition: Callable[[], Awaitable[T]], *, within_seconds: float = PATIENCE_SECONDS, what: str = ...
) -> T: ...


@overload
async def until(condition: Callable[[], T], *, within_seconds: float = PATIENCE_SECONDS, what: str = ...) -> T: ...


async def until(
    condition: Callable[[], T | Awaitable[T]], *, within_seconds: float = PATIENCE_SECONDS, what: str = "the condition"
) -> T:
    """Poll ``condition`` (plain or async) until it is true, and return its value.

    An AssertionError inside it counts as "not yet" and is shown when time runs out; any other exception ends the wait.
    Raises AssertionError: ``what`` did not happen, with the last value or assertion seen.
    """
    deadline = time.monotonic() + within_seconds
    pause = _SHORTEST_SECONDS
    while True:
        try:
            answer = condition()
            value = cast("T", await answer if inspect.isawaitable(answer) else answer)
            if value:
                return value
            seen = f"last seen: {value!r}"
        except AssertionError as refused:
            seen = f"last refusal: {refused}"
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {within_seconds} s; {seen}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_SECONDS)


def until_blocking(
    condition: Callable[[], T], *, within_seconds: float = PATIENCE_SECONDS, what: str = "the condition"
) -> T:
    """The same for code without an event loop, such as the starters of servers."""
    deadline = time.monotonic() + within_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {within_seconds} s; last seen: {value!r}")
        time.sleep(0.03)
