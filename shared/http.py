"""Outgoing HTTP: one client factory, and one way to send that bounds everything and says what may have happened.

httpx's own timeouts do not bound a dripping answer (field note M19), and its read errors do not say whether the server
has worked. ``HttpCaller.send`` adds a total budget, a byte cap, retries by error class, and our own error tree.
Keep httpx behind this module: its development has moved on and we may follow (field note 12).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from shared.clock import Clock
from shared.correlation import current_correlation
from shared.errors import (
    GatewayCallsExhausted,
    GatewayDeniedAfterSilence,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayServerError,
    GatewayUnavailable,
    PayrailError,
)
from shared.ports import Ports
from shared.unit_of_work import in_transaction

HttpClient = httpx.AsyncClient  # noqa: TID251 - the type by its name here; `build_http_client` makes them
"""What everybody else calls a client: httpx stays behind this module."""

MAX_RESPONSE_BYTES = 1024 * 1024  # SEC-65
MAX_RETRY_AFTER_SECONDS = 60
KEEP_ALIVE_SECONDS = 20.0
"""How long an idle connection is kept: long, so that a shop with a sale each ten seconds makes no new connection (and
no TLS handshake) each time; but less than servers keep theirs (ours: 30 s), because a request that is sent while the
other side is closing has an unknown outcome (field note M22)."""

MOST_SAVED_RETRIES = 10
CALLS_PER_RETRY = 10  # a party that is down gets a tenth more calls at most, however many of us call (failure H19)

# What httpx raises before a byte of the request can have been processed, beside PoolTimeout. Everything else may have
# been.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL)

_DENIALS = (401, 403)


def build_http_client(
    ports: Ports,
    *,
    base_url: str = "",
    connect_seconds: float = 5.0,
    read_seconds: float = 20.0,
    max_connections: int = 50,
    transport: httpx.AsyncBaseTransport | None = None,
) -> HttpClient:
    """The one place where an httpx client is made: no proxies from the environment, no redirects, no compression."""
    return HttpClient(
        base_url=base_url,
        transport=transport or ports.http_transport,
        verify=_tls_context(),
        timeout=httpx.Timeout(read_seconds, connect=connect_seconds, pool=1.0),
        limits=httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        ),
        follow_redirects=False,
        trust_env=False,
        headers={"accept-encoding": "identity", "user-agent": "payrail"},
    )


@cache
def _tls_context() -> ssl.SSLContext:
    """One for all clients: reading the list of authorities takes 30 ms and a megabyte, and there is a client for each
    gateway."""
    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    after_silence: bool = False
    """An earlier try of this same call was not answered, so it may have run, whatever this answer says."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How one kind of call may be made.

    ``repeatable``: a read, or a write under an idempotency key that the receiver honours: it may be sent again after an
    unknown outcome. A call that is not repeatable is sent again only where it cannot have arrived.
    """

    budget_seconds: float
    attempts: int = 3
    repeatable: bool = False
    first_wait_seconds: float = 0.2
    max_wait_seconds: float = 2.0
    max_bytes: int = MAX_RESPONSE_BYTES
    reads_problems: bool = False
    """A status of 500 and above is an answer too: our own services say with it what may have happened, and where."""


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """How long a streamed answer may take in all, how long one read of it, and how large it may get."""

    budget_seconds: float
    stall_seconds: float = 30.0
    max_bytes: int = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class HttpStream:
    """An answer whose body is read while it comes. Reading raises GatewayOutcomeUnknown where it breaks off, stalls,
    outlasts its budget or is too large: what was read before is all there is."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class RetryBudget:
    """What one party may be sent again: each first call saves up a tenth of a retry, and a full purse is ten.

    So a blip is retried away, and an outage is not made worse by those who suffer from it.
    """

    def __init__(self) -> None:
        self._tenths = MOST_SAVED_RETRIES * CALLS_PER_RETRY

    def first_call(self) -> None:
        self._tenths = min(self._tenths + 1, MOST_SAVED_RETRIES * CALLS_PER_RETRY)

    def take(self) -> bool:
        if self._tenths < CALLS_PER_RETRY:
            return False
        self._tenths -= CALLS_PER_RETRY
        return True


