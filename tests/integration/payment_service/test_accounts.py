"""Several accounts of ours at one gateway: who gets a payment, and whose word counts about it (W15)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from services.payment_service.use_cases.wake_parked import apply_one_ready, look_after_parked
from shared.contracts.webhook_events import WebhookReceived
from shared.settings import ConfigurationError
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.integration.payment_service.fake_gateway import says
from tests.support.waiting import until

ACCOUNTS: dict[str, Any] = {
    "generic_api_key": "gk_shared",
    "generic_api_base__eu": "https://eu.gateway.test",
    "generic_currencies__eu": "EUR, gbp",
    "generic_api_base__gulf_1": "https://gulf.gateway.test",
    "generic_api_key__gulf_1": "gk_gulf",
    "generic_currencies__gulf_1": "KWD",
}


class Hosts(httpx.AsyncBaseTransport):
    """Passes everything on, and remembers where to and with which key."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.called: list[tuple[str, str]] = []
        self.down: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.called.append((request.url.host, request.headers["authorization"].removeprefix("Bearer ")))
        if request.url.host in self.down:
            raise httpx.ConnectError("refused")
        return await self.inner.handle_async_request(request)


async def several(build_world: BuildWorld, **changes: Any) -> tuple[World, Hosts]:
    first = await build_world()
    hosts = Hosts(first.gateway)
    world = await build_world(transport=hosts, **{**ACCOUNTS, **changes})
    return World(world.container, first.gateway, world.clock, world.http, world.numbers), hosts


def money(currency: str) -> dict[str, Any]:
    return {"amount": {"amount_minor": 1999, "currency": currency}}


@pytest.mark.parametrize(
    ("currency", "account", "host", "key"),
    [
        ("EUR", "eu", "eu.gateway.test", "gk_shared"),
        ("GBP", "eu", "eu.gateway.test", "gk_shared"),
        ("KWD", "gulf_1", "gulf.gateway.test", "gk_gulf"),
        ("USD", None, "gateway.test", "gk_shared"),
    ],
)
async def test_the_account_that_names_the_currency_gets_the_payment(
    build_world: BuildWorld, currency: str, account: str | None, host: str, key: str
) -> None:
    world, hosts = await several(build_world)
    payment = await world.opened(**money(currency))
    assert payment["account"] == account
    await world.sync(payment["payment_id"])
    assert set(hosts.called) == {(host, key)}


async def test_the_list_of_gateways_offers_what_any_account_takes(build_world: BuildWorld) -> None:
    world, _ = await several(build_world, generic_currencies="USD")
    [generic] = (await world.http.get("/api/v1/gateways")).json()["data"]
    assert generic["currencies"] == ["EUR", "GBP", "KWD", "USD"]
    refused = await world.post("", world.body(**money("JPY")))
    assert (refused.status_code, refused.json()["code"]) == (422, "currency_not_supported")


