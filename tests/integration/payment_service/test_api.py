"""The HTTP API: who may, what comes in, what goes out, and where a returning browser is sent."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.integration.payment_service.conftest import BuildWorld, World
from tests.integration.payment_service.fake_gateway import says
from tests.support.clock import FakeClock
from tests.support.waiting import until

UNKNOWN = "pay_01jd8q3q3q3q3q3q3q3q3q3q3q"


# --- who may -------------------------------------------------------------------------------------------------------

OPERATIONS = [
    ("POST", "", "payments:write"),
    ("GET", "", "payments:read"),
    ("GET", "/{id}", "payments:read"),
    ("POST", "/{id}/sync", "payments:write"),
    ("POST", "/{id}/close", "payments:write"),
]


@pytest.mark.parametrize(("method", "path", "scope"), OPERATIONS)
async def test_a_token_with_the_right_scope_is_needed(world: World, method: str, path: str, scope: str) -> None:
    payment = await world.opened()
    url = "/api/v1/payments" + path.format(id=payment["payment_id"])
    body = world.body() if not path else {"reason": "closed"}

    async def call(headers: dict[str, str]) -> httpx.Response:
        return await world.http.request(method, url, headers=headers, json=body if method == "POST" else None)

    nobody = await call({})
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    assert nobody.headers["www-authenticate"] == "Bearer"
    assert (await call({"Authorization": "Bearer nonsense"})).status_code == 401
    others = {"payments:read", "payments:write", "events:read", "orders:read"} - {scope}
    assert (await call(world.token(" ".join(sorted(others))))).status_code == 403
    assert (await call(world.token(scope))).is_success


async def test_a_token_for_another_audience_is_refused(world: World) -> None:
    foreign = {"Authorization": world.token()["Authorization"][:-6] + "AAAAAA"}
    assert (await world.http.get("/api/v1/payments", headers=foreign)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", "/sync"), ("POST", "/close"), ("GET", "/return"), ("POST", "/return")]
)
@pytest.mark.parametrize(
    "payment_id", [UNKNOWN, "pay_x", "ord_01jd8q3q3q3q3q3q3q3q3q3q3q", "'; DROP TABLE payments", "%F0"]
)
async def test_what_does_not_exist_is_not_found(world: World, method: str, path: str, payment_id: str) -> None:
    url = f"/api/v1/payments/{payment_id}{path}"
    body = {"reason": "closed"} if path == "/close" else None
    answer = await world.http.request(method, url, headers=world.token(), json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"


# --- strict input --------------------------------------------------------------------------------------------------


def the_amount(value: Any) -> dict[str, Any]:
    return {"amount": {"amount_minor": value, "currency": "EUR"}}


@pytest.mark.parametrize(
    "changes",
    [
        the_amount(0),
        the_amount(-1),
        the_amount(19.99),
        the_amount(1999.0),
        the_amount(True),
        the_amount("1999"),
        the_amount(None),
        the_amount(10**12 + 1),
        the_amount(10**40),
        {"amount": 1999},
        {"amount": {"amount_minor": 1999}},
        {"amount": {"amount_minor": 1999, "currency": "eur"}},
        {"amount": {"amount_minor": 1999, "currency": "XXX"}},
        {"amount": {"amount_minor": 1999, "currency": "EUR", "tax": 1}},
        {"unknown_field": 1},
        {"status": "captured"},
        {"payment_id": "pay_1"},
        {"payment_id": UNKNOWN.upper()},
        {"payment_id": UNKNOWN + "\n"},
        {"order_id": UNKNOWN},
        {"gateway": "../generic"},
        {"capture": "later"},
        {"description": ""},
        {"description": "   "},
        {"description": "x" * 251},
        {"description": "a\x00b"},
        {"description": "a\ud800b"},
        {"customer": {"email": "no address", "name": "Ada"}},
        {"customer": {"email": "a\x00@example.com", "name": "Ada"}},
        {"customer": {"email": "a@example.com", "name": "Ada\x00"}},
        {"customer": {"email": "a@example.com", "name": "Ada", "phone": "\x00"}},
        {"customer": {"email": "a@example.com", "name": "Ada", "card": "4242"}},
        {"items": [{"name": "Tea", "quantity": 0, "unit_amount_minor": 1}]},
        {"items": [{"name": "Tea", "quantity": 1, "unit_amount_minor": -1}]},
        {"items": [{"name": "Tea", "quantity": 1.5, "unit_amount_minor": 1}]},
        {"items": [{"name": "Tea", "quantity": 1, "unit_amount_minor": 1}] * 101},
        {"success_url": "javascript:alert(1)"},
        {"success_url": "https://[shop.example"},
        {"success_url": "https:///thanks"},
        {"failure_url": "https://shop.example/\x00"},
        {"cancel_url": "//evil.example"},
        {"expires_at": "2026-01-02T03:04:05"},
        {"expires_at": "0001-01-01T00:00:00+14:00"},
        {"expires_at": "9999-12-31T23:59:59-14:00"},
        {"expires_at": "soon"},
    ],
)
async def test_a_wrong_request_is_refused_and_nothing_is_done(world: World, changes: dict[str, Any]) -> None:
    answer = await world.post("", world.body(**changes))
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]
    assert world.gateway.calls == []
    assert await world.rows("SELECT 1 FROM payments") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"amount": NaN}', b"null", b"[" * 50_000])
async def test_what_is_no_json_object_is_refused(world: World, content: bytes) -> None:
    headers = world.token() | {"content-type": "application/json"}
    answer = await world.http.post("/api/v1/payments", content=content, headers=headers)
    assert answer.status_code in (400, 422), answer.text


async def test_ten_megabytes_are_refused(world: World) -> None:
    headers = world.token() | {"content-type": "application/json"}
    answer = await world.http.post("/api/v1/payments", content=b'"' + b"x" * 10_000_000, headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize("reason", ["", "Ordnung!", "x" * 41, None, 7])
async def test_a_reason_to_close_is_a_short_code(world: World, reason: Any) -> None:
    payment = await world.opened()
    answer = await world.post(f"/{payment['payment_id']}/close", {"reason": reason})
    assert answer.status_code == 422
    assert (await world.see(payment["payment_id"]))["status"] == "requires_action"


# --- lists ---------------------------------------------------------------------------------------------------------


async def test_pages_cover_everything_once_newest_first(world: World) -> None:
    opened = [(await world.opened())["payment_id"] for _ in range(7)]
    seen: list[str] = []
    sizes: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await world.get("", limit=2, **({"cursor": cursor} if cursor else {}))).json()
        seen += [payment["payment_id"] for payment in page["data"]]
        sizes.append(len(page["data"]))
        cursor = page["next_cursor"]
    assert seen == sorted(opened, reverse=True)
    assert sizes == [2, 2, 2, 1]


async def test_a_full_last_page_has_no_next(world: World) -> None:
    await world.opened()
    await world.opened()
    assert (await world.get("", limit=2)).json()["next_cursor"] is None


async def test_filters(world: World) -> None:
    paid, open_ = await world.opened(), await world.opened()
    await world.receive(world.webhook(paid))
    for filters, expected in (
        ({"order_id": paid["order_id"]}, [paid]),
        ({"status": "captured"}, [paid]),
        ({"status": "failed"}, []),
        ({"gateway": "generic"}, [open_, paid]),
        ({"gateway": "stripe"}, []),
        ({"gateway_reference": open_["gateway_reference"]}, [open_]),
        ({"final": "true"}, [paid]),
        ({"final": "false"}, [open_]),
        ({"final": "false", "order_id": paid["order_id"]}, []),
    ):
        page = (await world.get("", **filters)).json()
        assert [each["payment_id"] for each in page["data"]] == [each["payment_id"] for each in expected], filters


async def test_the_filter_and_the_document_mean_the_same_by_final(world: World) -> None:
    conflicted = await world.opened()
    await world.opened()
    await world.receive(world.webhook(conflicted, amount=0.01))
    assert (await world.see(conflicted["payment_id"]))["status"] == "conflicted"
    for final in (True, False):
        page = (await world.get("", final=str(final).lower())).json()
        assert [each["is_final"] for each in page["data"]] == [final]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "status=paid",
        "final=maybe",
        "order_id=%00",
        "cursor=%00",
        "gateway_reference=%00",
    ],
)
async def test_a_wrong_filter_is_refused(world: World, query: str) -> None:
    answer = await world.http.get(f"/api/v1/payments?{query}", headers=world.token())
    assert answer.status_code == 422


async def test_details_show_what_was_learnt_and_from_where(world: World) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment))
    facts = (await world.see(payment["payment_id"]))["facts"]
    assert [(fact["kind"], fact["source"]) for fact in facts] == [("session_opened", "api"), ("captured", "webhook")]
    assert facts[1]["amount"] == {"amount_minor": 1999, "currency": "EUR"}


async def test_gateways_are_listed_without_a_token(build_world: BuildWorld) -> None:
    world = await build_world(stripe_api_key="sk_test_secret")
    answer = await world.http.get("/api/v1/gateways")
    listed = {gateway["name"]: gateway for gateway in answer.json()["data"]}
    assert set(listed) == {"stripe", "generic"}
    assert "close_session" in listed["stripe"]["capabilities"]
    assert "secret" not in answer.text
    assert "gk_test" not in answer.text


async def test_events_are_there_to_catch_up_with(world: World) -> None:
    payment = await world.opened()

    async def page(**params: Any) -> dict[str, Any]:
        """Not empty: while an older transaction runs, of anybody on this server, an event is not told yet."""
        answer = await world.http.get("/api/v1/events", headers=world.token(), params=params)
        assert answer.json()["data"]
        return dict(answer.json())

    first = await until(lambda: page(limit=1), what="the first event")
    assert [event["type"] for event in first["data"]] == ["payment.created.v1"]
    rest = await until(lambda: page(after=first["next_cursor"]), what="the second event")
    assert [event["type"] for event in rest["data"]] == ["payment.requires_action.v1"]
    assert rest["data"][0]["subject"] == payment["payment_id"]
    assert rest["data"][0]["correlationid"] == payment["order_id"]
    assert "ada@example.com" not in str(first) + str(rest)
    end = (await world.http.get("/api/v1/events", headers=world.token(), params={"after": rest["next_cursor"]})).json()
    assert end == {"data": [], "next_cursor": rest["next_cursor"]}
    assert (await world.http.get("/api/v1/events", headers=world.token("payments:read"))).status_code == 403


async def test_a_gateway_that_cannot_be_asked_is_said_so(world: World) -> None:
    payment = await world.opened()
    world.gateway.before["retrieve"] = [httpx.ConnectError("refused") for _ in range(3)]
    answer = await world.post(f"/{payment['payment_id']}/sync")
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert "retry-after" in answer.headers


# --- coming back ---------------------------------------------------------------------------------------------------


async def come_back(
    world: World, payment: dict[str, Any], query: str = "", *, method: str = "GET"
) -> tuple[str, dict[str, str]]:
    """Where the browser is sent, without query, and the query."""
    url = f"/api/v1/payments/{payment['payment_id']}/return{query}"
    answer = await world.http.request(method, url, content=b"status=completed" if method == "POST" else None)
    assert answer.status_code == 303, answer.text
    target = urlsplit(answer.headers["location"])
    return target._replace(query="").geturl(), dict(parse_qsl(target.query))


@pytest.mark.parametrize(
    ("status", "page", "shown"),
    [
        ("completed", "thanks", "captured"),
        ("processing", "thanks", "processing"),
        ("failed", "failed", "failed"),
        ("expired", "failed", "expired"),
        ("canceled", "cart", "canceled"),
        ("open", "thanks", "processing"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_gateway_is_asked_and_the_browser_sent_on(
    build_world: BuildWorld, status: str, page: str, shown: str, method: str
) -> None:
    world = await build_world(return_budget_seconds=30)  # none of these is about a gateway that is too slow
    payment = await world.opened()
    world.gateway.pays(payment["gateway_reference"], status=status)
    where, query = await come_back(world, payment, method=method)
    assert where == f"https://shop.example/{page}"
    assert query == {"order_id": payment["order_id"], "status": shown}


async def test_turning_back_shows_the_cart_while_the_page_is_open(world: World) -> None:
    payment = await world.opened()
    assert await come_back(world, payment, "?from=cancel") == (
        "https://shop.example/cart",
        {"order_id": payment["order_id"], "status": "requires_action"},
    )
    world.gateway.pays(payment["gateway_reference"])
    await world.sync(payment["payment_id"])
    assert (await come_back(world, payment, "?from=cancel"))[0] == "https://shop.example/thanks"


@pytest.mark.parametrize(
    "query",
    [
        "?status=captured",
        "?status=succeeded&payment_status=paid&redirect_status=succeeded",
        "?from=page&success_url=https://evil.example",
        "?url=https://evil.example&next=//evil.example&return_to=https://evil.example",
        "?from=//evil.example",
        "?session_id=cs_of_somebody_else&payment_id=pay_other&order_id=ord_other",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_that_the_browser_carries_is_believed(world: World, query: str, method: str) -> None:
    payment = await world.opened()
    where, shown = await come_back(world, payment, query, method=method)
    assert where == "https://shop.example/thanks"
    assert shown == {"order_id": payment["order_id"], "status": "processing"}
    assert (await world.see(payment["payment_id"]))["status"] == "requires_action"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://shop.example/thanks?a=1&b=x%20y&flag", "https://shop.example/thanks?a=1&b=x%20y&flag&{ours}"),
        ("https://shop.example/#/orders/7?tab=1", "https://shop.example/?{ours}#/orders/7?tab=1"),
        ("https://shop.example/thanks?status=old&order_id=old&z=1", "https://shop.example/thanks?z=1&{ours}"),
        ("https://shop.example/t?x=%2Fy%3D&%73tatus=old", "https://shop.example/t?x=%2Fy%3D&{ours}"),
        ("https://shop.example", "https://shop.example?{ours}"),
    ],
)
async def test_what_the_shops_address_carries_is_kept(world: World, given: str, expected: str) -> None:
    payment = await world.opened(success_url=given)
    answer = await world.http.get(f"/api/v1/payments/{payment['payment_id']}/return")
    ours = f"order_id={payment['order_id']}&status=processing"
    assert answer.headers["location"] == expected.format(ours=ours)


async def test_a_gateway_that_hangs_holds_no_shopper_beyond_the_budget(build_world: BuildWorld) -> None:
    world = await build_world(return_budget_seconds=0.2)
    payment = await world.opened()
    world.gateway.before["retrieve"] = [asyncio.Event()]
    before = time.monotonic()
    assert (await come_back(world, payment))[1]["status"] == "processing"
    assert time.monotonic() - before < 8


@pytest.mark.parametrize(
    "trouble", [httpx.ConnectError("refused"), says(401, {}), says(400, {}), says(200, "nonsense")]
)
async def test_a_gateway_in_trouble_holds_no_shopper(world: World, trouble: Any) -> None:
    payment = await world.opened()
    world.gateway.before["retrieve"] = [trouble] * 3
    assert (await come_back(world, payment))[1]["status"] == "processing"


async def test_a_gateway_switched_off_since_holds_no_shopper(build_world: BuildWorld) -> None:
    payment = await (await build_world()).opened()
    assert (await come_back(await build_world(generic_api_base=None), payment))[1]["status"] == "processing"


async def test_a_browser_that_reloads_does_not_make_us_call_each_time(build_world: BuildWorld) -> None:
    clock = FakeClock(auto_advance=True)
    world = await build_world(clock=clock)
    payment = await world.opened()
    for _ in range(5):
        await come_back(world, payment)
    assert world.gateway.calls.count("retrieve") == 1
    clock.move(2)
    await come_back(world, payment)
    assert world.gateway.calls.count("retrieve") == 2
