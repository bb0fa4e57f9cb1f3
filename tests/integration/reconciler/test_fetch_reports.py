"""Gateways' reports are fetched, each day once, and stored as files; whoever is away is asked again later."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import pytest

from services.reconciler.domain.settlement import SettlementFile
from services.reconciler.use_cases.fetch_reports import (
    READY_AFTER,
    FetchedReport,
    ReportFetcher,
    ReportRefused,
    ReportRules,
)
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.settlement_ports import Inspection, RawFile, Reading
from shared.errors import GatewayUnavailable, PayrailError, ServiceUnavailable
from tests.integration.reconciler.conftest import BuildWorld, World
from tests.support.settlement_reader import InProcessReader

RULES = ReportRules(days=2, lease_seconds=600)
ROW = (
    '{{"entity_id":"pay_{0}","type":"payment","debit":0,"credit":48820,"amount":50000,"currency":"INR","fee":1180,'
    '"tax":180,"on_hold":false,"settled":true,"created_at":1767225600,"settled_at":1767571200,'
    '"settlement_id":"setl_1","settlement_utr":"UTR1","payment_id":null,"order_id":"order_1","order_receipt":"PR1"}}'
)


def a_report(day: date, *numbers: int) -> FetchedReport:
    items = ",".join(ROW.format(number) for number in numbers)
    content = f'{{"entity":"collection","count":{len(numbers)},"items":[{items}]}}'
    return FetchedReport(f"razorpay-recon-{day}.json", "razorpay_recon", content.encode())


@dataclass
class FakeReports:
    """Satisfies SettlementReportsClient. A day without an entry has no report."""

    by_day: dict[date, list[FetchedReport]] = field(default_factory=dict)
    failures: list[PayrailError] = field(default_factory=list)
    asked: list[tuple[str, str, date]] = field(default_factory=list)
    is_away: bool = False
    listed: int = 0

    async def gateways_with_reports(self) -> tuple[str, ...]:
        self.listed += 1
        if self.is_away:
            raise ServiceUnavailable
        return ("razorpay",)

    async def reports(self, gateway: str, account: str, day: date) -> tuple[FetchedReport, ...]:
        self.asked.append((gateway, account, day))
        if self.failures:
            raise self.failures.pop(0)
        return tuple(self.by_day.get(day, ()))


class FakeReader:
    """Satisfies SettlementReader as far as a file is taken in: it does not start a process to look at one."""

    async def inspect(self, raw: RawFile, *, gateway: str, account: str, format_name: str | None) -> Inspection:
        content = os.pread(raw.fileno(), 1_000_000, 0)
        return Inspection(format_name or "", 1, len(content), sha256(content).digest())

    def read(self, file: SettlementFile, content: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Reading]:
        raise AssertionError("nothing is read here")


@dataclass
class Desk:
    world: World
    reports: FakeReports
    fetcher: ReportFetcher
    context: Context

    @property
    def newest(self) -> date:
        return (self.world.clock.now() - READY_AFTER).date()

    def another(self) -> ReportFetcher:
        """Of a process that has just started."""
        return ReportFetcher(self.reports, RULES, self.context)

    async def files(self) -> list[dict[str, object]]:
        return await self.world.rows("SELECT name, source, gateway, account FROM settlement_files ORDER BY file_id")


@pytest.fixture
async def desk(build_world: BuildWorld) -> Desk:
    world, reports = await build_world(), FakeReports()
    context = replace(world.container.context, reader=FakeReader())
    return Desk(world, reports, ReportFetcher(reports, RULES, context), context)


async def test_a_day_is_fetched_once_it_is_over_everywhere_and_once_only(desk: Desk) -> None:
    newest, older = desk.newest, desk.newest - timedelta(days=1)
    desk.reports.by_day = {newest: [a_report(newest, 1)]}
    await desk.fetcher.round()
    assert desk.reports.asked == [("razorpay", "", older), ("razorpay", "", newest)]
    assert await desk.files() == [
        {"name": f"razorpay-recon-{newest}.json", "source": "report_api", "gateway": "razorpay", "account": ""}
    ]
    desk.reports.asked.clear()
    desk.reports.by_day[older] = [a_report(older, 2)]  # its list was behind
    await desk.fetcher.round()
    await desk.fetcher.round()
    assert desk.reports.asked == [("razorpay", "", older)]
    assert len(await desk.files()) == 2


async def test_the_same_report_is_one_file_and_one_that_has_grown_another(desk: Desk) -> None:
    """Failure RC1: a restart asks again."""
    day = desk.newest
    desk.reports.by_day = {day: [a_report(day, 1)]}
    await desk.fetcher.round()
    await desk.fetcher.step_down()
    restarted = desk.another()
    await restarted.round()
    await restarted.step_down()
    assert len(await desk.files()) == 1
    desk.reports.by_day = {day: [a_report(day, 1, 2)]}
    await desk.another().round()
    assert len(await desk.files()) == 2


async def test_a_gateway_that_is_away_is_asked_again_in_the_next_round(desk: Desk) -> None:
    day = desk.newest - timedelta(days=1)
    desk.reports.by_day = {day: [a_report(day, 1)]}
    desk.reports.failures = [GatewayUnavailable("away")]
    await desk.fetcher.round()
    assert (len(desk.reports.asked), await desk.files()) == (1, [])
    desk.reports.is_away = True
    await desk.fetcher.round()
    desk.reports.is_away = False
    await desk.fetcher.round()
    assert len(await desk.files()) == 1


async def test_what_is_refused_is_counted_and_not_asked_for_again(desk: Desk) -> None:
    counted = await refused(desk)
    desk.reports.failures = [ReportRefused("report_too_large"), ReportRefused("report_too_large")]
    await desk.fetcher.round()
    await desk.fetcher.round()
    assert (len(desk.reports.asked), await refused(desk) - counted) == (2, 2)


async def test_a_report_that_is_not_understood_is_counted_and_asked_for_again(desk: Desk) -> None:
    """Nobody sends it a second time: it is fetched until the gateway tells it well, or the day is too old."""
    counted = await refused(desk)
    odd = FetchedReport("odd.json", "razorpay_recon", b'{"what":"is this"}')
    desk.reports.by_day = {desk.newest: [a_report(desk.newest, 1), odd]}
    fetcher = ReportFetcher(desk.reports, RULES, replace(desk.context, reader=InProcessReader()))
    await fetcher.round()
    assert (len(await desk.files()), await refused(desk) - counted) == (1, 1)
    desk.reports.by_day = {desk.newest: [a_report(desk.newest, 1), a_report(desk.newest, 1, 2)]}
    await fetcher.round()
    asked = len(desk.reports.asked)
    assert (len(await desk.files()), await refused(desk) - counted) == (2, 1)
    await fetcher.round()
    assert desk.reports.asked[asked:] == [("razorpay", "", desk.newest - timedelta(days=1))]


async def refused(desk: Desk) -> float:
    metrics = (await desk.world.http.get("/metrics")).text
    name = 'payrail_settlement_files_refused_total{gateway="razorpay",source="report_api"}'
    return sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(name))


async def test_a_report_in_an_unknown_shape_does_not_keep_the_others_away(desk: Desk) -> None:
    odd = FetchedReport("odd.json", "razorpay_recon", b'{"what":"is this"}')
    desk.reports.by_day = {desk.newest: [odd, a_report(desk.newest, 1)]}
    await ReportFetcher(desk.reports, RULES, desk.world.container.context).round()  # with the real reader
    assert [file["name"] for file in await desk.files()] == [f"razorpay-recon-{desk.newest}.json"]


async def test_one_replica_fetches(desk: Desk) -> None:
    await desk.fetcher.round()
    await desk.another().round()
    assert (desk.reports.listed, len(desk.reports.asked)) == (1, 2)


async def test_each_account_has_reports_of_its_own(desk: Desk) -> None:
    for number, account in enumerate(("emea", "apac")):
        await desk.world.execute(
            "INSERT INTO known_payments (payment_id, order_id, gateway, account, status, version, amount_minor,"
            " currency, created_at, updated_at)"
            " VALUES (:id, 'ord', 'razorpay', :account, 'captured', 1, 1, 'INR', now(), now())",
            id=f"pay_{number}",
            account=account,
        )
    await desk.fetcher.round()
    assert {account for _, account, _ in desk.reports.asked} == {"emea", "apac"}


async def test_days_come_by_the_clock_and_none_is_fetched_where_none_is_wanted(desk: Desk) -> None:
    assert timedelta(hours=30) == READY_AFTER
    desk.world.clock.move((datetime(2026, 3, 1, 5, 59, tzinfo=UTC) - desk.world.clock.now()).total_seconds())
    await desk.fetcher.round()
    assert [day for _, _, day in desk.reports.asked] == [date(2026, 2, 26), date(2026, 2, 27)]
    desk.reports.asked.clear()
    await ReportFetcher(desk.reports, ReportRules(0, 600), desk.world.container.context).round()
    assert desk.reports.asked == []
