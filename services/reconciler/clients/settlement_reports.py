"""Gateways' own settlement reports, through payment_service: which of them have any, and those of a day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.reconciler.use_cases.fetch_reports import FetchedReport, ReportRefused
from shared.correlation import current_correlation
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable, ServiceUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

SETTLEMENT_REPORT = "settlement_report"

MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""payment_service holds 50 MB of reports at most; as text inside JSON their quotes are written with two characters."""

# payment_service's codes for what asking again would not change.
_FOR_GOOD = frozenset(
    {"capability_not_supported", "gateway_not_enabled", "gateway_rejected", "report_too_large", "not_found"}
)


class _Gateway(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=64)
    capabilities: list[str]


class _Gateways(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_Gateway]


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=200)
    format: str = Field(min_length=1, max_length=64)
    content: str


class _Reports(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_Report] = Field(max_length=20)


class _Problem(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: str = Field(max_length=100)


A = TypeVar("A", bound=BaseModel)


class HttpSettlementReportsClient:
    """Satisfies SettlementReportsClient. A report is asked for once: the next round asks again."""

    def __init__(self, caller: HttpCaller, *, base_url: str, token: Callable[[], str], budget_seconds: float) -> None:
        self._caller = caller
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._policy = CallPolicy(
            budget_seconds=budget_seconds, attempts=1, max_bytes=MAX_ANSWER_BYTES, reads_problems=True
        )

    async def gateways_with_reports(self) -> tuple[str, ...]:
        answer = await self._get("/api/v1/gateways", {})
        if answer.status != 200:
            raise ServiceUnavailable(f"payment_service answered {answer.status} to the list of gateways")
        gateways = _read(_Gateways, answer).data
        return tuple(sorted(each.name for each in gateways if SETTLEMENT_REPORT in each.capabilities))

    async def reports(self, gateway: str, account: str, day: date) -> tuple[FetchedReport, ...]:
        params = {"day": day.isoformat()} | ({"account": account} if account else {})
        answer = await self._get(f"/api/v1/gateways/{gateway}/settlement-reports", params)
        if answer.status != 200:
            raise _problem(answer)
        found = _read(_Reports, answer).data
        return tuple(FetchedReport(each.name, each.format, each.content.encode()) for each in found)

    async def _get(self, path: str, params: dict[str, str]) -> HttpAnswer:
        headers = {"authorization": f"Bearer {self._token()}"}
        correlation = current_correlation()
        if correlation is not None:
            headers["x-request-id"] = correlation.request_id
        try:
            answer = await self._caller.send(
                "GET", self._base_url + path, policy=self._policy, headers=headers, params=params
            )
        except GatewayUnavailable as error:  # the caller's word for "never reached, or told to slow down"
            raise ServiceUnavailable("payment_service cannot be reached, or limits our rate") from error
        if answer.status in (401, 403):
            raise ServiceUnavailable("payment_service does not take our token")
        return answer


def _problem(answer: HttpAnswer) -> ReportRefused | GatewayUnavailable | GatewayOutcomeUnknown:
    code = _read(_Problem, answer).code
    if code in _FOR_GOOD:
        return ReportRefused(code)
    return GatewayUnavailable(f"payment_service has no report of this gateway now: {code}")


def _read(model: type[A], answer: HttpAnswer) -> A:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        raise GatewayOutcomeUnknown("payment_service's answer is not understood") from error
