"""Too many requests at once: answered at once, in the shape of every other error, and counted.

uvicorn would say so in plain text, without a Retry-After, and takes every open connection for a request in progress:
some hundreds of idle ones that are kept alive would leave no room for work.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send

from shared.metrics import HTTP_REQUESTS, series
from shared.web.correlation import NO_STORE, SECURITY_HEADERS, known_method
from shared.web.problems import problem_response

log = structlog.get_logger()

MAX_CONNECTIONS = 8_000
"""Open connections of a process, idle ones among them; each costs some kilobytes and a descriptor. Whoever comes beyond
them is told at its first request, and let go."""

RETRY_AFTER_SECONDS = 2
LOG_SECONDS = 1.0


class Admission:
    """Beside one of uvicorn's protocols: whether a request is let in. Its ``limit_concurrency`` is how many may be
    in progress, in this process; its own way of looking at it is switched off."""

    loop: asyncio.AbstractEventLoop
    config: Any
    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    limit_concurrency: int | None
    _requests_allowed: int | None = None
    _is_surplus = False
    _logged_at = float("-inf")

    def _count_connection(self) -> None:
        self._requests_allowed, self.limit_concurrency = self.config.limit_concurrency, None
        self._is_surplus = len(self.connections) > MAX_CONNECTIONS

    def _is_overloaded(self, in_progress: int) -> bool:
        limit = self._requests_allowed
        return self._is_surplus or (limit is not None and in_progress >= limit)

    async def _refuse_overload(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = getattr(self.config.app, "service", "payrail")
        series(HTTP_REQUESTS, service, known_method(scope["method"]), "overloaded", 503).inc()
        now = self.loop.time()
        if now - Admission._logged_at >= LOG_SECONDS:
            Admission._logged_at = now
            log.warning("overloaded", requests=len(self.tasks), connections=len(self.connections))
        answer = problem_response(
            503,
            "overloaded",
            "This server has too many requests at once; nothing was done. Try again shortly.",
            retryable=True,
            headers={"Retry-After": str(RETRY_AFTER_SECONDS), "Connection": "close"},
        )
        answer.raw_headers += [*SECURITY_HEADERS, NO_STORE]
        await answer(scope, receive, send)
