"""Tell customers about their orders. The row commits with the payment; sending comes later and holds up nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from services.order_service.use_cases.compose_mail import order_paid_mail
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import DueNotification, InvoiceRenderer, Mail, Mailer, MailNotSent
from shared.errors import PayrailError

log = structlog.get_logger()

BATCH = 10
LEASE = timedelta(seconds=120)
"""Longer than one sending may take (a batch is sent side by side); a mailer that died leaves its mails to the next one
after this."""

FIRST_RETRY = timedelta(seconds=10)
MAX_RETRY = timedelta(hours=1)
MAX_ATTEMPTS = 30
"""With the waits above about a day: long enough for a mail server's bad night."""


async def send_due_notifications(
    deps: Dependencies, mailer: Mailer, invoices: InvoiceRenderer, *, mail_domain: str
) -> bool:
    """One round; True when there may be more to do at once."""
    now = deps.ports.clock.now()
    async with deps.uow() as tx:
        due = await tx.notifications.claim_due(now=now, lease_until=now + LEASE, limit=BATCH)
    async with asyncio.TaskGroup() as group:  # one after the other, slow mails would outlast the lease of the last ones
        for notification in due:
            group.create_task(_send_or_postpone(notification, deps, mailer, invoices, mail_domain))
    return len(due) == BATCH


async def _send_or_postpone(
    notification: DueNotification, deps: Dependencies, mailer: Mailer, invoices: InvoiceRenderer, mail_domain: str
) -> None:
    """Raises nothing: a mail that cannot be made or sent is its own trouble and nobody else's."""
    try:
        try:
            await _send(notification, deps, mailer, invoices, mail_domain)
        except MailNotSent as error:
            await _postpone(notification, deps, error)
        except PayrailError:
            raise
        except Exception as error:  # a bug that this mail shows; it counts as an attempt, so it ends
            log.exception("notification_broken", order_id=notification.order_id, kind=notification.kind)
            await _postpone(notification, deps, MailNotSent(type(error).__name__))
    except PayrailError as error:
        log.warning("notification_left_to_its_lease", order_id=notification.order_id, code=error.code)


async def _send(
    notification: DueNotification, deps: Dependencies, mailer: Mailer, invoices: InvoiceRenderer, mail_domain: str
) -> None:
    """A crash between the sending and the mark sends again, under the same Message-ID. Raises MailNotSent."""
    mail = await _compose(notification, deps, invoices, mail_domain)
    await mailer.send(mail)
    async with deps.uow() as tx:
        await tx.notifications.mark_sent(notification.order_id, notification.kind, now=deps.ports.clock.now())
    log.info("notification_sent", order_id=notification.order_id, kind=notification.kind)


async def _compose(
    notification: DueNotification, deps: Dependencies, invoices: InvoiceRenderer, mail_domain: str
) -> Mail:
    async with deps.uow() as tx:
        order = await tx.orders.find(notification.order_id)
        record = await tx.invoices.find(notification.order_id)
    assert order is not None, "a notification commits with its order"
    assert record is not None, "a notification commits with its invoice"
    pdf = await invoices.as_pdf(record)
    return order_paid_mail(order, record, pdf, shop=deps.shop, mail_domain=mail_domain)


async def _postpone(notification: DueNotification, deps: Dependencies, error: MailNotSent) -> None:
    now = deps.ports.clock.now()
    wait = min(MAX_RETRY, FIRST_RETRY * 2 ** min(notification.attempts - 1, 10))
    is_hopeless = error.permanent or notification.attempts >= MAX_ATTEMPTS
    async with deps.uow() as tx:
        await tx.notifications.mark_failed(
            notification.order_id,
            notification.kind,
            next_attempt_at=now + wait,
            error=str(error),
            given_up_at=now if is_hopeless else None,
        )
    log.warning(
        "notification_not_sent",
        order_id=notification.order_id,
        kind=notification.kind,
        attempts=notification.attempts,
        given_up=is_hopeless,
    )
