"""Both adapters against the sandbox over real HTTP: its books and ours agree, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from shared.masking import redact_body
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.support.gateway_sandbox import GENERIC_KEY, RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

GATEWAYS = pytest.mark.parametrize("gateway", ["stripe", "generic"])


@dataclass
class Market:
    """A shop's payment service and its gateways."""

    world: World
    sandbox: RunningSandbox

    async def books(self, gateway: str) -> list[dict[str, Any]]:
        payments: list[dict[str, Any]] = (await self.sandbox.books(gateway))["payments"]
        return payments

    async def shopper(self, gateway: str, payment: dict[str, Any], outcome: str, **more: Any) -> None:
        answer = await self.sandbox.outcome(gateway, payment["gateway_reference"], outcome, **more)
        assert answer.status_code == 200, answer.text

    async def deliver_webhooks(self, gateway: str, *, at_least: int) -> list[str]:
        """Apply what the sandbox has sent, as webhook_ingest would hand it on; returns the bodies."""
        received = self.sandbox.receiver
        await until(lambda: len(received.requests) >= at_least, what="the sandbox's webhooks")
        bodies = [redact_body("application/json", request.content) for request in received.requests]
        for body in bodies:
            await self.world.receive(self.world.delivery(body, gateway=gateway))
        return bodies


@pytest.fixture
async def market(service_database: ServiceDatabase, build_world: BuildWorld) -> AsyncIterator[Market]:
    async with running_sandbox(service_database("gateway_sandbox")) as sandbox:
        world = await build_world(
            transport=httpx.AsyncHTTPTransport(),
            stripe_api_key="sk_test_sandbox",
            stripe_api_base=f"{sandbox.url}/sandbox/stripe",
            generic_api_base=f"{sandbox.url}/sandbox/generic",
            generic_api_key=GENERIC_KEY,
        )
        yield Market(world, sandbox)


