"""Adapters over a scripted gateway: what was sent is kept, what is answered is listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx
from hypothesis import strategies as st

from services.payment_service.domain.models import Customer, Item, Observation
from services.payment_service.gateways.port import CreateSession, Delivery
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from tests.support.adapter_calls import OPEN_FOR, a_session_request
from tests.support.clock import A_MOMENT, FakeClock, fake_ports

EXPIRES_AT = A_MOMENT + OPEN_FOR

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


@dataclass
class ScriptedGateway:
    """Answers in turn; the last answer is repeated."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    clock: FakeClock = field(default_factory=lambda: FakeClock(auto_advance=True))

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            # A stream, as from a socket: what is in memory already cannot be read piece by piece.
            return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))
        return answer(request)

    def caller(self) -> HttpCaller:
        ports = fake_ports(clock=self.clock, http_transport=httpx.MockTransport(self))
        return HttpCaller(build_http_client(ports), ports)

    @property
    def sent(self) -> httpx.Request:
        return self.requests[-1]

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.sent.content.decode(), keep_blank_values=True, strict_parsing=True))


def says(body: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body).encode(), headers={"content-type": "application/json"})


def a_request(**changes: Any) -> CreateSession:
    mine = {"amount": Money(1999, "USD"), "customer": Customer("ada@example.com", "Ada"), "attempted_at": A_MOMENT}
    return a_session_request(**{**mine, **changes})


def a_delivery(payload: str | dict[str, Any]) -> Delivery:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return Delivery("application/json", text, None, A_MOMENT)


def told(observations: tuple[Observation, ...]) -> set[tuple[str, str, Money | None]]:
    return {(str(each.kind), each.object_reference, each.amount) for each in observations}


TEA = Item("Tea & cup = 100%", 2, 500)
POT = Item("قهوة", 1, 999)


def json_around(keys: list[str], values: list[Any]) -> st.SearchStrategy[str]:
    """Bodies that nearly make sense: known keys and values, put together at random, then cut or repeated."""
    leaf = st.one_of(
        st.sampled_from(values),
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**40), 10**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    )
    some_json = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(keys), inner, max_size=len(keys))
        ),
        max_leaves=25,
    )
    whole = st.dictionaries(st.sampled_from(keys), some_json, max_size=len(keys)).map(json.dumps)
    cut = st.tuples(whole, st.floats(0, 1)).map(lambda pair: pair[0][: int(len(pair[0]) * pair[1])])
    repeated_key = st.tuples(whole, st.sampled_from(keys), leaf).map(
        lambda parts: "{" + f"{json.dumps(parts[1])}:{json.dumps(parts[2])}," * 2 + parts[0][1:]
    )
    deep = st.integers(1, 200_000).map(lambda depth: '{"data":' + "[" * depth)
    odd_number = st.sampled_from(["1e9999999999999999999", "NaN", "Infinity", "-0", "9" * 5000, "1e-400", "0.1e1"])
    with_odd_number = st.tuples(st.sampled_from(keys), odd_number).map(lambda pair: f'{{"{pair[0]}":{pair[1]}}}')
    return st.one_of(whole, cut, repeated_key, deep, with_odd_number, st.text(max_size=200))
