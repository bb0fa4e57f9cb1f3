"""Gateways' own reports, asked for at payment_service: what goes out, and what each answer means."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import httpx
import pytest

from services.reconciler.clients.settlement_reports import HttpSettlementReportsClient
from services.reconciler.use_cases.fetch_reports import FetchedReport, ReportRefused
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable, ServiceUnavailable
from shared.http import MAX_RESPONSE_BYTES, HttpCaller, build_http_client
from tests.support.clock import FakeClock, fake_ports

DAY = date(2026, 1, 5)


class Owner:
    """payment_service, with one answer."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return httpx.Response(self.answer.status_code, stream=httpx.ByteStream(self.answer.content))


def client_of(answer: httpx.Response | Exception) -> tuple[HttpSettlementReportsClient, Owner]:
    owner = Owner(answer)
    ports = fake_ports(clock=FakeClock(auto_advance=True), http_transport=httpx.MockTransport(owner))
    caller = HttpCaller(build_http_client(ports), ports)
    made = HttpSettlementReportsClient(caller, base_url="http://pay.test/", token=lambda: "t", budget_seconds=60)
    return made, owner


def says(body: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body).encode())


def a_report(**changes: Any) -> dict[str, Any]:
    return {"name": "r-2026-01-05.json", "format": "f", "content_type": "application/json", "content": "₹"} | changes


async def test_only_gateways_with_reports_are_asked() -> None:
    gateways = [{"name": "stripe", "capabilities": ["settlement_report"]}, {"name": "tabby", "capabilities": []}]
    client, owner = client_of(says({"data": gateways}))
    assert await client.gateways_with_reports() == ("stripe",)
    [request] = owner.requests
    assert (request.url.path, request.headers["authorization"]) == ("/api/v1/gateways", "Bearer t")


@pytest.mark.parametrize(("account", "query"), [("", {}), ("emea", {"account": "emea"})])
async def test_a_days_reports_of_an_account(account: str, query: dict[str, str]) -> None:
    client, owner = client_of(says({"data": [a_report()]}))
    assert await client.reports("stripe", account, DAY) == (FetchedReport("r-2026-01-05.json", "f", "₹".encode()),)
    [request] = owner.requests
    assert request.url.path == "/api/v1/gateways/stripe/settlement-reports"
    assert dict(request.url.params) == {"day": "2026-01-05"} | query


async def test_a_report_may_be_larger_than_other_answers() -> None:
    content = "x" * (2 * MAX_RESPONSE_BYTES)
    [report] = await client_of(says({"data": [a_report(content=content)]}))[0].reports("stripe", "", DAY)
    assert len(report.content) == len(content)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says({"code": "capability_not_supported"}, 422), ReportRefused),
        (says({"code": "report_too_large"}, 502), ReportRefused),
        (says({"code": "gateway_rejected"}, 502), ReportRefused),
        (says({"code": "gateway_unavailable"}, 503), GatewayUnavailable),
        (says({"code": "gateway_outcome_unknown"}, 503), GatewayUnavailable),
        (says({"code": "database_unavailable"}, 503), GatewayUnavailable),
        (says({}, 401), ServiceUnavailable),
        (httpx.ConnectError("refused"), ServiceUnavailable),
        (httpx.ReadTimeout("slow"), GatewayOutcomeUnknown),
        (says({"data": [{"name": ""}]}), GatewayOutcomeUnknown),
        (says({"data": [a_report()] * 21}), GatewayOutcomeUnknown),
        (httpx.Response(502, content=b"<html>"), GatewayOutcomeUnknown),
    ],
)
async def test_what_is_no_report(answer: httpx.Response | Exception, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        await client_of(answer)[0].reports("stripe", "", DAY)
    assert type(raised.value) is error


async def test_without_the_list_of_gateways_nothing_is_known() -> None:
    with pytest.raises(ServiceUnavailable):
        await client_of(says({"code": "database_unavailable"}, 503))[0].gateways_with_reports()
