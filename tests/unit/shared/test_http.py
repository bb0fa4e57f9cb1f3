"""Outgoing HTTP: bounded in every direction, and honest about what may have happened at the other end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import httpx
import pytest

from shared.correlation import Correlation, correlated
from shared.errors import (
    GatewayCallsExhausted,
    GatewayDeniedAfterSilence,
    GatewayError,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayUnavailable,
)
from shared.http import MAX_RESPONSE_BYTES, CallPolicy, HttpCaller, build_http_client, parse_retry_after
from shared.ports import Ports
from shared.unit_of_work import IN_TRANSACTION
from tests.support.clock import A_MOMENT, FakeClock, fake_ports

ONCE = CallPolicy(budget_seconds=5, attempts=1)
NOT_REPEATABLE = CallPolicy(budget_seconds=60, attempts=3)
REPEATABLE = CallPolicy(budget_seconds=60, attempts=3, repeatable=True)


class Gateway(httpx.AsyncBaseTransport):
    """Answers one thing after the other: responses are returned, exceptions raised; the last one stays."""

    def __init__(self, *answers: httpx.Response | BaseException | Callable[[], httpx.Response]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer()


def a_caller(gateway: httpx.AsyncBaseTransport, ports: Ports | None = None) -> HttpCaller:
    ports = ports or fake_ports(clock=FakeClock(auto_advance=True))
    return HttpCaller(build_http_client(ports, base_url="http://gateway.test", transport=gateway), ports)


def every_transport_error() -> list[type[httpx.HTTPError]]:
    found, queue = [], [httpx.TransportError]
    while queue:
        each = queue.pop()
        queue += each.__subclasses__()
        found.append(each)
    return sorted({*found, httpx.TooManyRedirects, httpx.DecodingError}, key=lambda each: each.__name__)


NOTHING_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"}


@pytest.mark.parametrize("error", every_transport_error(), ids=lambda error: error.__name__)
async def test_every_network_error_says_whether_money_may_have_moved(error: type[Exception]) -> None:
    expected = GatewayUnavailable if error.__name__ in NOTHING_SENT else GatewayOutcomeUnknown
    with pytest.raises(expected) as raised:
        await a_caller(Gateway(error("trouble"))).send("POST", "/payments", policy=ONCE)
    assert type(raised.value) is (GatewayCallsExhausted if error.__name__ == "PoolTimeout" else expected)


def test_the_table_of_harmless_errors_knows_every_class_it_names() -> None:
    assert {error.__name__ for error in every_transport_error()} >= NOTHING_SENT


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 403, 404, 409, 422])
async def test_a_status_below_500_is_an_answer_for_the_caller_to_read(status: int) -> None:
    answer = await a_caller(Gateway(httpx.Response(status, content=b"text"))).send("GET", "/", policy=ONCE)
    assert (answer.status, answer.body) == (status, b"text")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
async def test_a_server_error_may_have_moved_money(status: int) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await a_caller(Gateway(httpx.Response(status))).send("POST", "/", policy=ONCE)


async def test_a_rate_limit_moved_nothing_and_carries_its_wait() -> None:
    with pytest.raises(GatewayRateLimited) as limited:
        await a_caller(Gateway(httpx.Response(429, headers={"retry-after": "7"}))).send("POST", "/", policy=ONCE)
    assert limited.value.retry_after_seconds == 7
    assert isinstance(limited.value, GatewayUnavailable)


async def test_a_call_that_never_arrived_is_sent_again() -> None:
    gateway = Gateway(httpx.ConnectError("refused"), httpx.ConnectError("refused"), httpx.Response(200))
    answer = await a_caller(gateway).send("POST", "/", policy=NOT_REPEATABLE)
    assert (answer.status, len(gateway.requests)) == (200, 3)


async def test_a_call_that_may_have_arrived_is_not_sent_again_unless_it_is_repeatable() -> None:
    gateway = Gateway(httpx.ReadTimeout("slow"), httpx.Response(200))
    with pytest.raises(GatewayOutcomeUnknown):
        await a_caller(gateway).send("POST", "/", policy=NOT_REPEATABLE)
    assert len(gateway.requests) == 1
    gateway = Gateway(httpx.ReadTimeout("slow"), httpx.Response(200))
    assert (await a_caller(gateway).send("POST", "/", policy=REPEATABLE)).status == 200
    assert len(gateway.requests) == 2


async def test_an_unknown_outcome_stays_unknown_when_later_attempts_never_arrive() -> None:
    gateway = Gateway(httpx.ReadTimeout("slow"), httpx.ConnectError("refused"))
    with pytest.raises(GatewayOutcomeUnknown):
        await a_caller(gateway).send("POST", "/", policy=REPEATABLE)
    assert len(gateway.requests) == 3


async def test_attempts_end() -> None:
    gateway = Gateway(httpx.ConnectError("refused"))
    with pytest.raises(GatewayUnavailable):
        await a_caller(gateway).send("GET", "/", policy=REPEATABLE)
    assert len(gateway.requests) == 3


async def test_a_pool_that_is_exhausted_is_not_waited_for_again() -> None:
    gateway = Gateway(httpx.PoolTimeout("busy"), httpx.Response(200))
    with pytest.raises(GatewayCallsExhausted):
        await a_caller(gateway).send("GET", "/", policy=REPEATABLE)
    assert len(gateway.requests) == 1


async def test_a_pool_that_is_exhausted_after_an_unanswered_try_leaves_it_unknown() -> None:
    gateway = Gateway(httpx.ReadTimeout("slow"), httpx.PoolTimeout("busy"))
    with pytest.raises(GatewayOutcomeUnknown):
        await a_caller(gateway).send("POST", "/", policy=REPEATABLE)
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_say_nothing_about_an_earlier_try_that_was_not_answered(status: int) -> None:
    gateway = Gateway(httpx.ReadTimeout("slow"), httpx.Response(status))
    with pytest.raises(GatewayDeniedAfterSilence) as denied:
        await a_caller(gateway).send("POST", "/", policy=REPEATABLE)
    assert (isinstance(denied.value, GatewayOutcomeUnknown), denied.value.gateway_status) == (True, status)
    assert len(gateway.requests) == 2  # asked once more, it would say the same

    for answers in ([httpx.Response(status)], [httpx.ConnectError("refused"), httpx.Response(status)]):
        answer = await a_caller(Gateway(*answers)).send("POST", "/", policy=REPEATABLE)
        assert (answer.status, answer.after_silence) == (status, False)
    read = await a_caller(Gateway(httpx.ReadTimeout("slow"), httpx.Response(status))).send(
        "GET", "/", policy=REPEATABLE
    )
    assert (read.status, read.after_silence) == (status, True)  # a read moves nothing, whichever try it was


async def send_often(caller: HttpCaller, count: int) -> None:
    for _ in range(count):
        with contextlib.suppress(GatewayError):
            await caller.send("GET", "/", policy=REPEATABLE)


async def test_an_outage_gets_a_tenth_more_calls_and_not_three_times_as_many() -> None:
    gateway = Gateway(httpx.ReadTimeout("slow"))
    await send_often(a_caller(gateway), 1000)
    assert 1100 <= len(gateway.requests) <= 1000 + 10 + 1000 // 10


async def test_calls_that_need_no_retry_save_up_for_those_that_do() -> None:
    gateway = Gateway(httpx.ConnectError("refused"))
    caller = a_caller(gateway)
    await send_often(caller, 100)  # by now the budget is spent
    gateway.requests.clear()
    gateway.answers = [httpx.Response(200)]
    await send_often(caller, 20)
    gateway.requests.clear()
    gateway.answers = [httpx.ConnectError("refused")]
    await send_often(caller, 1)
    assert len(gateway.requests) == 3


async def test_no_more_than_ten_retries_are_saved_up() -> None:
    gateway = Gateway(httpx.Response(200))
    caller = a_caller(gateway)
    await send_often(caller, 1000)
    gateway.requests.clear()
    gateway.answers = [httpx.ConnectError("refused")]
    await send_often(caller, 9)
    assert len(gateway.requests) == 9 + 10


async def test_each_party_has_a_retry_budget_of_its_own() -> None:
    down, gateway = Gateway(httpx.ConnectError("refused")), Gateway(httpx.ConnectError("refused"), httpx.Response(200))
    await send_often(a_caller(down), 100)
    assert (await a_caller(gateway).send("GET", "/", policy=REPEATABLE)).status == 200


async def test_waits_between_attempts_grow_and_retry_after_is_obeyed() -> None:
    clock = FakeClock(auto_advance=True)
    gateway = Gateway(
        httpx.ConnectError("refused"), httpx.Response(429, headers={"retry-after": "4"}), httpx.Response(200)
    )
    await a_caller(gateway, fake_ports(clock=clock)).send("GET", "/", policy=REPEATABLE)
    assert 0.1 <= clock.sleeps[0] <= 0.2
    assert clock.sleeps[1] == 4


async def test_a_wait_that_outlasts_the_budget_is_not_begun() -> None:
    clock = FakeClock(auto_advance=True)
    gateway = Gateway(httpx.Response(429, headers={"retry-after": "30"}))
    with pytest.raises(GatewayUnavailable) as limited:  # noqa: PT012
        policy = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)
        await a_caller(gateway, fake_ports(clock=clock)).send("GET", "/", policy=policy)
    assert (clock.sleeps, limited.value.retry_after_seconds) == ([], 30)


async def test_a_dripping_answer_ends_with_the_budget_and_its_outcome_is_unknown() -> None:
    async def drips() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.01)

    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(GatewayOutcomeUnknown):
        await a_caller(Gateway(httpx.Response(200, content=drips()))).send(
            "POST", "/", policy=CallPolicy(budget_seconds=0.2)
        )
    assert loop.time() - started < 60, "it would drip for ever"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_answer_that_is_too_large_is_cut_off_and_unknown() -> None:
    sent = 0

    async def pours() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    with pytest.raises(GatewayOutcomeUnknown, match="larger"):
        await a_caller(Gateway(httpx.Response(200, content=pours()))).send("POST", "/", policy=ONCE)
    assert sent <= MAX_RESPONSE_BYTES + 2 * 65536


async def test_a_redirect_is_not_followed() -> None:
    gateway = Gateway(httpx.Response(302, headers={"location": "http://elsewhere.test/"}))
    answer = await a_caller(gateway).send("GET", "/", policy=ONCE)
    assert (answer.status, len(gateway.requests)) == (302, 1)


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    client = build_http_client(fake_ports(), transport=Gateway(httpx.Response(200)))
    assert not client.trust_env
    assert client._mounts == {}


async def test_no_compression_is_asked_for() -> None:
    gateway = Gateway(httpx.Response(200))
    await a_caller(gateway).send("GET", "/", policy=ONCE)
    assert gateway.requests[0].headers["accept-encoding"] == "identity"


async def test_a_call_inside_a_transaction_is_a_bug() -> None:
    token = IN_TRANSACTION.set(True)
    try:
        with pytest.raises(AssertionError, match="unit of work"):
            await a_caller(Gateway(httpx.Response(200))).send("GET", "/", policy=ONCE)
    finally:
        IN_TRANSACTION.reset(token)


async def test_cancellation_is_never_swallowed_and_nothing_is_sent_again() -> None:
    class Hangs(Gateway):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    reached = asyncio.Event()
    gateway = Hangs()
    task = asyncio.create_task(a_caller(gateway).send("GET", "/", policy=REPEATABLE))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(gateway.requests) == 1


async def test_a_callers_own_deadline_is_a_cancellation_and_not_an_unknown_outcome() -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0.05):
            await a_caller(Gateway(httpx.Response(200, content=never()))).send("GET", "/", policy=REPEATABLE)
    assert not isinstance(raised.value, GatewayError)


async def test_our_own_bugs_are_raised_and_not_retried() -> None:
    gateway = Gateway(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await a_caller(gateway).send("GET", "/", policy=REPEATABLE)
    assert len(gateway.requests) == 1


async def test_the_trace_goes_along() -> None:
    gateway = Gateway(httpx.Response(200))
    with correlated(Correlation("req_1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")):
        await a_caller(gateway).send("GET", "/", policy=ONCE)
    assert gateway.requests[0].headers["traceparent"] == "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("999999999999999999999", 60),
        ("-5", None),
        ("7.5", None),
        ("", None),
        ("soon", None),
        ("١٢", None),
        ("Fri, 02 Jan 2026 03:04:15 GMT", 11),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0),
        ("Fri, 02 Jan 2099 03:04:15 GMT", 60),
        ("Fri, 99 Jan 2026 03:04:15 GMT", None),
        ("Fri, 02 Jan 2026 03:04:15", None),
        ("Fri, 02 Jan 99999 03:04:15 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_capped(value: str | None, seconds: int | None) -> None:
    assert parse_retry_after(value, A_MOMENT) == seconds


def test_the_moment_of_these_tests_is_utc() -> None:
    assert datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) == A_MOMENT
