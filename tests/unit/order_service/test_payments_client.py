"""The HTTP adapter of payment_service: what goes out, and which error says what about the money."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.order_service.clients.payments import HttpPaymentsClient
from services.order_service.domain.errors import PaymentInProgress, PaymentRefused
from services.order_service.domain.models import LineItem, PaymentStatus, PaymentTerms
from services.order_service.use_cases.ports import PaymentRequest
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable, PayrailError, ServiceUnavailable
from shared.money import Money
from tests.support.clock import fake_ports

Answering = Callable[[httpx.Request], httpx.Response]

A_PAYMENT: dict[str, Any] = {
    "payment_id": "pay_1",
    "order_id": "ord_1",
    "gateway": "stripe",
    "gateway_reference": "cs_1",
    "status": "requires_action",
    "version": 2,
    "amount": {"amount_minor": 12500, "currency": "KWD"},
    "amount_captured": 0,
    "next_action": {"type": "redirect", "url": "https://gateway.example/1"},
    "expires_at": "2026-01-02T04:00:00Z",
    "a_field_of_tomorrow": True,
}


def a_client(answer: Answering, *, budget_seconds: float = 5) -> HttpPaymentsClient:
    return HttpPaymentsClient(
        httpx.AsyncClient(transport=httpx.MockTransport(answer)),
        base_url="http://payments.test/",
        token=lambda: "a-token",
        budget_seconds=budget_seconds,
        ports=fake_ports(),
    )


def a_request() -> PaymentRequest:
    return PaymentRequest(
        payment_id="pay_1",
        order_id="ord_1",
        gateway="stripe",
        amount=Money(12500, "KWD"),
        terms=PaymentTerms("https://s/ok", "https://s/no", "https://s/back", "manual", "card"),
        description="Order ord_1",
        customer_email="ada@example.com",
        customer_name="Ada",
        customer_phone=None,
        items=(LineItem("a", "A", 1, Money(12500, "KWD")),),
        expires_at=datetime(2026, 1, 2, 4, tzinfo=UTC),
    )


async def test_opening_sends_the_orders_money_and_reads_the_session() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(201, json=A_PAYMENT)

    opened = await a_client(answer).open(a_request())
    assert (opened.snapshot.status, opened.snapshot.version) == (PaymentStatus.REQUIRES_ACTION, 2)
    assert opened.next_action == {"type": "redirect", "url": "https://gateway.example/1"}
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "http://payments.test/api/v1/payments")
    assert request.headers["authorization"] == "Bearer a-token"
    assert json.loads(request.content) == {
        "payment_id": "pay_1",
        "order_id": "ord_1",
        "gateway": "stripe",
        "amount": {"amount_minor": 12500, "currency": "KWD"},
        "capture": "manual",
        "method": "card",
        "description": "Order ord_1",
        "customer": {"email": "ada@example.com", "name": "Ada"},
        "items": [{"name": "A", "quantity": 1, "unit_amount_minor": 12500}],
        "success_url": "https://s/ok",
        "failure_url": "https://s/no",
        "cancel_url": "https://s/back",
        "expires_at": "2026-01-02T04:00:00Z",
    }


def a_problem(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": f"about {code}"}, headers=headers)


@pytest.mark.parametrize(
    ("answer", "error", "code", "status"),
    [
        (a_problem(503, "gateway_unavailable"), GatewayUnavailable, "gateway_unavailable", 503),
        (a_problem(503, "gateway_outcome_unknown"), GatewayOutcomeUnknown, "gateway_outcome_unknown", 503),
        (a_problem(502, "gateway_rejected"), GatewayRejected, "gateway_rejected", 502),
        (a_problem(422, "gateway_not_enabled"), PaymentRefused, "gateway_not_enabled", 422),
        (a_problem(422, "currency_not_supported"), PaymentRefused, "currency_not_supported", 422),
        (a_problem(409, "payment_id_reused"), PaymentRefused, "payment_id_reused", 409),
        (a_problem(401, "unauthenticated"), ServiceUnavailable, "service_unavailable", 503),
        (a_problem(404, "not_found"), ServiceUnavailable, "service_unavailable", 503),
        (a_problem(500, "internal_error"), GatewayOutcomeUnknown, "gateway_outcome_unknown", 503),
        (httpx.Response(502, text="<html>bad gateway</html>"), GatewayOutcomeUnknown, "gateway_outcome_unknown", 503),
        (httpx.Response(201, text="{"), GatewayOutcomeUnknown, "gateway_outcome_unknown", 503),
        (
            httpx.Response(201, json=A_PAYMENT | {"status": "sublime"}),
            GatewayOutcomeUnknown,
            "gateway_outcome_unknown",
            503,
        ),
        (
            httpx.Response(201, content=json.dumps(A_PAYMENT).replace("12500", "12500.0")),
            GatewayOutcomeUnknown,
            "gateway_outcome_unknown",
            503,
        ),
        (httpx.Response(201, json=A_PAYMENT | {"order_id": "ord_2"}), ServiceUnavailable, "service_unavailable", 503),
    ],
)
async def test_each_problem_is_the_error_that_it_names(
    answer: httpx.Response, error: type[PayrailError], code: str, status: int
) -> None:
    with pytest.raises(error) as refused:
        await a_client(lambda _: answer).open(a_request())
    assert (refused.value.code, refused.value.status) == (code, status)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (httpx.ConnectError("refused"), ServiceUnavailable),
        (httpx.ConnectTimeout("slow"), ServiceUnavailable),
        (httpx.PoolTimeout("full"), ServiceUnavailable),
        (httpx.ReadTimeout("slow"), GatewayOutcomeUnknown),
        (httpx.RemoteProtocolError("reset"), GatewayOutcomeUnknown),
        (httpx.ReadError("reset"), GatewayOutcomeUnknown),
    ],
)
async def test_trouble_on_the_way_says_whether_money_may_have_moved(
    trouble: Exception, error: type[PayrailError]
) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        raise trouble

    with pytest.raises(error):
        await a_client(answer).open(a_request())


async def test_a_retry_after_is_passed_on() -> None:
    answer = a_problem(503, "gateway_unavailable", **{"retry-after": "7"})
    with pytest.raises(GatewayUnavailable) as refused:
        await a_client(lambda _: answer).open(a_request())
    assert refused.value.retry_after_seconds == 7


async def test_closing_what_payment_service_does_not_know_finds_nothing() -> None:
    assert await a_client(lambda _: a_problem(404, "not_found")).close("pay_1", reason="order_canceled") is None


async def test_closing_reads_what_became_of_the_payment() -> None:
    paid = A_PAYMENT | {"status": "captured", "amount_captured": 12500, "version": 3}
    snapshot = await a_client(lambda _: httpx.Response(200, json=paid)).close("pay_1", reason="order_canceled")
    assert snapshot is not None
    assert (snapshot.status, snapshot.amount_captured, snapshot.version) == (PaymentStatus.CAPTURED, 12500, 3)


async def test_finding_asks_for_the_payment_and_moves_nothing() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("GET", "/api/v1/payments/pay_1")
        return httpx.Response(200, json=A_PAYMENT | {"status": "captured", "version": 3})

    found = await a_client(answer).find("pay_1")
    assert found is not None
    assert (found.payment_id, found.order_id, found.status, found.version) == (
        "pay_1",
        "ord_1",
        PaymentStatus.CAPTURED,
        3,
    )


async def test_only_payment_services_own_word_says_that_a_payment_is_absent() -> None:
    """A proxy's 404, or a server of somebody else, says nothing about payments."""
    assert await a_client(lambda _: a_problem(404, "not_found")).find("pay_1") is None
    for stranger in (httpx.Response(404, text="<html>"), httpx.Response(404, json={}), a_problem(401, "no")):
        with pytest.raises(ServiceUnavailable):
            await a_client(lambda _, answer=stranger: answer).find("pay_1")  # type: ignore[misc]
    with pytest.raises(GatewayOutcomeUnknown):
        await a_client(lambda _: httpx.Response(500)).find("pay_1")
    with pytest.raises(ServiceUnavailable):
        await a_client(lambda _: httpx.Response(200, json=A_PAYMENT)).find("pay_2")


async def test_a_session_that_another_call_is_opening_is_waited_for() -> None:
    busy = httpx.Response(409, json={"code": "session_busy", "detail": "repeat it", "retryable": True})
    with pytest.raises(PaymentInProgress):
        await a_client(lambda _: busy).open(a_request())


async def test_a_payment_that_ended_meanwhile_is_read() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(409, json={"code": "payment_ended", "detail": "a new one is needed"})
        assert request.url.path == "/api/v1/payments/pay_1"
        return httpx.Response(200, json=A_PAYMENT | {"status": "expired", "version": 4, "next_action": None})

    opened = await a_client(answer).open(a_request())
    assert (opened.snapshot.status, opened.snapshot.version, opened.next_action) == (PaymentStatus.EXPIRED, 4, None)


@pytest.mark.parametrize("amount", [{"amount_minor": 1, "currency": "XXQ"}, {"amount_minor": 2**63, "currency": "EUR"}])
async def test_money_that_cannot_be_read_is_an_unknown_outcome_and_not_the_shoppers_mistake(amount: Any) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await a_client(lambda _: httpx.Response(201, json=A_PAYMENT | {"amount": amount})).open(a_request())
