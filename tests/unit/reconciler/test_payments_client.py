"""payment_service's answers, as the sweep reads them: what cannot be read concerns one payment, never the round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.reconciler.clients.payments import HttpPaymentsClient
from services.reconciler.domain.errors import SyncRefused
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable, PayrailError, ServiceUnavailable
from shared.http import HttpCaller
from tests.support.clock import fake_ports

A_PAYMENT: dict[str, Any] = {
    "payment_id": "pay_1",
    "order_id": "ord_1",
    "gateway": "stripe",
    "status": "processing",
    "version": 2,
    "amount": {"amount_minor": 3900, "currency": "EUR"},
    "created_at": "2026-01-02T04:00:00Z",
    "updated_at": "2026-01-02T04:00:00Z",
    "changed": True,
}
WRONG = [
    {"amount": {"amount_minor": 3900, "currency": "XXQ"}},
    {"amount": {"amount_minor": 2**63, "currency": "EUR"}},
    {"status": "a_status_of_tomorrow"},
    {"version": 0},
]


def a_client(document: dict[str, Any], status: int = 200, **headers: str) -> HttpPaymentsClient:
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, json=document, headers=headers))
    caller = HttpCaller(httpx.AsyncClient(transport=transport), fake_ports())
    return HttpPaymentsClient(caller, base_url="http://payments.test", token=lambda: "a-token", budget_seconds=5)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    "ask",
    [
        lambda payment: a_client(payment).sync("pay_1"),
        lambda payment: a_client({"data": [payment], "next_cursor": None}).not_final(None),
    ],
    ids=["sync", "pull"],
)
async def test_an_answer_that_cannot_be_read_is_no_answer(
    ask: Callable[[dict[str, Any]], Awaitable[Any]], wrong: dict[str, Any]
) -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await ask(A_PAYMENT | wrong)


async def test_an_answer_that_can_be_read_is_read() -> None:
    assert (await a_client(A_PAYMENT).sync("pay_1")).payment.amount.amount_minor == 3900


async def test_what_moved_and_what_is_under_way_is_read() -> None:
    told = {
        "amount_authorized": 3900,
        "amount_captured": 3900,
        "amount_refund_pending": 100,
        "amount_refunded": 200,
        "amount_disputed": 300,
        "amount_dispute_lost": 50,
        "outcome_unknown": True,
    }
    seen = (await a_client(A_PAYMENT | told | {"capture_before": "2026-01-09T04:00:00Z"}).sync("pay_1")).payment
    assert asdict(seen.standing) == told
    assert seen.capture_before == datetime(2026, 1, 9, 4, tzinfo=UTC)
    assert seen.is_document


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "not_found", SyncRefused),
        (422, "gateway_not_enabled", SyncRefused),
        (502, "gateway_rejected", SyncRefused),
        (503, "gateway_unavailable", GatewayUnavailable),
        (503, "gateway_outcome_unknown", GatewayOutcomeUnknown),
        (500, "internal_error", GatewayOutcomeUnknown),
        (502, "?", GatewayOutcomeUnknown),
        (503, "service_unavailable", ServiceUnavailable),
        (503, "database_unavailable", ServiceUnavailable),
        (401, "unauthenticated", ServiceUnavailable),
    ],
)
async def test_a_problem_says_whom_it_concerns(status: int, code: str, error: type[PayrailError]) -> None:
    with pytest.raises(error) as raised:
        await a_client({"code": code}, status).sync("pay_1")
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"retry-after": "45"}, 45), ({}, None), ({"retry-after": "soon"}, None)]
)
async def test_how_long_a_gateway_cannot_be_asked_is_read(headers: dict[str, str], seconds: int | None) -> None:
    with pytest.raises(GatewayUnavailable) as raised:
        await a_client({"code": "gateway_unavailable"}, 503, **headers).sync("pay_1")
    assert raised.value.retry_after_seconds == seconds


async def test_a_list_that_fails_is_no_list() -> None:
    with pytest.raises(GatewayOutcomeUnknown):
        await a_client({"code": "internal_error"}, 500).not_final(None)
