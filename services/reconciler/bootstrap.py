"""The composition root of the reconciler: the only file that picks concrete classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.reconciler.clients.exports import HttpExportsClient, Owner
from services.reconciler.clients.gateway_lists import HttpGatewayListsClient
from services.reconciler.clients.payments import HttpPaymentsClient
from services.reconciler.clients.settlement_reports import HttpSettlementReportsClient
from services.reconciler.db.retention import walks
from services.reconciler.db.unit_of_work import unit_of_work
from services.reconciler.domain.models import RunKind
from services.reconciler.messaging.bindings import subscriptions
from services.reconciler.settings import ReconcilerSettings
from services.reconciler.settlement_formats.process import ChildReader
from services.reconciler.use_cases.fetch_reports import ReportFetcher
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.run_kinds import works
from services.reconciler.use_cases.run_runner import RunRunner
from services.reconciler.use_cases.settlement_ports import Intake
from services.reconciler.use_cases.sweep import Sweeper
from services.reconciler.use_cases.watch_folder import FolderWatch
from shared.db.retention import Retention, shared_walks
from shared.db.session import Database
from shared.health import HealthCheck
from shared.http import HttpCaller, HttpClient, StreamPolicy, build_http_client
from shared.messaging.bus import EventBus
from shared.messaging.relay import OutboxRelay
from shared.ports import Ports
from shared.web.auth import Authenticator, build_signer, build_verifier

SERVICE = "reconciler"
PAYMENT_SERVICE = "payment_service"
ORDER_SERVICE = "order_service"
SERVICE_SCOPES = "payments:read payments:write"
ORDER_SCOPES = "orders:read"
SETTLEMENT_POOL_TIMEOUT_SECONDS = 60.0  # nobody's page waits for these connections


@dataclass(frozen=True, slots=True)
class Container:
    settings: ReconcilerSettings
    ports: Ports
    database: Database
    bus: EventBus
    context: Context
    sweeper: Sweeper
    runners: Mapping[RunKind, RunRunner]
    folder_watch: FolderWatch
    report_fetcher: ReportFetcher
    uploads: asyncio.Semaphore
    """Of those that this process reads at the same time."""
    relay: OutboxRelay
    retention: Retention
    authenticator: Authenticator

    @property
    def checks(self) -> Mapping[str, HealthCheck]:
        # payment_service is no part of readiness: while it is away payments only stay due.
        return {
            "database": HealthCheck("database", self.database.ping),
            "broker": HealthCheck("broker", self.bus.check, essential=False),
        }


@asynccontextmanager
async def build(
    settings: ReconcilerSettings,
    *,
    ports: Ports,
    bus: EventBus,
    http_client: HttpClient | None = None,
) -> AsyncIterator[Container]:
    """``http_client`` reaches payment_service (the embedded mode may pass one that stays in the process).

    Raises ConfigurationError.
    """
    async with AsyncExitStack() as stack:
        client = http_client
        if client is None:
            client = build_http_client(ports, read_seconds=settings.payment_call_budget_seconds)
            await stack.enter_async_context(client)
        database = Database(
            settings.database_url.get_secret_value(),
            schema=SERVICE,
            application_name=SERVICE,
            pool_size=settings.database_pool_size,
        )
        stack.push_async_callback(database.dispose)
        # Statements over a million lines last longer than any request may wait, and must not take its connections.
        settlement_database = Database(
            settings.database_url.get_secret_value(),
            schema=SERVICE,
            application_name=f"{SERVICE}-settlement",
            pool_size=settings.settlement_database_pool_size,
            max_overflow=0,
            statement_timeout_seconds=settings.settlement_statement_timeout_seconds,
            lock_timeout_seconds=settings.settlement_statement_timeout_seconds,
            pool_timeout_seconds=SETTLEMENT_POOL_TIMEOUT_SECONDS,
        )
        settlement_database.listener = database.listener  # its hints wake the same waiters
        stack.push_async_callback(settlement_database.dispose)
        signer = build_signer(settings, ports=ports)
        to_payments = Owner(
            PAYMENT_SERVICE,
            settings.payment_service_url,
            HttpCaller(client, ports),
            lambda: signer.sign(subject=SERVICE, audience=PAYMENT_SERVICE, scopes=SERVICE_SCOPES),
        )
        to_orders = Owner(
            ORDER_SERVICE,
            settings.order_service_url,
            HttpCaller(client, ports),
            lambda: signer.sign(subject=SERVICE, audience=ORDER_SERVICE, scopes=ORDER_SCOPES),
        )
        payments = HttpPaymentsClient(
            to_payments.caller,
            base_url=settings.payment_service_url,
            token=to_payments.token,
            budget_seconds=settings.payment_call_budget_seconds,
        )
        gateway_lists = HttpGatewayListsClient(
            to_payments.caller,
            base_url=settings.payment_service_url,
            token=to_payments.token,
            budget_seconds=settings.payment_call_budget_seconds,
        )
        patient = http_client  # a report takes payment_service as long as all its pages take the gateway
        if patient is None:
            patient = build_http_client(ports, read_seconds=settings.settlement_report_budget_seconds)
            await stack.enter_async_context(patient)
        settlement_reports = HttpSettlementReportsClient(
            HttpCaller(patient, ports),
            base_url=settings.payment_service_url,
            token=to_payments.token,
            budget_seconds=settings.settlement_report_budget_seconds,
        )
        context = Context(
            uow=unit_of_work(database, ports),
            settlement_uow=unit_of_work(settlement_database, ports),
            reader=ChildReader(settings.reading),
            intake=Intake(
                asyncio.Semaphore(settings.settlement_files_at_once),
                settings.settlement_max_bytes,
                settings.settlement_folder,
            ),
            payments=payments,
            clock=ports.clock,
            ids=ports.ids,
            randomness=ports.randomness,
            timetable=settings.timetable,
            rules=settings.rules,
            exports=HttpExportsClient(
                to_payments, to_orders, policy=StreamPolicy(budget_seconds=settings.export_budget_seconds)
            ),
            gateway_lists=gateway_lists,
            order_rules=settings.order_rules,
            command_key=settings.command_key,
            settlement_rules=settings.settlement_rules,
            second_person=settings.second_person,
        )
        for subscription in subscriptions(context, database):
            bus.subscribe(subscription)
        yield Container(
            settings=settings,
            ports=ports,
            database=database,
            bus=bus,
            context=context,
            sweeper=Sweeper(context),
            runners={
                kind: RunRunner(kind, work, settings.run_schedules[kind], context)
                for kind, work in works(context).items()
            },
            folder_watch=FolderWatch(context),
            report_fetcher=ReportFetcher(settlement_reports, settings.report_rules, context),
            uploads=asyncio.Semaphore(settings.settlement_uploads_at_once),
            relay=OutboxRelay(database, bus, service=SERVICE, ports=ports),
            retention=Retention(database, [*shared_walks(settings), *walks(settings)], service=SERVICE, ports=ports),
            authenticator=Authenticator(build_verifier(settings, service=SERVICE, ports=ports, client=client)),
        )
