"""What gateways themselves report of a day."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from services.payment_service.api.dependencies import PaymentsReader, UseCaseContext
from services.payment_service.api.fields import GatewayName, OptionalStorable
from services.payment_service.use_cases.report_settlement import report_settlement
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1", tags=["payments"])


class SettlementReportOut(BaseModel):
    """``format`` names the content's shape for the reconciler; the content is the gateway's own, as text."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="a file name, with the day in it")
    format: str
    content_type: str
    content: str


class SettlementReportList(BaseModel):
    data: list[SettlementReportOut]


@router.get("/gateways/{gateway}/settlement-reports", responses=problem_responses(401, 403, 422, 502, 503))
async def settlement_reports(
    gateway: GatewayName,
    context: UseCaseContext,
    _: PaymentsReader,
    day: date,
    account: Annotated[str | None, Query(max_length=64), OptionalStorable] = None,
) -> SettlementReportList:
    """What the gateway says moved, or was paid out, on a day of its own calendar; empty where nothing did.

    At most 50 MB; where there is more: 502 `report_too_large`.
    """
    reports = await report_settlement(gateway, day, context, account=account)
    return SettlementReportList(data=[SettlementReportOut.model_validate(report) for report in reports])
