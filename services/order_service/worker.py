"""The worker process of order_service: consumers, outbox relay, expiry, asking again, mails, cleaning up."""

from __future__ import annotations

from services.order_service.bootstrap import Container
from services.order_service.use_cases.ask_again import ask_again_for_money
from services.order_service.use_cases.close_leftovers import close_leftover_sessions
from services.order_service.use_cases.expire_orders import expire_due_orders
from services.order_service.use_cases.send_notifications import BATCH, send_due_notifications
from services.order_service.use_cases.settle_order import ORDER_CHANGED, SESSION_LEFT_OPEN
from shared.db.outbox import OUTBOX_CHANNEL
from shared.messaging.relay import OutboxRelay
from shared.periodic import Periodic
from shared.tasks import supervise

ASKING_AGAIN_INTERVAL_SECONDS = 60.0  # what is asked again has waited for an hour
MAIL_PAUSE_PER_ROUND = 2.0
MAX_MAIL_PAUSE_SECONDS = 10.0


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
        "order-mails",
        lambda: send_mails_unhurriedly(container),
        interval_seconds=settings.mail_interval_seconds,
        ports=ports,
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
                "order-retention": lambda: container.retention.watch(
                    interval_seconds=settings.retention_interval_seconds
                ),
                "order-listener": lambda: listener.run((OUTBOX_CHANNEL, ORDER_CHANGED, SESSION_LEFT_OPEN)),
            }
        )


async def send_mails_unhurriedly(container: Container) -> bool:
    """A round, and the pause that it has earned: on a busy day mails wait, and the orders do not.

    A mail costs more than ten orders that are paid, most of it for drawing its invoice. On a machine that has better
    things to do a round takes long, so the pause is as many times as long: mails take a third of the time at most.
    """
    clock = container.ports.clock
    began = clock.monotonic()
    due = await send_mails(container)
    busy = min(MAX_MAIL_PAUSE_SECONDS, MAIL_PAUSE_PER_ROUND * (clock.monotonic() - began)) if due else 0.0
    await clock.sleep(max(busy, due / container.settings.mail_rate_per_second))
    return due == BATCH


async def send_mails(container: Container) -> int:
    """Returns how many were due."""
    return await send_due_notifications(
        container.deps, container.mailer, container.invoices, mail_domain=container.mail_domain
    )
