"""The gateways' own reports, fetched by our adapters from the sandbox and read by the reconciler's formats: what the
books moved, line by line, and nothing else."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from importlib import import_module
from typing import Any

import httpx
import pytest

from services.payment_service.domain.models import CaptureMode
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import GatewayDefinition, Tools
from services.payment_service.gateways.port import GatewayAdapter, SettlementReport
from services.reconciler.domain.settlement import SettlementLine, StatedPayout
from services.reconciler.settlement_formats.reading import FileReading, Request
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports
from tests.support.adapter_calls import a_money_call, a_session_request
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox
from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase

INDIA = timezone(timedelta(hours=5, minutes=30))
ZONES = {"stripe": UTC, "paypal": UTC, "razorpay": INDIA, "payu": INDIA, "ccavenue": INDIA}
PAID_LATER = {"ccavenue": timedelta(days=1)}
AMOUNT = StatedPayout._fields.index("amount_minor")
KINDS = {"capture": "sale", "refund": "refund", "dispute": "chargeback"}


@dataclass
class Shop:
    name: str
    adapter: GatewayAdapter
    sandbox: RunningSandbox

    async def pay(self, number: int, money: Money) -> str:
        request = a_session_request(
            reference=f"PR{number:018}", idempotency_key=f"att_{number}", amount=money, payment_id=f"pay_{number}"
        )
        session = await self.adapter.create_session(request, repeated=False)
        if session.next_action.type == "form_post":
            await self.sandbox.client.post(session.next_action.url, data=session.next_action.fields)
        reference = request.reference if session.next_action.type == "form_post" else session.gateway_reference
        answer = await self.sandbox.outcome(self.name, reference, "succeed")
        assert answer.status_code == 200, answer.text
        if self.name == "paypal":
            changes: dict[str, Any] = {"our_reference": request.reference, "capture": CaptureMode.AUTOMATIC}
            changes["idempotency_key"] = session.gateway_reference
            call = a_money_call(
                kind=OperationKind.COMPLETION, target=session.gateway_reference, amount=money, **changes
            )
            await self.adapter.complete(call)
        return reference

    async def refund(self, reference: str, amount_minor: int) -> None:
        made = await self.sandbox.control(self.name, f"sessions/{reference}/refunds", amount_minor=amount_minor)
        assert made.status_code == 201, made.text
        last = made.json()["refunds"][-1]
        if last["status"] == "pending":
            await self.sandbox.control(self.name, f"refunds/{last['refund_id']}", status="succeeded")

    async def movements(self) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
        answer = await self.sandbox.client.get(f"/sandbox/control/{self.name}/movements", params=window)
        found: list[dict[str, Any]] = answer.json()
        return found

    def day_of(self, movement: dict[str, Any]) -> date:
        return datetime.fromisoformat(movement["at"]).astimezone(ZONES[self.name]).date()


@pytest.fixture(params=sorted(ZONES))
async def shop(request: pytest.FixtureRequest, service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    name = request.param
    definition: GatewayDefinition = import_module(f"services.payment_service.gateways.{name}").DEFINITION
    books = import_module(f"services.gateway_sandbox.gateways.{name}").DEFINITION
    ports, port = system_ports(), free_port()
    variables = {**books.secrets(ports.randomness), **books.addresses(f"http://127.0.0.1:{port}/sandbox/{name}")}
    if name == "ccavenue":
        variables["CCAVENUE_MANUAL_CAPTURE"] = "false"
    async with (
        running_sandbox(
            service_database("gateway_sandbox"), port=port, with_worker=False, gateway_variables=variables
        ) as sandbox,
        build_http_client(ports, transport=httpx.AsyncHTTPTransport()) as client,
    ):
        tools = Tools(HttpCaller(client, ports), ports, "http://127.0.0.1/webhooks", is_production=False)
        named = {field: definition.variable(field) for field in definition.settings.model_fields}
        values = {field: variables[variable] for field, variable in named.items() if variable in variables}
        yield Shop(name, definition.build(definition.settings.model_validate(values), tools), sandbox)


def read(gateway: str, content: bytes, format_name: str | None = None) -> tuple[list[dict[str, str]], dict[str, Any]]:
    reading = FileReading(io.BytesIO(content), Request(gateway, format_name=format_name))
    rows = b"".join(reading.rows).decode().splitlines()
    return [dict(zip(SettlementLine._fields, row.split("\t"), strict=True)) for row in rows], reading.report()


def read_report(gateway: str, report: SettlementReport) -> tuple[list[dict[str, str]], dict[str, Any]]:
    return read(gateway, report.content.encode(), report.format)


async def test_a_days_report_is_what_the_books_moved(shop: Shop) -> None:
    """And it names each line as the gateway's file does, so what both tell is told once (failure RC4)."""
    money = Money(12_300, "USD" if ZONES[shop.name] is UTC else "INR")
    first = await shop.pay(1, money)
    await shop.pay(2, money * 2)
    await shop.refund(first, 2_300)
    moved = await shop.movements()
    day = shop.day_of(moved[0])
    moved = [each for each in moved if shop.day_of(each) == day]

    report, *others = await shop.adapter.settlement_report(day + PAID_LATER.get(shop.name, timedelta()))
    lines, summary = read_report(shop.name, report)
    assert summary["bad_rows"] == 0
    told = sorted((each["kind"], int(each["gross_minor"]), int(each["net_minor"]), each["currency"]) for each in lines)
    assert told == sorted(
        (KINDS[each["kind"]], each["amount_minor"], each["net_minor"], each["currency"]) for each in moved
    )
    start = datetime.combine(day, datetime.min.time(), ZONES[shop.name])
    window = {"since": start.isoformat(), "until": (start + timedelta(days=1)).isoformat()}
    file = await shop.sandbox.client.get(f"/sandbox/control/{shop.name}/settlement", params=window)
    by_file, _ = read(shop.name, file.content)
    assert sorted(map(named, lines)) == sorted(map(named, by_file))

    paid_out = [payout for each in others for payout in read_report(shop.name, each)[1]["payouts"]]
    total = sum(each["net_minor"] for each in moved)
    assert [payout[AMOUNT] for payout in paid_out] == ([total] if shop.name == "razorpay" else [])
    assert await shop.adapter.settlement_report(day - timedelta(days=30)) == ()


def named(line: dict[str, str]) -> tuple[str, ...]:
    return tuple(line[name] for name in ("kind", "gross_minor", "reference", "line_reference"))
