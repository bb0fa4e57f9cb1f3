"""What every HTTP process receives requests with: uvicorn's protocols, and a deadline that uvicorn has none of (field
notes M24, M26)."""

from __future__ import annotations

import asyncio
import importlib.util
from abc import ABC, abstractmethod
from functools import partial

import h11
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from shared.web.overload import Admission
from shared.web.problems import problem_response

log = structlog.get_logger()

MAX_HEADER_BYTES = 32 * 1024  # SEC-3

_LARGE_BODY_PATHS: set[str] = set()


def allow_large_bodies(path: str) -> None:
    """Requests to exactly this path may take as long as their bodies keep coming, in this process."""
    _LARGE_BODY_PATHS.add(path)


def receiving_protocol() -> type[asyncio.Protocol]:
    """For uvicorn's ``http=``. Parsing in C takes a quarter of the time (ADR 0024), but it is no dependency of
    uvicorn's own; without it requests are received by h11, under the same rules."""
    if importlib.util.find_spec("httptools") is None:
        return DeadlineH11
    from shared.web.deadline_httptools import DeadlineHttpTools

    return DeadlineHttpTools


class ReceiveDeadline(ABC):
    """One absolute deadline for a whole request, headers and body: dripping bytes do not extend it (SEC-3, failure W9).

    Only for a path that takes large bodies (``allow_large_bodies``), and until its answer begins, each deadline that
    brought RECEIVE_BYTES_PER_SECOND is followed by another one. Nothing can be saved up. The time a handler takes, an
    idle kept-alive connection and an open WebSocket are not under it. Beside one of uvicorn's protocols.
    """

    RECEIVE_DEADLINE_SECONDS = 10.0
    RECEIVE_BYTES_PER_SECOND = 32 * 1024

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _received_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    @abstractmethod
    def _is_receiving(self) -> bool:
        """Whether a request has begun and not ended; judged by the parser, so a body that nobody reads counts too."""

    @abstractmethod
    def _large_body_path(self) -> str | None:
        """The path of the request whose body is coming in, while its answer has not begun."""

    def _follow_request(self) -> None:
        if self.transport.is_closing() or not self._is_receiving():
            self._stop()
        else:
            self._start()

    def _start(self) -> None:
        if self._deadline is None:
            self._received_bytes = 0
            self._deadline = self.loop.call_later(self.RECEIVE_DEADLINE_SECONDS, self._expired)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        self._deadline = None
        is_fast_enough = self._received_bytes >= self.RECEIVE_BYTES_PER_SECOND * self.RECEIVE_DEADLINE_SECONDS
        if is_fast_enough and self._large_body_path() in _LARGE_BODY_PATHS:
            self._start()
            return
        if not self.transport.is_closing():
            log.warning("request_not_received_in_time", seconds=self.RECEIVE_DEADLINE_SECONDS)
            self.transport.abort()


class DeadlineH11(ReceiveDeadline, Admission, H11Protocol):
    """The protocol in pure Python: where there is no httptools, and for the rare request that httptools cannot take."""

    _is_websocket = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._count_connection()
        self.app = partial(self._admit, self.app)
        self._start()  # a connection that says nothing occupies a slot as well

    async def _admit(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        others = len(self.tasks) - 1
        if self._is_overloaded(others):
            app = self._refuse_overload
        elif scope["http_version"] not in ("1.0", "1.1"):  # h11 takes any
            detail = "HTTP/1.0 and HTTP/1.1 are spoken here."
            app = problem_response(400, "malformed_request", detail, headers={"connection": "close"})
        await app(scope, receive, send)

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        super().data_received(data)
        self._follow_request()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or has headers beyond all measure, gets a problem too; there is no request to give an id."""
        answer = problem_response(400, "malformed_request", msg, headers={"connection": "close"})
        for event in (
            h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow_request()  # the next request may already be here in part

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._is_websocket = True  # another protocol has the connection now, and this one hears no more of it
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _is_receiving(self) -> bool:
        if self._is_websocket:
            return False
        if self.conn.their_state is h11.IDLE:
            return bool(self.conn.trailing_data[0])
        return self.conn.their_state is h11.SEND_BODY

    def _large_body_path(self) -> str | None:
        is_coming = self.conn.their_state is h11.SEND_BODY and not self.cycle.response_started
        return self.scope["path"] if is_coming else None
