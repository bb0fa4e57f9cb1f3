"""The first four gateways, both halves put together by their definitions alone: lists by window, words that nobody
documents, settlement files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.gateway_sandbox.gateways.definition import SandboxDefinition
from services.gateway_sandbox.gateways.generic import DEFINITION as GENERIC_BOOKS
from services.gateway_sandbox.gateways.paypal import DEFINITION as PAYPAL_BOOKS
from services.gateway_sandbox.gateways.razorpay import DEFINITION as RAZORPAY_BOOKS
from services.gateway_sandbox.gateways.stripe import DEFINITION as STRIPE_BOOKS
from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import GatewayDefinition, Tools
from services.payment_service.gateways.generic import DEFINITION as GENERIC
from services.payment_service.gateways.paypal import DEFINITION as PAYPAL
from services.payment_service.gateways.port import GatewayAdapter, Listed, Session
from services.payment_service.gateways.razorpay import DEFINITION as RAZORPAY
from services.payment_service.gateways.stripe import DEFINITION as STRIPE
from shared.errors import GatewayOutcomeUnknown
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox
from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase
from tests.support.razorpay import a_money_call, a_session_request

USD_1999 = Money(1999, "USD")
DAY = timedelta(days=1)


@dataclass
class Bench:
    name: str
    adapter: GatewayAdapter
    sandbox: RunningSandbox

    async def pay(self, number: int = 1) -> Session:
        request = a_session_request(
            reference=f"PR{number:018}", idempotency_key=f"att_{number}", amount=USD_1999, payment_id=f"pmt_{number}"
        )
        session = await self.adapter.create_session(request, repeated=False)
        answer = await self.sandbox.outcome(self.name, session.gateway_reference, "succeed")
        assert answer.status_code == 200, answer.text
        if self.name == "paypal":
            reference = session.gateway_reference
            changes = {"our_reference": request.reference, "capture": CaptureMode.AUTOMATIC}
            call = a_money_call(OperationKind.COMPLETION, reference, USD_1999, idempotency_key=reference, **changes)
            await self.adapter.complete(call)
        return session

    async def listed(self, since: timedelta, until: timedelta) -> list[Listed]:
        now, cursor = datetime.now(UTC), None
        found: list[Listed] = []
        while True:
            page = await self.adapter.list_window(now + since, now + until, cursor=cursor)
            found += page.entries
            cursor = page.next_cursor
            if cursor is None:
                return found


def _values(definition: GatewayDefinition, variables: dict[str, str]) -> dict[str, str]:
    named = {field: definition.variable(field) for field in definition.settings.model_fields}
    return {field: variables[name] for field, name in named.items() if name in variables}


@pytest.fixture(
    params=[(STRIPE, STRIPE_BOOKS), (PAYPAL, PAYPAL_BOOKS), (RAZORPAY, RAZORPAY_BOOKS), (GENERIC, GENERIC_BOOKS)],
    ids=lambda halves: str(halves[0].name),
)
async def bench(request: pytest.FixtureRequest, service_database: ServiceDatabase) -> AsyncIterator[Bench]:
    definition, books = request.param
    assert isinstance(definition, GatewayDefinition)
    assert isinstance(books, SandboxDefinition)
    ports, port = system_ports(), free_port()
    address = f"http://127.0.0.1:{port}/sandbox/{definition.name}"
    variables = {**books.secrets(ports.randomness), **books.addresses(address)}
    database = service_database("gateway_sandbox")
    async with (
        running_sandbox(database, port=port, with_worker=False, gateway_variables=variables) as sandbox,
        build_http_client(ports, transport=httpx.AsyncHTTPTransport()) as client,
    ):
        tools = Tools(HttpCaller(client, ports), ports, "http://127.0.0.1/webhooks", is_production=False)
        settings = definition.settings.model_validate(_values(definition, variables))
        yield Bench(definition.name, definition.build(settings, tools), sandbox)


async def test_a_payment_that_nobody_told_us_of_is_in_the_list_of_its_window(bench: Bench) -> None:
    sessions = [await bench.pay(number) for number in (1, 2, 3)]
    found = {reference: entry for entry in await bench.listed(-DAY, DAY) for reference in entry.our_references}
    for number, session in enumerate(sessions, start=1):
        entry = found[f"PR{number:018}"]
        assert [o.amount for o in entry.observations if o.kind is FactKind.CAPTURED] == [USD_1999]
        snapshot = await bench.adapter.retrieve(session.references, our_reference=f"PR{number:018}")
        taken = {o.natural_key for o in snapshot.observations if o.kind is FactKind.CAPTURED}
        assert {o.natural_key for o in entry.observations if o.kind is FactKind.CAPTURED} == taken
    assert await bench.listed(-10 * DAY, -5 * DAY) == []


async def test_a_word_that_nobody_documents_is_never_a_success(bench: Bench) -> None:
    session = await bench.pay()
    fault: dict[str, Any] = {"kind": "unknown_status", "count": None}
    await bench.sandbox.faults(bench.name, *({**fault, "operation": each} for each in ("retrieve", "list")))
    try:
        snapshot = await bench.adapter.retrieve(session.references, our_reference="PR000000000000000001")
        said = {o.kind for o in snapshot.observations}
    except GatewayOutcomeUnknown:
        said = set()
    said |= {o.kind for entry in await bench.listed(-DAY, DAY) for o in entry.observations}
    assert not said & {FactKind.CAPTURED, FactKind.AUTHORIZED, FactKind.FAILED, FactKind.EXPIRED}


async def test_the_settlement_file_tells_whose_the_money_is(bench: Bench) -> None:
    await bench.pay()
    now = datetime.now(UTC)
    window = {"since": (now - DAY).isoformat(), "until": (now + DAY).isoformat()}
    answer = await bench.sandbox.client.get(f"/sandbox/control/{bench.name}/settlement", params=window)
    assert answer.status_code == 200
    assert answer.text.count("PR000000000000000001") >= 1


async def test_a_list_has_pages_and_refuses_what_it_does_not_know(
    sandbox: RunningSandbox, generic: Any, create_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway_sandbox.gateways.generic.listing.PAGE", 2)
    made = [(await create_session(reference=f"REF{number}"))["payment_id"] for number in range(3)]
    first = (await generic("GET", "/v1/sessions")).json()
    assert [each["payment_id"] for each in first["data"]] == [made[2], made[1]]
    rest = (await generic("GET", "/v1/sessions", params={"cursor": first["next_cursor"]})).json()
    assert ([each["payment_id"] for each in rest["data"]], "next_cursor" in rest) == ([made[0]], False)
    for query in (
        {"created_from": "today"},
        {"created_before": "2026-01-01T00:00:00"},
        {"cursor": "x"},
        {"since": "1"},
    ):
        assert (await generic("GET", "/v1/sessions", params=query)).status_code == 400

    bearer = {"Authorization": "Bearer sk_test_1"}
    url = "/sandbox/stripe/v1/payment_intents"
    assert (await sandbox.client.get(url, params={"since": "1"}, headers=bearer)).status_code == 400
