"""What is no HTTP, or could be read in two ways, said over a raw socket to both protocols that a process may receive
with: one that a proxy reads differently from us would carry a second request past it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.web.deadline import MAX_HEADER_BYTES, DeadlineH11
from tests.support.waiting import until

PROTOCOLS: dict[str, Callable[..., asyncio.Protocol]] = {"h11": DeadlineH11}
if importlib.util.find_spec("httptools"):
    from shared.web.deadline_httptools import MAX_PIPELINED, DeadlineHttpTools

    PROTOCOLS["httptools"] = DeadlineHttpTools

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "a hexadecimal length": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "a length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\nabc",
    "a length that is two": HEAD + b"Content-Length: 3 3\r\n\r\nabc",
    "no length in the header": HEAD + b"Content-Length: \r\n\r\n",
    "lengths that differ": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a length of 21 digits": HEAD + b"Content-Length: 999999999999999999999\r\n\r\nabc",
    "a space before the colon": HEAD + b"Content-Length : 3\r\n\r\nabc",
    "a bracket in a name": HEAD + b"X(y: 1\r\n\r\n",
    "an empty name": HEAD + b": 1\r\n\r\n",
    "a name that is not ASCII": HEAD + b"X\xc3\xa9: 1\r\n\r\n",
    "a NUL in a name": HEAD + b"X\x00: a\r\n\r\n",
    "a NUL in a value": HEAD + b"X: a\x00b\r\n\r\n",
    "a CR in a value": HEAD + b"X: a\rb\r\n\r\n",
    "a header without a colon": HEAD + b"Xabc\r\n\r\n",
    "a folded line before any header": b"POST /x HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n",
    "another encoding and chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked and another encoding": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an encoding that only ends like it": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "the encoding identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "an empty encoding": HEAD + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab in the encoding": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "no host": b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "a version in lower case": b"GET /x http/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n",
    "a version of two digits": b"GET /x HTTP/11.1\r\nHost: a\r\n\r\n",
    "a space in the target": b"GET /x y HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is not ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in the target": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
}
BROKEN_BODIES = {
    "a giant chunk": CHUNKED + b"ffffffffffffffffffffff\r\nabc",
    "a negative chunk": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nabc",
    "a space before the size": CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n",
    "more than the size said": CHUNKED + b"3\r\nabcXX0\r\n\r\n",
    "a bare line feed after the size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "a bare line feed after a chunk": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
}
# Either reading is possible and h11 takes the one that the standard names; llhttp takes none.
AMBIGUOUS = {
    "a length and an encoding": HEAD + b"Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "an encoding and a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "the same length twice": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a folded line": HEAD + b"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    "a size with a space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 3\n\nabc",
    "a length in a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
}


class Recorder:
    """Answers what it read: the target, the headers' names as they are at the end, and the body."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await self.may_answer.wait()
        seen = {
            "method": scope["method"],
            "target": [scope["path"], scope["query_string"].decode(), scope["raw_path"].decode()],
            "names": [name.decode() for name, _ in scope["headers"]],
            "body": body.decode(),
        }
        answer = json.dumps(seen).encode()
        headers = [(b"content-length", str(len(answer)).encode()), (b"x-answer", b"mine")]
        status = 405 if scope["method"] == "CONNECT" else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Server:
    def __init__(self, recorder: Recorder, port: int) -> None:
        self.app = recorder
        self._port = port

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def says(self, *pieces: bytes) -> bytes:
        """Everything that comes back until the server ends the connection; the pieces arrive one by one."""
        reader, writer = await self.open()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await a_turn()
            async with asyncio.timeout(8):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.fixture(params=PROTOCOLS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """The protocol on a socket, without the rest of uvicorn's server, which looks for its end ten times a second."""
    recorder, state = Recorder(), ServerState()
    config = uvicorn.Config(recorder, log_config=None, lifespan="off", h11_max_incomplete_event_size=MAX_HEADER_BYTES)
    config.load()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: PROTOCOLS[request.param](config=config, server_state=state, app_state={}), "127.0.0.1"
    )
    yield Server(recorder, listening.sockets[0].getsockname()[1])
    listening.close()
    await listening.wait_closed()


