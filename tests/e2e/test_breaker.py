"""A gateway that is dead: no shopper waits for it, nobody calls it, and it is used again when it is back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from shared.ports import system_ports
from tests.e2e.shop import PlacedOrder, Shop
from tests.e2e.stack import DistributedStack
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("distributed")]

ENDLESS = 1_000_000
ATTEMPTS = 3
"""One call of an adapter sends this many requests at most."""
EVENT = "gateway.health_changed.v1"
RECOVERY_SECONDS = 90


@dataclass
class Gateway:
    """One gateway, as the shoppers and both replicas of payment_service see it."""

    name: str
    shop: Shop
    replicas: tuple[str, str]

    async def dies(self) -> None:
        fault = {"operation": "create_session", "kind": "error_5xx", "status": 503, "count": ENDLESS}
        await self.shop.faults(self.name, fault)

    async def comes_back(self) -> None:
        await self.shop.faults(self.name)

    async def requests_that_arrived(self) -> int:
        """Since it died: what its fault has used up."""
        answer = await self.shop.http.get(f"{self.shop.stack.sandbox_url}/sandbox/control/{self.name}/faults")
        (fault,) = answer.json()
        return ENDLESS - int(fault["remaining"])

    async def seen_at(self, replica: str) -> dict[str, Any]:
        listed = (await self.shop.http.get(f"{replica}/api/v1/gateways")).json()["data"]
        (found,) = [each for each in listed if each["name"] == self.name]
        return dict(found)

    async def states(self) -> list[str]:
        return [(await self.seen_at(replica))["breakers"]["session"]["state"] for replica in self.replicas]

    async def try_to_pay(self) -> httpx.Response:
        return await self.shop.pay_answer(await self.shop.order(), self.name)

    async def opens(self) -> None:
        """Shoppers come until both replicas refuse; a probe that fails meanwhile makes the cool-down longer."""

        async def is_open_everywhere() -> bool:
            if (await self.states())[0] != "open":
                answer = await self.try_to_pay()
                assert_is_503(answer)
            return await self.states() == ["open", "open"]

        await until(is_open_everywhere, within_seconds=RECOVERY_SECONDS, what=f"the breaker of {self.name} opening")

    async def is_refused(self) -> PlacedOrder:
        """A shopper of a new order is told to come back later, without a call."""

        async def refused() -> PlacedOrder | None:
            order = await self.shop.order()
            answer = await self.shop.pay_answer(order, self.name)
            return order if is_refusal(answer) else None

        return await until(refused, within_seconds=RECOVERY_SECONDS, what="a refusal") or pytest.fail("no refusal")

    async def heals(self) -> None:
        """What the next shoppers do is all that it takes."""

        async def is_closed_everywhere() -> bool:
            if (await self.states())[0] == "half_open":
                await self.try_to_pay()
            return await self.states() == ["closed", "closed"]

        async def is_announced() -> bool:
            changes = await self.changes()
            return not changes or changes[-1]["state"] == "closed"

        await until(is_closed_everywhere, within_seconds=RECOVERY_SECONDS, what=f"the breaker of {self.name} closing")
        await until(is_announced, what="the event that says so")

    async def changes(self) -> list[dict[str, Any]]:
        """What was announced about its sessions, in order."""
        events = [event for event in await self.shop.events_of(self.name) if event["type"] == EVENT]
        return [event["data"] for event in events if event["data"]["operation_class"] == "session"]


@pytest.fixture
async def shop(distributed_stack: DistributedStack) -> AsyncIterator[Shop]:
    shop = Shop(distributed_stack)
    await shop.restock()
    yield shop
    await shop.no_faults()
    await shop.close()


@pytest.fixture
async def gateway(shop: Shop, distributed_stack: DistributedStack) -> AsyncIterator[Gateway]:
    """Well again when the test ends, for the tests that come after it."""
    replicas = (distributed_stack.payment_url, distributed_stack.second_payment_url)
    gateway = Gateway("stripe", shop, replicas)
    yield gateway
    await gateway.comes_back()
    await gateway.heals()


def assert_is_503(answer: httpx.Response) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["retryable"]) == (503, True), answer.text
    assert problem["code"] in ("gateway_unavailable", "gateway_outcome_unknown")


def is_refusal(answer: httpx.Response) -> bool:
    """Whether the breaker answered, and not the gateway by failing (a probe)."""
    assert_is_503(answer)
    return answer.json()["code"] == "gateway_unavailable" and int(answer.headers.get("retry-after", 0)) >= 1


def payment_body(order: PlacedOrder, payment_id: str, gateway: str) -> dict[str, Any]:
    return {
        "payment_id": payment_id,
        "order_id": order.id,
        "gateway": gateway,
        "amount": order.document["total"],
        "description": "what order_service would ask for",
        "customer": {"email": "shopper@example.com", "name": "Zoë Müller"},
        "success_url": "https://shop.example/",
        "failure_url": "https://shop.example/",
        "cancel_url": "https://shop.example/",
        "expires_at": order.document["expires_at"],
    }


async def test_both_replicas_hide_a_dead_gateway_and_refuse_it_with_the_time_to_come_back(
    gateway: Gateway, shop: Shop
) -> None:
    await gateway.dies()
    await gateway.opens()

    async def is_hidden_everywhere() -> bool:
        for replica in gateway.replicas:
            seen = await gateway.seen_at(replica)
            session, others = seen["breakers"]["session"], [seen["breakers"][each]["state"] for each in ("money",)]
            assert (seen["available"], session["state"], others) == (False, "open", ["closed"])
            assert session["retry_after_seconds"] >= 1
            assert session["reason"]
        return True

    async def is_refused_by(replica: str) -> bool:
        order, payment_id = await shop.order(), system_ports().ids.new("pay")
        url = f"{replica}/api/v1/payments"
        answer = await shop.http.post(url, json=payment_body(order, payment_id, gateway.name), headers=shop.ops)
        if not is_refusal(answer):
            return False
        assert (await shop.http.get(f"{url}/{payment_id}", headers=shop.ops)).status_code == 404, "it leaves no row"
        return True

    async def is_hidden_after_another_try() -> bool:
        await gateway.opens()
        return await is_hidden_everywhere()

    await until(is_hidden_after_another_try, within_seconds=RECOVERY_SECONDS, what="both replicas hiding it")
    for replica in gateway.replicas:
        await until(partial(is_refused_by, replica), within_seconds=RECOVERY_SECONDS, what=f"a refusal by {replica}")


async def test_nobody_calls_a_dead_gateway_but_one_probe_after_each_cool_down(gateway: Gateway) -> None:
    await gateway.dies()
    await gateway.opens()
    openings = await gateway.changes()
    arrived = await gateway.requests_that_arrived()
    refusals = 0
    for _ in range(20):
        refusals += is_refusal(await gateway.try_to_pay())
    calls = await gateway.requests_that_arrived() - arrived

    async def every_call_was_an_announced_probe() -> bool:
        probes = [each for each in (await gateway.changes())[len(openings) :] if each["state"] == "half_open"]
        assert calls <= ATTEMPTS * len(probes), (calls, probes)
        assert refusals >= 20 - len(probes)
        return True

    await until(every_call_was_an_announced_probe, what="as many probes in the feed as calls at the gateway")
    assert refusals > 0


async def test_an_order_that_a_dead_gateway_refused_is_paid_with_another(gateway: Gateway, shop: Shop) -> None:
    await gateway.dies()
    await gateway.opens()
    order = await gateway.is_refused()
    other = "generic" if gateway.name == "stripe" else "stripe"
    session = await shop.pay(order, other)
    await shop.settle(other, session["gateway_reference"])
    document = await shop.wait_for(order, payment_status="paid", status="confirmed")
    assert [payment["gateway"] for payment in document["payments"] if payment["amount_captured"]] == [other]
    assert await shop.books(gateway.name, order) == []


async def test_a_gateway_that_is_back_is_used_again_and_every_change_was_announced_and_shown(
    gateway: Gateway, shop: Shop
) -> None:
    before = len(await gateway.changes())
    await gateway.dies()
    await gateway.opens()
    order = await gateway.is_refused()
    await until(partial(metric_says, gateway, 2.0), within_seconds=RECOVERY_SECONDS, what="the metric of an open one")
    await gateway.comes_back()

    async def cool_down_is_over() -> bool:
        return (await gateway.states())[0] != "open"

    await until(cool_down_is_over, within_seconds=RECOVERY_SECONDS, what="the end of the cool-down")
    session = await shop.pay(order, gateway.name)
    assert (await gateway.seen_at(gateway.replicas[0]))["available"]
    await shop.settle(gateway.name, session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid", status="confirmed")
    await gateway.heals()
    for replica in gateway.replicas:
        await until(partial(metric_says, gateway, 0.0, replica), what="the metric of a closed one")

    async def announced() -> list[dict[str, Any]]:
        changes = (await gateway.changes())[before:]
        assert changes[-1]["state"] == "closed"
        return changes

    changes = await until(announced, what="the events")
    assert (changes[0]["previous_state"], changes[0]["state"]) == ("closed", "open")
    assert changes[0]["reason"]
    assert changes[0]["retry_after_seconds"] >= 1
    assert [each["previous_state"] for each in changes[1:]] == [each["state"] for each in changes[:-1]]
    assert (changes[-1]["previous_state"], changes[-1]["state"]) == ("half_open", "closed")


async def metric_says(gateway: Gateway, value: float, replica: str | None = None) -> bool:
    if value == 2.0:
        await gateway.opens()
    text = (await gateway.shop.http.get(f"{replica or gateway.replicas[0]}/metrics")).text
    labels = rf'gateway="{gateway.name}",operation_class="session"'
    found = re.search(rf"^payrail_gateway_breaker_state\{{{labels}\}} (\S+)$", text, re.MULTILINE)
    assert found is not None, "the metric is there from the start"
    return float(found.group(1)) == value
