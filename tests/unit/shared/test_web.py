"""The application that every service starts from: one shape of error, one trail, and limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from shared.correlation import current_correlation
from shared.errors import (
    Conflict,
    DatabaseUnavailable,
    Forbidden,
    GatewayOutcomeUnknown,
    IdempotencyKeyInFlight,
    NotFound,
    PayrailError,
    TooManyRequests,
    Unauthenticated,
)
from shared.health import HealthCheck
from shared.web.app import create_app
from shared.web.auth import Authenticator, Principal, RequireScope, StaticKeys, TokenVerifier
from tests.support.clock import FakeClock, fake_ports


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    quantity: int = Field(ge=1)


class Basket(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    items: list[Item]


ERRORS: dict[str, PayrailError] = {
    "conflict": Conflict("card 4242424242424242 is taken"),
    "missing": NotFound(),
    "database": DatabaseUnavailable(),
    "unknown": GatewayOutcomeUnknown(),
    "limited": TooManyRequests(retry_after_seconds=9),
    "stranger": Unauthenticated(),
    "in_flight": IdempotencyKeyInFlight(),
    "forbidden": Forbidden(),
}
router = APIRouter()


@router.post("/baskets")
async def create_basket(basket: Basket) -> dict[str, int]:
    return {"items": len(basket.items)}


@router.get("/errors/{name}")
async def raise_error(name: str) -> None:
    raise ERRORS[name]


@router.get("/bug")
async def bug() -> None:
    raise ZeroDivisionError("canary in a traceback")


@router.get("/correlation")
async def correlation() -> dict[str, str]:
    current = current_correlation()
    assert current is not None
    return {"request_id": current.request_id, "traceparent": current.traceparent}


@router.post("/raw")
async def raw(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@router.get("/orders/{order_id}")
async def scoped(
    order_id: str, principal: Annotated[Principal, Depends(RequireScope("orders:read"))]
) -> dict[str, str]:
    return {"caller": principal.subject, "order_id": order_id}


broken: list[str] = []


async def database_check() -> None:
    if "database" in broken:
        raise DatabaseUnavailable


async def broker_check() -> None:
    if "broker" in broken:
        raise ConnectionError


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    broken.clear()
    clock = FakeClock()
    verifier = TokenVerifier(StaticKeys({}), issuer="i", audiences=("a",), max_lifetime_seconds=900, clock=clock)
    app = create_app(
        service="testing",
        title="Testing",
        description="A test",
        ports=fake_ports(clock=clock),
        checks={
            "database": HealthCheck("database", database_check),
            "broker": HealthCheck("broker", broker_check, essential=False),
        },
        routers=[router],
        cors_origins=["https://shop.test"],
        max_body_bytes=1000,
        state={"authenticator": Authenticator(verifier)},
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testing") as opened:
        yield opened


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


async def test_a_wrong_field_is_named_by_its_pointer(client: httpx.AsyncClient) -> None:
    answer = await client.post("/baskets", json={"items": [{"quantity": 1}, {"quantity": 0}], "price": 5})
    problem = assert_problem(answer, 422, "invalid_request")
    assert {entry["pointer"] for entry in problem["errors"]} == {"/items/1/quantity", "/price"}


async def test_no_value_of_the_request_is_repeated_in_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.post("/baskets", json={"items": [{"quantity": "canary"}], "secret": "canary"})
    assert "canary" not in answer.text


@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b'{"items": [}', b"[" * 900])
async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/baskets", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_malformed_json_has_a_code_of_its_own(client: httpx.AsyncClient) -> None:
    answer = await client.post("/baskets", content=b"{", headers={"content-type": "application/json"})
    assert_problem(answer, 400, "malformed_json")


async def test_unknown_paths_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404, "not_found")
    refused = await client.delete("/baskets")
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"


async def test_a_trailing_slash_is_not_redirected(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/baskets/", json={"items": []}), 404, "not_found")


@pytest.mark.parametrize("path", ["/baskets", "/raw"])
async def test_a_body_over_the_limit_is_refused(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.post(path, content=b"x" * 1001), 413, "body_too_large")


@pytest.mark.parametrize("path", ["/baskets", "/raw"])
async def test_a_chunked_body_over_the_limit_is_refused_without_reading_it_all(
    client: httpx.AsyncClient, path: str
) -> None:
    sent = 0

    async def pours() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 500
            yield b"x" * 500

    answer = await client.post(path, content=pours(), headers={"content-type": "application/json"})
    assert_problem(answer, 413, "body_too_large")
    assert sent < 5000


async def test_a_body_at_the_limit_is_read(client: httpx.AsyncClient) -> None:
    assert (await client.post("/raw", content=b"x" * 1000)).json() == {"bytes": 1000}


@pytest.mark.parametrize("name", ERRORS)
async def test_each_error_is_rendered_as_its_class_says(client: httpx.AsyncClient, name: str) -> None:
    error = ERRORS[name]
    answer = await client.get(f"/errors/{name}")
    problem = assert_problem(answer, error.status, error.code)
    assert (problem["retryable"], problem["outcome_known"]) == (error.retryable, error.outcome_known)
    assert ("retry-after" in answer.headers) == (error.retryable)
    assert "4242424242424242" not in answer.text


async def test_retry_after_and_www_authenticate_say_what_to_do(client: httpx.AsyncClient) -> None:
    assert (await client.get("/errors/limited")).headers["retry-after"] == "9"
    assert (await client.get("/errors/stranger")).headers["www-authenticate"] == "Bearer"


async def test_a_bug_shows_nothing_but_the_request_id(client: httpx.AsyncClient) -> None:
    answer = await client.get("/bug")
    assert_problem(answer, 500, "internal_error")
    assert "canary" not in answer.text
    assert "ZeroDivision" not in answer.text


async def test_a_callers_request_id_is_kept_and_a_strange_one_is_replaced(client: httpx.AsyncClient) -> None:
    kept = await client.get("/correlation", headers={"x-request-id": "abc-123"})
    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "abc-123"
    for strange in (b"a b", b"x" * 65, b"a\x1b[31m", b"\xff", b'"}'):
        answer = await client.get("/correlation", headers={b"x-request-id": strange})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_trace_is_continued_and_nonsense_begins_a_new_one(client: httpx.AsyncClient) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await client.get("/correlation", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert answer.json()["traceparent"].split("-")[1] == trace
    assert answer.json()["traceparent"].split("-")[2] != "b7ad6b7169203331"
    for nonsense in ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "nonsense"):
        answer = await client.get("/correlation", headers={"traceparent": nonsense})
        assert answer.json()["traceparent"].split("-")[1] not in ("0" * 32, trace)


@pytest.mark.parametrize("path", ["/correlation", "/nowhere", "/bug", "/errors/conflict", "/healthz"])
async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers


async def test_only_listed_origins_may_read_answers(client: httpx.AsyncClient) -> None:
    allowed = await client.get("/correlation", headers={"origin": "https://shop.test"})
    assert allowed.headers["access-control-allow-origin"] == "https://shop.test"
    other = await client.get("/correlation", headers={"origin": "https://evil.test"})
    assert "access-control-allow-origin" not in other.headers


async def test_readiness_names_the_missing_component(client: httpx.AsyncClient) -> None:
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["missing"]) == (200, "ok", [])
    broken.append("broker")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["missing"]) == (200, "degraded", ["broker"])
    broken.append("database")
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["missing"]) == ("not_ready", ["database", "broker"])
    assert (await client.get("/healthz")).status_code == 200


async def test_metrics_carry_route_patterns_and_no_paths(client: httpx.AsyncClient) -> None:
    await client.get("/errors/conflict")
    text = (await client.get("/metrics")).text
    assert 'route="/errors/{name}"' in text
    assert "/errors/conflict" not in text


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Basic eDp5", "Bearer", "Bearer ", "Bearer nonsense", "Bearer " + "x" * 9000, "nonsense"],
)
async def test_without_a_good_token_a_scoped_route_answers_401(
    client: httpx.AsyncClient, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    assert_problem(await client.get("/orders/ord_1", headers=headers), 401, "unauthenticated")