async def a_turn() -> None:
    """For the other end of the connection, so that what is written next arrives by itself."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(turn.set_result, None)
    await turn


def assert_is_one_400(answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), answer
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    assert json.loads(body)["code"] == "malformed_request"


async def test_what_is_no_http_is_a_400_that_no_handler_sees(server: Server) -> None:
    for name, request in REFUSED.items():
        try:
            assert_is_one_400(await server.says(request))
        except AssertionError as error:
            raise AssertionError(name) from error
    assert server.app.calls == 0


async def test_it_is_refused_as_well_when_it_comes_byte_by_byte(server: Server) -> None:
    for name in ("no host", "two hosts", "another encoding and chunked", "a NUL in a value", "a signed length"):
        request = REFUSED[name]
        answer = await server.says(*(request[n : n + 1] for n in range(len(request))))
        if answer:  # it is lost when the last bytes come after the connection was closed
            assert_is_one_400(answer)
    assert server.app.calls == 0


async def test_a_broken_body_ends_the_connection_and_is_never_handled_as_a_request(server: Server) -> None:
    for name, request in BROKEN_BODIES.items():
        answer = await server.says(request)
        assert b" 200 " not in answer, name
        assert_is_one_400(answer)


async def test_what_can_be_read_in_two_ways_is_refused_or_read_as_the_standard_says(server: Server) -> None:
    for name, request in AMBIGUOUS.items():
        answer = await server.says(request + b"NONSENSE\r\n\r\n")
        _, _, rest = answer.partition(b"\r\n\r\n")
        taken = json.loads(rest.split(b"HTTP/1.1")[0])
        assert taken.get("body", "abc") == "abc", name
        assert taken.get("code", "malformed_request") == "malformed_request", name


async def test_targets_are_taken_apart_at_the_first_question_mark_and_nothing_is_resolved(server: Server) -> None:
    for target, expected in {
        b"/a%20b?x=%20": ["/a b", "x=%20", "/a%20b"],
        b"//a/b": ["//a/b", "", "//a/b"],
        b"/a?b?c#d": ["/a", "b?c#d", "/a"],
        b"/a#b?c": ["/a#b", "c", "/a#b"],
        b"http://h:1/a?b": ["http://h:1/a", "b", "http://h:1/a"],
        b"/a/../b;c": ["/a/../b;c", "", "/a/../b;c"],
        b"/%ed%a0%80": ["/\ufffd\ufffd\ufffd", "", "/%ed%a0%80"],
    }.items():
        answer = await server.says(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["target"] == expected


async def test_a_trailer_becomes_no_header(server: Server) -> None:
    request = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    answer = await server.says(request, b"0\r\nX-Evil: 1\r\n\r\n")
    seen = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (seen["names"], seen["body"]) == (["host", "connection", "transfer-encoding"], "abc")


@pytest.mark.parametrize(
    ("beginning", "filling"),
    [
        (HEAD, b"X-Filling: " + b"x" * 989 + b"\r\n"),
        (HEAD + b"X-Endless: ", b"x" * 1000),
        (b"GET /", b"x" * 1000),
        (CHUNKED + b"0\r\n", b"X-Trailer: " + b"x" * 980 + b"\r\n"),
    ],
    ids=["many headers", "an endless header", "an endless target", "an endless trailer"],
)
async def test_headers_beyond_all_measure_are_refused_before_their_end(
    server: Server, beginning: bytes, filling: bytes
) -> None:
    reader, writer = await server.open()
    sent = 0
    writer.write(beginning)
    while not reader.at_eof() and not writer.is_closing() and sent < 300_000:
        writer.write(filling)
        sent += len(filling)
        await a_turn()
    writer.close()
    assert sent < 300_000


async def test_headers_of_just_under_the_limit_are_read(server: Server) -> None:
    filling = b"X-Filling: " + b"x" * (MAX_HEADER_BYTES - 200) + b"\r\n"
    answer = await server.says(HEAD + b"Connection: close\r\n" + filling + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_the_body_of_an_upgrade_that_is_declined_is_no_request(server: Server) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    request = HEAD + b"Connection: upgrade, close\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    for pieces in ((request + smuggled,), (request, smuggled), (request + smuggled[:5], smuggled[5:])):
        answer = await server.says(*pieces)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == smuggled.decode()


async def test_a_connect_is_a_request_like_any_other(server: Server) -> None:
    answer = await server.says(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["method"] == "CONNECT"


@pytest.mark.parametrize("nonsense", [b"NONSENSE\r\n\r\n", HEAD + b"Host: b\r\n\r\n", CHUNKED + b"zz\r\n"])
async def test_nonsense_behind_a_request_does_not_get_into_its_answer(server: Server, nonsense: bytes) -> None:
    server.app.may_answer.clear()
    asking = asyncio.ensure_future(server.says(HEAD + b"Content-Length: 3\r\n\r\nabc" + nonsense))
    await until(lambda: server.app.calls > 0, what="the first request being handled")
    server.app.may_answer.set()
    first, second = (await asking).split(b"HTTP/1.1 400", 1)
    assert first.startswith(b"HTTP/1.1 200")
    assert json.loads(first.partition(b"\r\n\r\n")[2])["body"] == "abc"
    assert_is_one_400(b"HTTP/1.1 400" + second)


async def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    server.app.may_answer.clear()
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(5))
    last = b"GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    asking = asyncio.ensure_future(server.says(requests, last))
    await until(lambda: server.app.calls > 0, what="the first request being handled")
    server.app.may_answer.set()
    answers = (await asking).split(b"HTTP/1.1 200")[1:]
    assert [json.loads(each.partition(b"\r\n\r\n")[2])["target"][0] for each in answers] == [f"/{n}" for n in range(6)]


@pytest.mark.parametrize("server", [name for name in PROTOCOLS if name != "h11"], indirect=True)
async def test_not_more_than_some_requests_wait_behind_another(server: Server) -> None:
    """h11 parses one request at a time."""
    server.app.may_answer.clear()
    asking = asyncio.ensure_future(server.says(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5000))
    await until(lambda: server.app.calls > 0, what="the first request being handled")
    server.app.may_answer.set()
    answers = (await asking).split(b"HTTP/1.1 ")[1:]
    assert [each[:3] for each in answers] == [b"200"] * (MAX_PIPELINED + 1) + [b"400"]
