"""What adapters inherit for calls that their gateway does not have: a clear refusal, which never looks like success."""

from __future__ import annotations

from datetime import date, datetime

from services.payment_service.gateways.port import ListPage, MoneyCall, Outcome, SettlementReport
from shared.errors import GatewayRejected


class WithoutCaptures:
    """For gateways that take the money at once: nothing is held, so nothing is captured or voided."""

    async def capture(self, call: MoneyCall) -> Outcome:
        raise GatewayRejected("this gateway takes the money at once", gateway_code="capture_not_offered")

    async def void(self, call: MoneyCall) -> Outcome:
        raise GatewayRejected("this gateway holds no money that could be released", gateway_code="void_not_offered")


class WithoutCompletion:
    """For gateways where the shopper's yes is enough."""

    async def complete(self, call: MoneyCall) -> Outcome:
        raise GatewayRejected("this gateway's payments complete by themselves", gateway_code="completion_not_offered")


class WithoutListing:
    """For gateways whose payments can only be asked about one by one."""

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        raise GatewayRejected("this gateway has no list of payments", gateway_code="listing_not_offered")


class WithoutSettlementReports:
    """For gateways whose settlement comes as a file, or under a name that we are not told in time."""

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        why = "this gateway has no settlement report to ask for"
        raise GatewayRejected(why, gateway_code="settlement_report_not_offered")