class HttpCaller:
    """Sends requests to one party. Raises GatewayUnavailable (nothing moved) or GatewayOutcomeUnknown (ask).

    One caller per party: they share the budget of retries.
    """

    def __init__(self, client: HttpClient, ports: Ports) -> None:
        self._client = client
        self._ports = ports
        self._retries = RetryBudget()

    @property
    def clock(self) -> Clock:
        """For those who call and know no clock of their own: how old a token is."""
        return self._ports.clock

    async def send(
        self,
        method: str,
        url: str,
        *,
        policy: CallPolicy,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> HttpAnswer:
        """Any status below 500 except 429 is an answer (and the others, where the policy says so); the caller reads it.

        ``content`` that is read while it is sent is there once: such a call is not tried again.

        Raises GatewayDeniedAfterSilence where a write is refused for its credentials and an earlier try of it was not
        answered: everybody reads 401 and 403 as "nothing ran", which is then true of the last try only. No transaction
        may be open (PG11).
        """
        answer = await self._answer(method, url, policy, headers or {}, params, content)
        if answer.after_silence and answer.status in _DENIALS and method != "GET":
            raise GatewayDeniedAfterSilence(answer.status)
        return answer

    async def _answer(
        self,
        method: str,
        url: str,
        policy: CallPolicy,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        content: bytes | AsyncIterator[bytes] | None,
    ) -> HttpAnswer:
        assert not in_transaction(), "a foreign call inside a unit of work"
        assert content is None or isinstance(content, bytes) or policy.attempts == 1, "it is there once"
        self._retries.first_call()
        deadline = self._ports.clock.monotonic() + policy.budget_seconds
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: _may_repeat(error, policy)),
            stop=lambda state: self._is_last(state, policy, deadline),
            wait=lambda state: self._wait_seconds(state, policy),
            sleep=self._ports.clock.sleep,
            reraise=True,
        )
        request_headers = dict(headers)
        correlation = current_correlation()
        if correlation is not None:
            request_headers.setdefault("traceparent", correlation.traceparent)
        may_have_moved = False  # one unanswered attempt is enough, whatever the later ones say
        try:
            async with asyncio.timeout(policy.budget_seconds):
                async for attempt in retrying:
                    with attempt:
                        before, may_have_moved = may_have_moved, True
                        try:
                            answer = await self._send_once(method, url, request_headers, params, content, policy)
                            if answer.status >= 500 and not policy.reads_problems:
                                is_replay = answer.headers.get("idempotent-replayed") == "true"
                                raise GatewayServerError(answer.status, is_replay=is_replay)
                            return replace(answer, after_silence=before)
                        except GatewayUnavailable:
                            may_have_moved = before
                            raise
        except TimeoutError as error:
            raise (GatewayOutcomeUnknown() if may_have_moved else GatewayUnavailable()) from error
        except GatewayUnavailable as error:
            if may_have_moved:
                raise GatewayOutcomeUnknown from error
            raise
        raise AssertionError("tenacity ends by returning or raising")

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        policy: StreamPolicy,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> AsyncIterator[HttpStream]:
        """GET an answer that is too large to hold. It is asked for once: who reads it knows where to go on.

        Raises as ``send`` does before the first byte. The budget counts the time of reading only against the clock, so
        that the reader's own work is never cut short in the middle.
        """
        assert not in_transaction(), "a foreign call inside a unit of work"
        deadline = self._ports.clock.monotonic() + policy.budget_seconds
        request_headers = dict(headers or {})
        correlation = current_correlation()
        if correlation is not None:
            request_headers.setdefault("traceparent", correlation.traceparent)
        request = self._client.build_request("GET", url, headers=request_headers, params=params)
        with _stream_errors():
            async with asyncio.timeout(policy.stall_seconds):
                response = await self._client.send(request, stream=True)
        try:
            if response.status_code == 429:
                raise GatewayRateLimited(retry_after_seconds=self._retry_after(response))
            yield HttpStream(response.status_code, response.headers, self._chunks(response, policy, deadline))
        finally:
            await response.aclose()

    async def _chunks(self, response: httpx.Response, policy: StreamPolicy, deadline: float) -> AsyncIterator[bytes]:
        chunks = response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()
        size = 0
        while True:
            left = deadline - self._ports.clock.monotonic()
            if left <= 0:
                raise GatewayOutcomeUnknown("the answer takes longer than is accepted")
            with _stream_errors():
                async with asyncio.timeout(min(left, policy.stall_seconds)):
                    chunk = await anext(chunks, None)
            if chunk is None:
                return
            size += len(chunk)
            if size > policy.max_bytes:
                raise GatewayOutcomeUnknown("the answer is larger than is accepted")
            yield chunk

    async def _send_once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        content: bytes | AsyncIterator[bytes] | None,
        policy: CallPolicy,
    ) -> HttpAnswer:
        try:
            async with self._client.stream(method, url, headers=headers, params=params, content=content) as response:
                body = await read_bounded(response, policy.max_bytes)
        except ResponseTooLarge as error:
            raise GatewayOutcomeUnknown("the answer is larger than is accepted") from error
        except httpx.PoolTimeout as error:
            raise GatewayCallsExhausted from error
        except _NEVER_SENT as error:
            raise GatewayUnavailable from error
        except httpx.HTTPError as error:
            raise GatewayOutcomeUnknown from error
        if response.status_code == 429:
            raise GatewayRateLimited(retry_after_seconds=self._retry_after(response))
        return HttpAnswer(response.status_code, response.headers, body)

    def _wait_seconds(self, state: RetryCallState, policy: CallPolicy) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, PayrailError) and error.retry_after_seconds is not None:
            return float(error.retry_after_seconds)
        ceiling: float = min(policy.max_wait_seconds, policy.first_wait_seconds * 2 ** (state.attempt_number - 1))
        return ceiling * self._ports.randomness.uniform(0.5, 1.0)

    def _is_last(self, state: RetryCallState, policy: CallPolicy, deadline: float) -> bool:
        """No wait that outlasts the budget is begun: the caller hears of it, with its Retry-After, at once."""
        outlasts = self._ports.clock.monotonic() + state.upcoming_sleep >= deadline
        return outlasts or state.attempt_number >= policy.attempts or not self._retries.take()

    def _retry_after(self, response: httpx.Response) -> int | None:
        return parse_retry_after(response.headers.get("retry-after"), self._ports.clock.now())


