"""The worker process of order_service: consumers, outbox relay, expiry, asking again, mails, cleaning up."""

from __future__ import annotations

from services.order_service.bootstrap import Container
from services.order_service.use_cases.ask_again import ask_again_for_money
from services.order_service.use_cases.close_leftovers import close_leftover_sessions
from services.order_service.use_cases.expire_orders import expire_due_orders
from services.order_service.use_cases.send_notifications import send_due_notifications
from services.order_service.use_cases.settle_order import ORDER_CHANGED, SESSION_LEFT_OPEN
from services.order_service.use_cases.stream_tickets import forget_expired_tickets
from shared.db.outbox import OUTBOX_CHANNEL
from shared.messaging.relay import OutboxRelay
from shared.periodic import Periodic
from shared.tasks import supervise

CLEANING_INTERVAL_SECONDS = 600.0
ASKING_AGAIN_INTERVAL_SECONDS = 60.0  # what is asked again has waited for an hour


async def run_worker(container: Container) -> None:
    """Runs until cancelled; any number of replicas may. A job that dies takes the process with it."""
    settings, ports = container.settings, container.ports
    relay = OutboxRelay(container.database, container.bus, service="order_service", ports=ports)
    expiry = Periodic(
        "order-expiry",
        lambda: expire_due_orders(container.deps),
        interval_seconds=settings.expiry_interval_seconds,
        ports=ports,
    )
    leftovers = Periodic(
        "order-leftover-sessions",
        lambda: close_leftover_sessions(container.deps),
        interval_seconds=settings.expiry_interval_seconds,
        ports=ports,
    )
    asking_again = Periodic(
        "order-asking-again",
        lambda: ask_again_for_money(container.deps),
        interval_seconds=ASKING_AGAIN_INTERVAL_SECONDS,
        ports=ports,
    )
    mails = Periodic(
        "order-mails", lambda: send_mails(container), interval_seconds=settings.mail_interval_seconds, ports=ports
    )
    cleaning = Periodic(
        "order-cleaning", lambda: clean_up(container), interval_seconds=CLEANING_INTERVAL_SECONDS, ports=ports
    )
    listener = container.database.listener
    # A paid order's mail goes out at once, and no other page of it stays open.
    with listener.subscribe(ORDER_CHANGED, mails.wake), listener.subscribe(SESSION_LEFT_OPEN, leftovers.wake):
        await supervise(
            {
                "order-relay": relay.run,
                "order-consumers": container.bus.consume,
                "order-expiry": expiry.run,
                "order-leftover-sessions": leftovers.run,
                "order-asking-again": asking_again.run,
                "order-mails": mails.run,
                "order-cleaning": cleaning.run,
                "order-listener": lambda: listener.run((OUTBOX_CHANNEL, ORDER_CHANGED, SESSION_LEFT_OPEN)),
            }
        )


async def send_mails(container: Container) -> bool:
    return await send_due_notifications(
        container.deps, container.mailer, container.invoices, mail_domain=container.mail_domain
    )


async def clean_up(container: Container) -> bool:
    """Remove what has run out: unused tickets, answers kept for idempotency keys. True while there is more."""
    await forget_expired_tickets(container.deps)
    return await container.idempotency.forget_expired() > 0  # a bounded batch; busy days leave many of them
