"""Exports are read while they come, within bounds: time in all, time of one read, size, a line (failures H3, H4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import httpx
import pytest

from services.reconciler.clients.exports import BATCH, HttpExportsClient, Owner
from services.reconciler.domain.errors import ExportBroken
from services.reconciler.use_cases.mirror_ports import ParkedEvent
from shared.errors import ServiceUnavailable
from shared.http import HttpCaller, StreamPolicy, build_http_client
from tests.support.clock import A_MOMENT, FakeClock, fake_ports

Answer = httpx.Response | Exception


class Body(httpx.AsyncByteStream):
    def __init__(self, chunks: Sequence[bytes], clock: FakeClock, *, seconds_each: float = 0, stalls: bool = False):
        self._chunks = chunks
        self._clock = clock
        self._seconds_each = seconds_each
        self._stalls = stalls
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self._clock.move(self._seconds_each)
            yield chunk
        if self._stalls:
            await asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        self.closed = True


def a_client(answer: Answer, clock: FakeClock, asked: list[httpx.Request], **policy: float) -> HttpExportsClient:
    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ports = fake_ports(clock=clock, http_transport=httpx.MockTransport(handle))
    caller = HttpCaller(build_http_client(ports), ports)
    payments, orders = (Owner(name, f"http://{name}.test/", caller, lambda: "token") for name in ("payments", "orders"))
    return HttpExportsClient(payments, orders, policy=StreamPolicy(**({"budget_seconds": 600.0} | policy)))  # type: ignore[arg-type]


def parked(number: int) -> bytes:
    event = {
        "parked_id": f"prk_{number}",
        "gateway": "generic",
        "delivery_id": "whd_1",
        "status": "unclaimed",
        "references": ["r", "", "x" * 256],
        "received_at": "2026-01-02T03:04:05Z",
    }
    return json.dumps({"parked_event": event}).encode() + b"\n"


def end(count: int) -> bytes:
    return b'{"end": {"count": %d}}\n' % count


async def read(client: HttpExportsClient) -> list[Sequence[ParkedEvent]]:
    return [batch async for batch in client.parked_events()]


async def test_lines_may_end_anywhere_in_what_arrives_and_batches_are_bounded() -> None:
    clock, asked = FakeClock(), list[httpx.Request]()
    content = b"\n" + b"".join(parked(number) for number in range(BATCH + 5)) + end(BATCH + 5)
    pieces = [content[start : start + 777] for start in range(0, len(content), 777)]
    body = Body(pieces, clock)
    batches = await read(a_client(httpx.Response(200, stream=body), clock, asked))
    assert [len(batch) for batch in batches] == [BATCH, 5]
    assert [event.parked_id for batch in batches for event in batch] == [f"prk_{n}" for n in range(BATCH + 5)]
    assert batches[0][0].references == ("r",), "what no gateway calls a payment matches nothing"
    assert body.closed
    [request] = asked
    assert (request.url.path, request.headers["authorization"]) == ("/api/v1/exports/parked-events", "Bearer token")


async def test_it_asks_for_what_changed_since() -> None:
    clock, asked = FakeClock(), list[httpx.Request]()
    client = a_client(httpx.Response(200, stream=Body([end(0)], clock)), clock, asked)
    assert [batch async for batch in client.orders(A_MOMENT - timedelta(hours=1))] == []
    assert asked[0].url.host == "orders.test"
    assert dict(asked[0].url.params) == {"updated_since": "2026-01-02T02:04:05Z"}


async def test_an_answer_that_stalls_is_given_up() -> None:
    clock = FakeClock()
    body = Body([parked(1)], clock, stalls=True)
    with pytest.raises(ExportBroken):
        await read(a_client(httpx.Response(200, stream=body), clock, [], stall_seconds=0.01))
    assert body.closed


async def test_an_answer_that_drips_for_ever_outlasts_its_budget() -> None:
    clock = FakeClock()
    chunks = [parked(number) for number in range(100)]
    with pytest.raises(ExportBroken):
        await read(a_client(httpx.Response(200, stream=Body(chunks, clock, seconds_each=29)), clock, []))


async def test_an_answer_that_grows_for_ever_is_cut_off() -> None:
    clock = FakeClock()
    body = Body([parked(number) for number in range(100)], clock)
    with pytest.raises(ExportBroken):
        await read(a_client(httpx.Response(200, stream=body), clock, [], max_bytes=1000))
    assert body.closed


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.Response(429, headers={"retry-after": "3"}),
        httpx.Response(401),
        httpx.Response(503),
        httpx.Response(307, headers={"location": "http://evil.test/"}),
    ],
    ids=["refused", "rate limit", "token", "away", "redirect"],
)
async def test_an_owner_that_gives_no_export_is_away(answer: Answer) -> None:
    asked: list[httpx.Request] = []
    with pytest.raises(ServiceUnavailable):
        await read(a_client(answer, FakeClock(), asked))
    assert len(asked) == 1


async def test_a_reset_before_the_answer_is_a_broken_export() -> None:
    with pytest.raises(ExportBroken):
        await read(a_client(httpx.ReadError("reset"), FakeClock(), []))


async def test_nothing_of_a_line_that_is_not_understood_is_repeated() -> None:
    """A line may hold anything; the error names the field only."""
    clock = FakeClock()
    line = parked(1).replace(b'"generic"', b'["4111111111111111"]')
    with pytest.raises(ExportBroken) as error:
        await read(a_client(httpx.Response(200, stream=Body([line, end(1)], clock)), clock, []))
    assert "parked_event.gateway" in str(error.value.detail)
    assert "4111" not in repr(error.value) + str(error.value.__cause__) + str(error.value.detail)
