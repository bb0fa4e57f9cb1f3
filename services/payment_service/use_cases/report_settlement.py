"""A gateway's own settlement report of a day, for whoever reconciles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from services.payment_service.domain.errors import CapabilityNotSupported
from services.payment_service.gateways.port import Capability, SettlementReport
from services.payment_service.use_cases.list_at_gateway import FIRST_YEAR, LAST_YEAR
from services.payment_service.use_cases.ports import Context
from shared.errors import InvalidRequest


async def report_settlement(
    gateway: str, day: date, context: Context, *, account: str | None
) -> Sequence[SettlementReport]:
    """Empty where nothing moved. Raises GatewayNotEnabled, CapabilityNotSupported where the gateway has no report,
    InvalidRequest for a day that is none, or a GatewayError (ReportTooLarge among them)."""
    if not FIRST_YEAR <= day.year < LAST_YEAR:
        raise InvalidRequest("a day is of this age")
    adapter = context.gateways.get(gateway, context.gateways.account_of(gateway, account))
    if Capability.SETTLEMENT_REPORT not in adapter.facts.capabilities:
        reason = adapter.facts.not_offered.get(Capability.SETTLEMENT_REPORT, "not offered")
        raise CapabilityNotSupported(f"{gateway} has no settlement report to ask for: {reason}")
    return await adapter.settlement_report(day)
