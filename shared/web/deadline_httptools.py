"""The receive deadline over uvicorn's protocol that parses in C, and what has to be refused beside what it refuses."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from shared.web.answering import ANSWER
from shared.web.deadline import MAX_HEADER_BYTES, DeadlineH11, ReceiveDeadline
from shared.web.overload import Admission
from shared.web.problems import problem_response

log = structlog.get_logger()

MAX_PIPELINED = 64
"""Requests of one connection that wait for the answer to an earlier one; a read of 256 KiB may bring thousands."""

NO_HTTP = "Invalid HTTP request received."


class Refused(Exception):
    """The head of a request could be read in two ways, or is too large; the text goes into the log."""


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    async def run_asgi(self, app: ASGI3Application) -> None:
        try:
            await super().run_asgi(app)
        finally:
            # It leads back here: left in, every request would wait for the garbage collector.
            self.scope.pop("extensions", None)

    def answer(self, status: int, head: bytes, body: bytes) -> bool:
        """``shared.web.answering.DirectAnswer``: not a look at each header, and one write."""
        if self.response_started or self.flow.write_paused:
            return False
        if self.disconnected:
            return True  # nobody is there to read it
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        for name, value in self.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (head, b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(lines))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


class DeadlineHttpTools(ReceiveDeadline, Admission, HttpToolsProtocol):
    """As DeadlineH11, in a quarter of its time.

    llhttp has no limit for headers, takes more than one Host or none, appends trailers to the headers that a handler
    already has, and takes the body of an upgrade that is declined for the next request. Here the first two are refused,
    trailers dropped, and such an upgrade is handed to h11. Nothing is written into an answer that is under way.
    """

    _in_message = False
    _in_body = False
    _moved = False
    """Whether the data just received brought a body, or the end of a head or a message."""
    _unread_bytes = 0
    """What came since then without anything to show for it: a head, a trailer, or a chunk's extension."""
    _fed_bytes = 0
    _is_upgrade = False
    _is_handed_over = False
    _is_refused = False
    _refuse_after_answer = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._count_connection()
        self._start()  # a connection that says nothing occupies a slot as well

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        self._moved = False
        self._fed_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(str(cause) if isinstance(cause, Refused) else type(cause or error).__name__)
            return
        if self._in_message and not self._moved:
            self._unread_bytes += len(data)
            if self._unread_bytes > MAX_HEADER_BYTES:
                self._refuse("The request's headers are too large.")
                return
        else:
            self._unread_bytes = 0
        self._follow_request()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        self._in_body = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer must not become a header of a request that is being handled
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """As uvicorn's, but that the target is taken apart as h11 has it: one question mark, and nothing resolved."""
        self._moved = True
        version = self.parser.get_http_version()
        self._check_head(version)
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        self._is_upgrade = self.parser.should_upgrade()
        self._in_body = True
        if self._is_upgrade:
            return
        if version != "1.1":
            scope["http_version"] = version
        raw_path, _, query = self.url.partition(b"?")
        path = raw_path.decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = query
        is_next = self._is_answering()
        self.cycle = self._new_cycle(keep_alive=version != "1.0" and self.parser.should_keep_alive())
        app: Any = self._refuse_overload if self._is_overloaded(len(self.tasks)) else self.app
        if is_next:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))
        else:
            self._start_asgi_task(self.cycle, app)

    def on_body(self, body: bytes) -> None:
        self._moved = True
        self._received_bytes += len(body)
        if self._is_upgrade or self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._in_message = False
        self._in_body = False
        self._moved = True
        if self._is_upgrade:
            return
        if self.cycle.response_complete:  # it was answered early, and the clock of the idle began before its end
            self._keep_alive()
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if self._refuse_after_answer and is_last:
            self.send_400_response(NO_HTTP)
        elif not self._is_refused:
            self._follow_request()  # the next request may already be here in part

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or has headers beyond all measure, gets a problem too; there is no request to give an id."""
        if self.transport.is_closing():
            return
        answer = problem_response(400, "malformed_request", msg, headers={"connection": "close"})
        head = b"".join(name + b": " + value + b"\r\n" for name, value in answer.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + bytes(answer.body))
        self.transport.close()

    def _check_head(self, version: str) -> None:
        """Raises Refused for what llhttp takes and h11 does not (tests/…/test_malformed_requests.py lists both)."""
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts != 1 and (hosts or version == "1.1"):
            raise Refused("A request has one Host header.")
        if version not in ("1.0", "1.1"):
            raise Refused("HTTP/1.0 and HTTP/1.1 are spoken here.")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refused("Too many requests were sent before their answers were read.")
        if b"transfer-encoding" in names and self._transfer_encodings() != [b"chunked"]:
            raise Refused("The only transfer encoding is chunked.")
        if self._unread_bytes + self._fed_bytes > MAX_HEADER_BYTES:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEADER_BYTES:
                raise Refused("The request's headers are too large.")

    def _transfer_encodings(self) -> list[bytes]:
        return [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]

    def _new_cycle(self, *, keep_alive: bool) -> Cycle:
        cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self.scope["extensions"] = {ANSWER: cycle.answer}  # type: ignore[dict-item]
        return cycle

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _is_receiving(self) -> bool:
        if self._in_message:
            # Behind a request that is being handled it waits for us, not for its sender.
            return not self.pipeline if self._in_body else not self._is_answering()
        # Bytes that begin no message (empty lines) while nothing is being answered: no timer would run otherwise.
        return self.timeout_keep_alive_task is None and not self._is_answering() and not self._is_handed_over

    def _large_body_path(self) -> str | None:
        is_coming = self._in_body and not self.pipeline and not self.cycle.response_started
        return self.scope["path"] if is_coming else None

    def _keep_alive(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _refuse(self, reason: str) -> None:
        """The connection ends, after the answers that are under way: a 400 inside one of them would be read as its
        body, or as the answer to something else."""
        log.warning("malformed_request", reason=reason)
        self._is_refused = True
        self._stop()
        is_of_the_last = self._is_answering() and self._in_body
        if not self._is_answering():
            self.send_400_response(NO_HTTP)
        elif is_of_the_last and not self.pipeline:
            if not self.cycle.response_started:
                self.send_400_response(NO_HTTP)
            self.transport.close()
            self._disconnect(self.cycle)
        else:
            if is_of_the_last:
                self._disconnect(self.pipeline.popleft()[0])
            self._refuse_after_answer = True

    def _disconnect(self, cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()

    def _upgrade(self, rest: bytes) -> None:
        """A WebSocket, or something that is not spoken here (h2c, CONNECT): then it is an ordinary request, whose body
        llhttp has not read. ``rest`` is what came after its head."""
        if self._is_answering():
            self._in_body = False
            self._refuse("An upgrade has to wait for the answers before it.")
            return
        self._is_handed_over = True
        self._stop()
        if self._should_upgrade():
            self.handle_websocket_upgrade()
            return
        self.connections.discard(self)
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode()]
        for name, value in self.headers:
            head += [b"\r\n", name, b": ", value]
        protocol = DeadlineH11(self.config, self.server_state, self.app_state, self.loop)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(b"".join([*head, b"\r\n\r\n", rest]))
