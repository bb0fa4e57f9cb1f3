"""Captures and refunds under concurrency, silence and kills, over several processes. The gateway's books decide."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.e2e.shop import PlacedOrder, Shop
from tests.e2e.stack import DistributedStack
from tests.support.waiting import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.xdist_group("distributed"),
    pytest.mark.timeout(400),
]

MANY = 100
SETTLED = {"succeeded", "failed", "canceled", "reversed"}


class Till:
    """The back office, which asks both replicas of payment_service for money operations."""

    def __init__(self, shop: Shop, stack: DistributedStack) -> None:
        self.shop = shop
        self.urls = (stack.payment_url, stack.second_payment_url)
        self.chance = random.Random(20261121)

    async def paid(self, gateway: str, *, capture: str = "automatic", quantity: int = 10) -> tuple[PlacedOrder, str]:
        order = await self.shop.order(quantity=quantity)
        session = await self.shop.pay(order, gateway, capture=capture)
        await self.shop.settle(gateway, session["gateway_reference"])
        status = "captured" if capture == "automatic" else "authorized"
        await self.shop.wait_for_payment(session["payment_id"], status=status)
        return order, session["payment_id"]

    async def ask(self, number: int, payment_id: str, path: str, body: dict[str, Any]) -> int | None:
        """The status of the answer; None where the process that should have answered died."""
        headers = self.shop.ops | {"Idempotency-Key": f"till-{path}-{payment_id[-12:]}-{number:04}"}
        url = f"{self.urls[number % 2]}/api/v1/payments/{payment_id}/{path}"
        try:
            answer = await self.shop.http.post(url, json=body, headers=headers, timeout=60)
            while answer.status_code == 503:  # busy, and it says so: the same key is safe to send again
                assert answer.json()["retryable"]
                answer = await self.shop.http.post(url, json=body, headers=headers, timeout=60)
            return answer.status_code
        except httpx.HTTPError:
            return None

    async def ask_many(self, payment_id: str, path: str, total: int, **more: Any) -> Counter[int | None]:
        """A hundred requests of random sizes at once, together for far more than there is."""
        sizes = [self.chance.randint(1, max(1, total * 4 // MANY)) for _ in range(MANY)]
        bodies = [{"amount": {"amount_minor": size, "currency": "USD"}, **more} for size in sizes]
        calls = (self.ask(number, payment_id, path, body) for number, body in enumerate(bodies))
        return Counter(await asyncio.gather(*calls))

    async def quiet(self, payment_id: str, children: str, *, within_seconds: float = 120) -> dict[str, Any]:
        """The payment once nothing of it is under way any more."""

        async def settled() -> dict[str, Any]:
            payment = await self.shop.payment(payment_id)
            assert {child["status"] for child in payment[children]} <= SETTLED
            return payment

        return await until(settled, within_seconds=within_seconds, what=f"the {children} of {payment_id} settling")


@pytest.fixture
async def till(distributed_stack: DistributedStack) -> AsyncIterator[Till]:
    shop = Shop(distributed_stack)
    await shop.restock()
    yield Till(shop, distributed_stack)
    await shop.no_faults()
    await shop.close()


def succeeded(payment: dict[str, Any], children: str) -> list[dict[str, Any]]:
    return [child for child in payment[children] if child["status"] == "succeeded"]


def total_of(children: list[dict[str, Any]]) -> int:
    return sum(child["amount"]["amount_minor"] for child in children)


async def assert_the_books_agree(till: Till, gateway: str, order: PlacedOrder, payment: dict[str, Any]) -> None:
    """Ours equal theirs, the sums are exact, and nothing was done twice or under two keys."""
    (entry,) = await till.shop.books(gateway, order)
    refunds, captures = succeeded(payment, "refunds"), succeeded(payment, "captures")
    assert entry["captured_minor"] == payment["amount_captured"] <= payment["amount_authorized"]
    assert entry["refunded_minor"] == payment["amount_refunded"] == total_of(refunds) <= payment["amount_captured"]
    if payment["capture"] == "manual":
        assert total_of(captures) == payment["amount_captured"]
    assert payment["amount_refund_pending"] == payment["amount_capture_pending"] == payment["amount_excess"] == 0
    for done, ours in (("refund", refunds), ("capture", captures)):
        booked = [operation for operation in entry["operations"] if operation["operation"] == done]
        keys = [operation["idempotency_key"] for operation in booked]
        assert len(keys) == len(set(keys))
        if booked or ours:
            assert len(booked) == len(ours)
    balances = await till.shop.http.get(f"{till.urls[0]}/api/v1/ledger/balances", headers=till.shop.ops)
    assert balances.status_code == 200, balances.text
    assert all(line["amount_minor"] == 0 for line in balances.json()["trial_balance"])


@pytest.mark.parametrize("gateway", ["stripe", "generic"])
async def test_a_hundred_refunds_at_once_never_exceed_what_was_captured(till: Till, gateway: str) -> None:
    """RF2: over two processes, of random sizes, together twice what there is."""
    order, payment_id = await till.paid(gateway)
    answers = await till.ask_many(payment_id, "refunds", order.total_minor, reason="returned")
    assert set(answers) <= {201, 202, 409}
    assert answers[409] > 0
    payment = await till.quiet(payment_id, "refunds")
    assert total_of(succeeded(payment, "refunds")) > order.total_minor * 9 // 10
    await assert_the_books_agree(till, gateway, order, payment)


@pytest.mark.parametrize("gateway", ["generic"])
async def test_a_hundred_captures_at_once_never_exceed_what_is_held(till: Till, gateway: str) -> None:
    order, payment_id = await till.paid(gateway, capture="manual")
    answers = await till.ask_many(payment_id, "captures", order.total_minor, final=False)
    assert set(answers) <= {201, 202, 409}
    payment = await till.quiet(payment_id, "captures")
    await assert_the_books_agree(till, gateway, order, payment)


@pytest.mark.parametrize("gateway", ["stripe"])
async def test_a_third_of_the_calls_is_not_answered_after_the_work(till: Till, gateway: str) -> None:
    """RF5, H3: the work was done and nobody said so. Nothing is sent twice under another key."""
    order, payment_id = await till.paid(gateway)
    silence = {"operation": "refund", "kind": "timeout_after", "count": None, "every": 3, "seconds": 0.2}
    await till.shop.faults(gateway, silence)
    answers = await till.ask_many(payment_id, "refunds", order.total_minor, reason="returned")
    assert set(answers) <= {201, 202, 409}
    await till.shop.no_faults()
    payment = await till.quiet(payment_id, "refunds")
    await assert_the_books_agree(till, gateway, order, payment)


async def test_processes_die_while_refunds_are_under_way(till: Till, distributed_stack: DistributedStack) -> None:
    """L1 to L9: a serving process and both workers are killed with calls in flight; the books agree afterwards."""
    order, payment_id = await till.paid("stripe")
    slow = {"operation": "refund", "kind": "delay", "count": None, "seconds": 0.3}
    lost = {"operation": "refund", "kind": "timeout_after", "count": None, "every": 3, "seconds": 0.2}
    await till.shop.faults("stripe", lost, slow)
    asking = asyncio.create_task(till.ask_many(payment_id, "refunds", order.total_minor, reason="returned"))

    async def some_are_under_way() -> bool:
        return len((await till.shop.payment(payment_id))["refunds"]) > 5

    await until(some_are_under_way, within_seconds=30, what="refunds being under way")
    victims = ("serve-payment-service-2", "work-payment-service", "work-payment-service-2")
    for name in victims:
        distributed_stack.processes[name].kill9()
    answers = await asking
    assert answers[None] > 0, "somebody was cut off in the middle"
    await till.shop.no_faults()
    for name in victims:
        distributed_stack.restart(name)
    payment = await till.quiet(payment_id, "refunds")
    await assert_the_books_agree(till, "stripe", order, payment)


async def test_a_worker_shows_that_the_ledger_is_checked(till: Till, distributed_stack: DistributedStack) -> None:
    """What is measured in workers alone can be read there, and the books balance."""

    async def measured() -> str:
        page = (await till.shop.http.get(f"{distributed_stack.worker_metrics_url}/metrics")).text
        assert 'payrail_ledger_imbalance{kind="trial_balance"} 0.0' in page
        return page

    page = await until(measured, within_seconds=90, what="the ledger being checked")
    assert 'payrail_ledger_imbalance{kind="payment"} 0.0' in page
    assert "payrail_operations_unsettled" in page