async def test_a_shop_says_which_gateways_it_offers_first(build_world: BuildWorld) -> None:
    settings = {"stripe_api_key": "sk_test_1", "tabby_secret_key": "sk_test_1", "tabby_merchant_code": "payrail"}
    world = await build_world(**settings, gateway_order="tabby, nobody,stripe")
    offered = (await world.http.get("/api/v1/gateways")).json()["data"]
    assert [each["name"] for each in offered] == ["tabby", "stripe", "generic"]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("0001-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
        ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"),
    ],
)
async def test_a_window_that_is_none_is_said_to_be(world: World, since: str, until: str) -> None:
    answer = await world.http.get(
        "/api/v1/gateways/generic/payments", params={"since": since, "until": until}, headers=world.token()
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def from_account(world: World, payment: dict[str, Any], account: str | None) -> WebhookReceived:
    return world.webhook(payment).model_copy(update={"account": account})


@pytest.mark.parametrize("account", [None, "gulf-1", "nobody"])
async def test_who_has_one_accounts_secret_says_nothing_about_anothers_payment(
    build_world: BuildWorld, account: str | None
) -> None:
    world, _ = await several(build_world)
    payment = await world.opened(**money("EUR"))
    await world.receive(from_account(world, payment, account))
    assert (await world.see(payment["payment_id"]))["status"] == "requires_action"
    assert await world.parked() == ["waiting"]


@pytest.mark.parametrize("account", ["eu", "EU"])
async def test_the_accounts_own_webhook_counts(build_world: BuildWorld, account: str) -> None:
    world, _ = await several(build_world)
    payment = await world.opened(**money("EUR"))
    await world.receive(from_account(world, payment, account))
    assert (await world.see(payment["payment_id"]))["status"] == "captured"


async def test_where_there_is_one_account_the_label_says_nothing(world: World) -> None:
    payment = await world.opened()
    await world.receive(from_account(world, payment, "whatever"))
    assert (await world.see(payment["payment_id"]))["status"] == "captured"


async def test_the_same_id_at_two_accounts_is_two_payments(build_world: BuildWorld) -> None:
    world, _ = await several(build_world)
    one, other = await world.opened(**money("EUR")), await world.opened(**money("USD"))
    same = "INVOICE-1"
    async with world.container.context.uow() as tx:
        for payment_id in (one["payment_id"], other["payment_id"]):
            payment = await tx.payments.get(payment_id)
            assert payment is not None
            await tx.payments.add_references(payment, (same,))
        assert await tx.payments.find("generic", (same,), (), account="eu") == one["payment_id"]
        assert await tx.payments.find("generic", (same,), ()) == other["payment_id"]


async def test_an_account_that_is_down_stands_in_no_other_ones_way(build_world: BuildWorld) -> None:
    world, hosts = await several(build_world, gateway_breaker_failures_in_a_row=1)
    hosts.down.add("eu.gateway.test")
    answer = await world.post("", world.body(**money("EUR")))
    assert answer.status_code == 503

    async def is_open() -> bool:
        before = len(hosts.called)
        await world.post("", world.body(**money("EUR")))
        return len(hosts.called) == before

    await until(is_open, what="the breaker of the account")
    await world.opened(**money("USD"))
    [generic] = (await world.http.get("/api/v1/gateways")).json()["data"]
    assert generic["available"] is True


async def test_settings_that_cannot_be_used_are_named_without_their_values(build_world: BuildWorld) -> None:
    with pytest.raises(ConfigurationError, match="MYFATOORAH_COUNTRY") as refused:
        await build_world(
            myfatoorah_api_token="mf_canary", myfatoorah_country="ATLANTIS_CANARY", myfatoorah_api_base="https://x.test"
        )
    assert "canary" not in str(refused.value).lower()


@pytest.mark.parametrize(("account", "parked"), [("b", "waiting"), (None, "unreadable")])
async def test_a_webhook_is_read_by_the_account_that_it_came_for(
    build_world: BuildWorld, account: str | None, parked: str
) -> None:
    """Some gateways name their merchant in it, and another merchant's is none of ours."""
    mine = {"billdesk_merchant_id": "MINE", "billdesk_client_id": "mine", "billdesk_signing_key": "m" * 32}
    theirs = {f"{name}__b": value.replace("m", "b").replace("MINE", "OTHER") for name, value in mine.items()}
    world = await build_world(**mine, **theirs)
    content = {
        "objectid": "transaction",
        "mercid": "OTHER",
        "orderid": "PR00000000000000001A",
        "transactionid": "TXN000000000001",
        "amount": "499.00",
        "currency": "356",
        "auth_status": "0300",
        "transaction_error_type": "success",
    }
    event = world.delivery(content, gateway="billdesk").model_copy(update={"account": account})
    await world.receive(event)
    assert await world.parked() == [parked]


async def test_what_is_about_nobodys_account_reaches_a_person_although_another_account_knows_its_name(
    build_world: BuildWorld,
) -> None:
    world, _ = await several(build_world)
    payment = await world.opened(**money("EUR"))
    await world.receive(from_account(world, payment, "gulf-1"))
    await look_after_parked(world.container.context, deadline=timedelta(hours=1))
    assert not await apply_one_ready(world.container.context)
    assert await world.parked() == ["waiting"]
    await look_after_parked(world.container.context, deadline=timedelta(seconds=-60))
    assert await world.parked() == ["unclaimed"]


async def test_an_only_account_with_a_name_gets_what_comes_under_any_label(build_world: BuildWorld) -> None:
    world = await build_world(generic_api_base=None, generic_api_base__eu="https://gateway.test")
    payment = await world.opened()
    assert payment["account"] == "eu"
    await world.receive(from_account(world, payment, None))
    assert (await world.see(payment["payment_id"]))["status"] == "captured"


async def test_a_hint_about_a_payment_whose_account_is_gone_waits(build_world: BuildWorld) -> None:
    world, _ = await several(build_world)
    payment = await world.opened(**money("EUR"))
    without = await build_world(generic_api_base__gulf_1="https://gulf.gateway.test")
    hint = from_account(without, payment, "eu").model_copy(update={"trust": "hint"})
    await without.receive(hint)
    assert await apply_one_ready(without.container.context)
    assert await without.parked() == ["waiting"]
    await look_after_parked(without.container.context, deadline=timedelta(seconds=-60))
    assert await without.parked() == ["unclaimed"]


@pytest.mark.parametrize(("account", "is_ours"), [("EU", True), ("gulf_1", False)])
async def test_what_an_account_lists_is_known_again_among_that_accounts_payments(
    build_world: BuildWorld, account: str, is_ours: bool
) -> None:
    world, hosts = await several(build_world)
    payment = await world.opened(**money("EUR"))
    session = world.gateway.sessions[payment["gateway_reference"]]
    world.gateway.before["find"] = [says(200, {"data": [session | {"created_at": "2026-01-01T00:00:00Z"}]})]
    window = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "account": account}
    answer = await world.http.get("/api/v1/gateways/generic/payments", params=window, headers=world.token())
    [listed] = answer.json()["data"]
    assert listed["payment_id"] == (payment["payment_id"] if is_ours else None)
    assert hosts.called[-1][0] == ("eu.gateway.test" if is_ours else "gulf.gateway.test")
