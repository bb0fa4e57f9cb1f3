"""The composition root: the only file of order_service that picks concrete classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from services.order_service.api.dependencies import RateLimits, StreamRules
from services.order_service.clients.mail import MailboxMailer, SmtpMailer, mail_domain
from services.order_service.clients.payments import HttpPaymentsClient
from services.order_service.db.payment_batch import BatchUnitOfWork
from services.order_service.db.retention import walks
from services.order_service.db.unit_of_work import SERVICE, OrderTransaction, build_unit_of_work
from services.order_service.invoicing.process import InvoiceProcess
from services.order_service.messaging.bindings import subscriptions
from services.order_service.settings import OrderSettings
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.order_watch import OrderWatch
from services.order_service.use_cases.ports import InvoiceRenderer, Mailer, PaymentsClient
from services.order_service.use_cases.settle_order import ORDER_CHANGED
from shared.db.idempotency import IdempotencyStore
from shared.db.retention import Retention, shared_walks
from shared.db.session import Database
from shared.db.unit_of_work import UnitOfWork
from shared.health import HealthCheck
from shared.http import HttpClient, build_http_client
from shared.messaging.bus import EventBus
from shared.ports import Ports
from shared.web.auth import Authenticator, ServiceToken, TokenSigner, build_signer, build_verifier

PAYMENT_SERVICE = "payment_service"
SERVICE_SCOPES = "payments:read payments:write"


log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that main.py and worker.py run on."""

    settings: OrderSettings
    ports: Ports
    bus: EventBus
    database: Database
    uow: UnitOfWork[OrderTransaction]
    deps: Dependencies
    watch: OrderWatch
    invoices: InvoiceRenderer
    idempotency: IdempotencyStore
    retention: Retention
    rate_limits: RateLimits
    stream_rules: StreamRules
    authenticator: Authenticator
    mailer: Mailer
    mail_domain: str
    checks: Mapping[str, HealthCheck]

    def stop_streams(self) -> None:
        """The process ends: streams and long polls end too, so that the server need not wait for them."""
        self.watch.stop()


@asynccontextmanager
async def build(
    settings: OrderSettings,
    *,
    ports: Ports,
    bus: EventBus,
    http_client: HttpClient | None = None,
    payments: PaymentsClient | None = None,
    mailer: Mailer | None = None,
    invoices: InvoiceRenderer | None = None,
) -> AsyncIterator[Container]:
    """``http_client`` reaches payment_service (the embedded mode passes one that stays in the process); tests pass
    ``payments``, ``mailer`` and ``invoices`` themselves. Raises ConfigurationError."""
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
        uow = build_unit_of_work(database, ports)
        deps = Dependencies(
            uow=uow,
            payments=payments or _payments_client(settings, client, build_signer(settings, ports=ports), ports),
            ports=ports,
            shop=settings.shop,
            rules=settings.rules,
            command_key=settings.command_key,
        )
        if deps.command_key is None:
            log.warning(
                "late_and_second_payments_are_not_refunded",
                hint="set COMMAND_SIGNING_KEY here and COMMAND_KEYS of payment_service; until then a person has to",
            )
        watch = OrderWatch()
        # Whichever process this is in: hints reach it from its own commits and, through the listener, from others'.
        stack.enter_context(database.listener.subscribe(ORDER_CHANGED, watch.on_hint))
        for subscription in subscriptions(deps, database, settings.senders, BatchUnitOfWork(uow)):
            bus.subscribe(subscription)
        verifier = build_verifier(settings, service=SERVICE, ports=ports, client=client)
        yield Container(
            settings=settings,
            ports=ports,
            bus=bus,
            database=database,
            uow=uow,
            deps=deps,
            watch=watch,
            invoices=invoices or _invoices(stack),
            idempotency=IdempotencyStore(database, ports),
            retention=Retention(database, [*shared_walks(settings), *walks()], service=SERVICE, ports=ports),
            rate_limits=RateLimits(
                orders_per_minute=settings.order_rate_per_minute,
                payments_per_minute=settings.pay_rate_per_minute,
                trusted_proxy_hops=settings.trusted_proxy_hops,
                clock=ports.clock,
            ),
            stream_rules=StreamRules(settings.browser_origins, settings.stream_lifetime_seconds),
            authenticator=Authenticator(verifier),
            mailer=mailer or _mailer(settings, uow),
            mail_domain=mail_domain(settings.smtp_from),
            checks={
                "database": HealthCheck("database", database.ping),
                "broker": HealthCheck("broker", bus.check, essential=False),
            },
        )


def _payments_client(
    settings: OrderSettings,
    client: HttpClient,
    signer: TokenSigner,
    ports: Ports,
) -> HttpPaymentsClient:
    return HttpPaymentsClient(
        client,
        base_url=settings.payment_service_url,
        token=ServiceToken(signer, subject=SERVICE, audience=PAYMENT_SERVICE, scopes=SERVICE_SCOPES, clock=ports.clock),
        budget_seconds=settings.payment_call_budget_seconds,
        ports=ports,
    )


def _invoices(stack: AsyncExitStack) -> InvoiceRenderer:
    process = InvoiceProcess()
    stack.push_async_callback(process.close)
    return process


def _mailer(settings: OrderSettings, uow: UnitOfWork[OrderTransaction]) -> Mailer:
    if settings.smtp_url is None:
        if settings.environment == "production":
            log.warning("mails_are_kept_in_the_mailbox_table", hint="set SMTP_URL, and they are sent")
        return MailboxMailer(uow, sender=settings.smtp_from)
    return SmtpMailer(
        settings.smtp_url.get_secret_value(),
        sender=settings.smtp_from,
        starttls=settings.smtp_starttls,
        verify_certificate=settings.smtp_verify_certificate,
        timeout_seconds=settings.smtp_timeout_seconds,
    )
