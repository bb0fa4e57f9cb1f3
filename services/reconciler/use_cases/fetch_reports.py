"""Fetch what gateways themselves report of each day that is over, and take it in like any other settlement file.

Which days were fetched is remembered by the process only: another one fetches them again, and a report that is the
same is the file that is known, one that has grown brings its new lines. A day without a report is asked about until it
is too old, because some gateways are hours behind; so is a day whose report could not be taken in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple, Protocol

import structlog

from services.reconciler.domain.errors import FileRefused
from services.reconciler.metrics import SETTLEMENT_FILES_REFUSED
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.receive_file import Arrival, receive_file, spooled
from shared.errors import GatewayError, GatewayOutcomeUnknown, GatewayUnavailable, ServiceUnavailable

log = structlog.get_logger()

LEASE = "settlement-reports"

READY_AFTER = timedelta(hours=30)
"""After a day's beginning in UTC: it is over everywhere that our gateways count days, and lists that lag are whole."""


class ReportRefused(GatewayError):
    """This report cannot be had, however often it is asked for; the message is the code of the reason."""

    code = "report_refused"


@dataclass(frozen=True, slots=True)
class FetchedReport:
    name: str
    format: str
    content: bytes


class SettlementReportsClient(Protocol):
    async def gateways_with_reports(self) -> tuple[str, ...]:
        """Raises GatewayOutcomeUnknown or ServiceUnavailable."""
        ...

    async def reports(self, gateway: str, account: str, day: date) -> tuple[FetchedReport, ...]:
        """Empty where nothing moved on that day.

        Raises ReportRefused; GatewayUnavailable or GatewayOutcomeUnknown where the gateway cannot tell now;
        ServiceUnavailable where payment_service is away.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReportRules:
    days: int
    """How many days back, the newest one that is ready included; 0: none is fetched."""
    lease_seconds: float
    """Longer than one call may take."""


class _Wanted(NamedTuple):
    gateway: str
    account: str
    day: date


class ReportFetcher:
    """``round`` fetches what is missing; one replica at a time does."""

    def __init__(self, client: SettlementReportsClient, rules: ReportRules, context: Context) -> None:
        self._client = client
        self._rules = rules
        self._context = context
        self._holder = context.ids.new("rep")
        self._done: set[_Wanted] = set()

    async def round(self) -> bool:
        """Always False: nothing waits for the next round but time. Raises InfrastructureError."""
        days = self._days()
        self._done = {wanted for wanted in self._done if wanted.day in days}
        if not days or not await self._leads():
            return False
        try:
            gateways = await self._client.gateways_with_reports()
        except (GatewayOutcomeUnknown, ServiceUnavailable) as error:
            log.warning("settlement_reports_not_fetched", code=error.code)
            return False
        for gateway in gateways:
            for account in await self._accounts(gateway):
                await self._fetch(gateway, account, days)
        return False

    async def step_down(self) -> None:
        async with self._context.uow() as tx:
            await tx.leases.release(LEASE, holder=self._holder)

    def _days(self) -> list[date]:
        """Oldest first."""
        newest = (self._context.clock.now() - READY_AFTER).date()
        return [newest - timedelta(days=back) for back in reversed(range(self._rules.days))]

    async def _leads(self) -> bool:
        async with self._context.uow() as tx:
            token = await tx.leases.acquire(LEASE, holder=self._holder, seconds=self._rules.lease_seconds)
        return token is not None

    async def _accounts(self, gateway: str) -> list[str]:
        """Those of our payments. Where we know none, the gateway's only or first one."""
        async with self._context.uow() as tx:
            return await tx.mirror.accounts(gateway) or [""]

    async def _fetch(self, gateway: str, account: str, days: list[date]) -> None:
        """A gateway that is away is tried in the next round, from the day that it failed at."""
        for day in days:
            wanted = _Wanted(gateway, account, day)
            if wanted in self._done:
                continue
            if not await self._leads():
                return
            try:
                reports = await self._client.reports(gateway, account, day)
            except ReportRefused as error:
                log.warning("settlement_report_refused", gateway=gateway, account=account, reason=error.detail)
                SETTLEMENT_FILES_REFUSED.labels(gateway=gateway, source="report_api").inc()
                self._done.add(wanted)
                continue
            except (GatewayUnavailable, GatewayOutcomeUnknown, ServiceUnavailable) as error:
                log.warning("settlement_report_not_fetched", gateway=gateway, account=account, code=error.code)
                return
            taken = [await self._receive(wanted, report) for report in reports]
            if taken and all(taken):
                self._done.add(wanted)

    async def _receive(self, wanted: _Wanted, report: FetchedReport) -> bool:
        """False: it was refused."""
        with spooled(report.content) as raw:
            arrival = Arrival(
                raw,
                name=report.name,
                source="report_api",
                received_by="reconciler",
                gateway=wanted.gateway,
                account=wanted.account,
                format_name=report.format,
            )
            try:
                received = await receive_file(arrival, self._context)
            except FileRefused as error:  # a format that we do not have, or a gateway that has changed its own
                log.warning("settlement_file_refused", gateway=wanted.gateway, source="report_api", code=error.code)
                SETTLEMENT_FILES_REFUSED.labels(gateway=wanted.gateway, source="report_api").inc()
                return False
        log.info("settlement_report_fetched", file_id=received.file.file_id, duplicate=received.is_duplicate)
        return True
