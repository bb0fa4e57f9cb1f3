"""payment_service's answers, as the sweep reads them: what cannot be read concerns one payment, never the round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from services.reconciler.clients.payments import HttpPaymentsClient
from shared.errors import GatewayOutcomeUnknown
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


def a_client(document: dict[str, Any]) -> HttpPaymentsClient:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=document))
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