@contextmanager
def _stream_errors() -> Iterator[None]:
    try:
        yield
    except httpx.PoolTimeout as error:
        raise GatewayCallsExhausted from error
    except _NEVER_SENT as error:
        raise GatewayUnavailable from error
    except (httpx.HTTPError, TimeoutError) as error:
        raise GatewayOutcomeUnknown from error


class ResponseTooLarge(ValueError):
    """The answer is longer than its reader accepts."""


async def read_bounded(response: httpx.Response, limit: int) -> bytes:
    """The body as it came over the wire, nothing inflated (field note M23). Raises ResponseTooLarge."""
    body = bytearray()
    # A fake transport may hand over an answer that is already read.
    chunks = response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise ResponseTooLarge("the answer is larger than is accepted")
    return bytes(body)


def parse_retry_after(value: str | None, now: datetime) -> int | None:
    """Seconds, from either form of the header; nonsense is None and absurd waits are capped (failure H7)."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return min(int(value.strip()[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        seconds = (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0, min(int(seconds) + 1, MAX_RETRY_AFTER_SECONDS))


def _may_repeat(error: BaseException, policy: CallPolicy) -> bool:
    # An allow-list, on classes: cancellation and our own bugs are never retried (field notes M20, M21).
    if isinstance(error, GatewayCallsExhausted):
        return False  # all connections to this party are busy: it has waited a second, and more would be no help (H15)
    return isinstance(error, GatewayUnavailable) or (isinstance(error, GatewayOutcomeUnknown) and policy.repeatable)