@GATEWAYS
async def test_twenty_calls_at_once_leave_one_session_in_the_gateways_books(market: Market, gateway: str) -> None:
    body = market.world.body(gateway=gateway)
    answers = await asyncio.gather(*(market.world.post("", body) for _ in range(20)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 19}
    assert len({answer.json()["gateway_reference"] for answer in answers}) == 1
    assert len(await market.books(gateway)) == 1


@GATEWAYS
@pytest.mark.parametrize("kind", ["timeout_before", "timeout_after"])
async def test_a_timeout_never_makes_a_second_page(market: Market, gateway: str, kind: str) -> None:
    fault = {"operation": "create_session", "kind": kind, "seconds": 0.05, "count": 3}
    await market.sandbox.faults(gateway, fault)
    body = market.world.body(gateway=gateway)
    answer = await market.world.post("", body)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_outcome_unknown")
    again = await market.world.post("", body)
    assert (again.status_code, again.json()["status"]) == (200, "requires_action")
    (entry,) = await market.books(gateway)
    assert entry["gateway_reference"] == again.json()["gateway_reference"]


@GATEWAYS
@pytest.mark.parametrize("after_work", [False, True])
async def test_an_error_of_the_gateways_own_never_makes_a_second_page(
    market: Market, gateway: str, after_work: bool
) -> None:
    """Stripe stores a 500 under the key and replays it: then the session is looked for, or a new attempt made."""
    fault = {"operation": "create_session", "kind": "error_5xx", "status": 500, "after_work": after_work}
    await market.sandbox.faults(gateway, fault)
    body = market.world.body(gateway=gateway)

    async def opened() -> bool:
        return (await market.world.post("", body)).is_success

    await until(opened, what="the page")
    assert (await market.world.see(body["payment_id"]))["status"] == "requires_action"
    open_pages = [entry for entry in await market.books(gateway) if entry["status"] in ("open", "pending", "created")]
    assert len(open_pages) == 1


@GATEWAYS
async def test_paying_is_learnt_from_the_sandboxs_own_webhooks(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway)
    await market.shopper(gateway, payment, "succeed")
    await market.deliver_webhooks(gateway, at_least=2 if gateway == "stripe" else 1)

    seen = await market.world.see(payment["payment_id"])
    assert (seen["status"], seen["amount_captured"]) == ("captured", 1999)
    (entry,) = await market.books(gateway)
    assert (entry["captured_minor"], entry["currency"]) == (1999, "EUR")
    assert await market.world.event_types(payment["payment_id"]) == ["created", "requires_action", "captured"]


@GATEWAYS
async def test_webhook_and_sync_learn_the_same_facts(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway)
    await market.shopper(gateway, payment, "succeed")
    assert (await market.world.sync(payment["payment_id"]))["changed"]
    await market.deliver_webhooks(gateway, at_least=2 if gateway == "stripe" else 1)
    captures = [fact for fact in (await market.world.see(payment["payment_id"]))["facts"] if fact["kind"] == "captured"]
    assert len(captures) == 1
    assert (await market.world.see(payment["payment_id"]))["version"] == 3


@GATEWAYS
async def test_a_manual_capture_is_held(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway, capture="manual")
    await market.shopper(gateway, payment, "succeed")
    await market.deliver_webhooks(gateway, at_least=2 if gateway == "stripe" else 1)
    seen = await market.world.see(payment["payment_id"])
    assert (seen["status"], seen["amount_authorized"], seen["amount_captured"]) == ("authorized", 1999, 0)


@GATEWAYS
async def test_closing_makes_the_page_unpayable(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway)
    assert (await market.world.close(payment["payment_id"]))["status"] == "canceled"
    assert (await market.sandbox.outcome(gateway, payment["gateway_reference"], "succeed")).status_code == 409


@GATEWAYS
async def test_closing_what_was_paid_finds_the_money(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway)
    await market.shopper(gateway, payment, "succeed")
    assert (await market.world.close(payment["payment_id"]))["status"] == "captured"


@GATEWAYS
async def test_an_expired_page_is_expired_from_whomever_it_is_learnt(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway)
    await market.shopper(gateway, payment, "expire")
    assert (await market.world.sync(payment["payment_id"]))["status"] == "expired"
    await market.deliver_webhooks(gateway, at_least=1)
    assert (await market.world.see(payment["payment_id"]))["version"] == 3


@GATEWAYS
async def test_a_late_success_wins(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway)
    await market.world.close(payment["payment_id"])
    await market.shopper(gateway, payment, "succeed", late=True)
    await market.world.sync(payment["payment_id"])
    types = await market.world.event_types(payment["payment_id"])
    assert types == ["created", "requires_action", "canceled", "late_success", "captured"]


@GATEWAYS
async def test_an_amount_that_is_not_ours_is_held(market: Market, gateway: str) -> None:
    payment = await market.world.opened(gateway=gateway)
    await market.shopper(gateway, payment, "succeed")
    await market.sandbox.faults(gateway, {"operation": "retrieve", "kind": "wrong_amount", "amount_minor": 1})
    synced = await market.world.sync(payment["payment_id"])
    assert (synced["status"], synced["conflict"]) == ("conflicted", "amount_too_low")


async def test_a_failed_try_at_stripe_leaves_the_page_open_and_the_next_one_pays(market: Market) -> None:
    payment = await market.world.opened(gateway="stripe")
    await market.shopper("stripe", payment, "fail")
    await market.deliver_webhooks("stripe", at_least=1)
    seen = await market.world.see(payment["payment_id"])
    assert seen["status"] == "requires_action"
    assert "declined" in {fact["kind"] for fact in seen["facts"]}
    await market.shopper("stripe", payment, "succeed")
    assert (await market.world.sync(payment["payment_id"]))["status"] == "captured"


@pytest.mark.parametrize("minor_currency", [(500, "JPY"), (5120, "KWD"), (4900, "INR"), (1000, "AED")])
@GATEWAYS
async def test_currencies_agree_with_the_books(market: Market, gateway: str, minor_currency: tuple[int, str]) -> None:
    minor, currency = minor_currency
    amount = {"amount_minor": minor, "currency": currency}
    payment = await market.world.opened(gateway=gateway, amount=amount, items=[])
    await market.shopper(gateway, payment, "succeed")
    assert (await market.world.sync(payment["payment_id"]))["amount_captured"] == minor
    (entry,) = await market.books(gateway)
    assert (entry["amount_minor"], entry["currency"]) == (minor, currency)
