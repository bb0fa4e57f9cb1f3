"""Tell customers about their orders. The row commits with the payment; sending comes later and holds up nothing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta

import structlog

from services.order_service.use_cases.compose_mail import order_paid_mail, refund_mail
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import (
    REFUND_SUCCEEDED,
    DueNotification,
    InvoiceRenderer,
    Mail,
    Mailer,
    MailNotSent,
    NotificationKey,
)
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
            log.exception("notification_broken", **_fields(notification))
            await _postpone(notification, deps, MailNotSent(type(error).__name__))
    except PayrailError as error:
        log.warning("notification_left_to_its_lease", **_fields(notification), code=error.code)


async def _send(
    notification: DueNotification, deps: Dependencies, mailer: Mailer, invoices: InvoiceRenderer, mail_domain: str
) -> None:
    """A crash between the sending and the mark sends again, under the same Message-ID. Raises MailNotSent."""
    mail = await _compose(notification, deps, invoices, mail_domain)
    await mailer.send(mail)
    async with deps.uow() as tx:
        await tx.notifications.mark_sent(notification.key, now=deps.ports.clock.now())
    log.info("notification_sent", **_fields(notification))


async def _compose(
    notification: DueNotification, deps: Dependencies, invoices: InvoiceRenderer, mail_domain: str
) -> Mail:
    key = notification.key
    if key.kind == REFUND_SUCCEEDED:
        return await _compose_refund(key, deps, mail_domain)
    async with deps.uow() as tx:
        order = await tx.orders.find(key.order_id)
        record = await tx.invoices.find(key.order_id)
    assert order is not None, "a notification commits with its order"
    assert record is not None, "a notification commits with its invoice"
    pdf = await invoices.as_pdf(record)
    return order_paid_mail(order, record, pdf, shop=deps.shop, mail_domain=mail_domain)


async def _compose_refund(key: NotificationKey, deps: Dependencies, mail_domain: str) -> Mail:
    async with deps.uow() as tx:
        order = await tx.orders.find(key.order_id)
        records = (await tx.refunds.of_orders([key.order_id])).get(key.order_id, [])
    assert order is not None, "a notification commits with its order"
    record = next((record for record in records if record.refund.refund_id == key.reference), None)
    assert record is not None, "a notification commits with its refund"
    return refund_mail(order, record, shop=deps.shop, mail_domain=mail_domain)


def _fields(notification: DueNotification) -> dict[str, str]:
    """What a log line says about it; no name and no address."""
    return {name: value for name, value in asdict(notification.key).items() if value}


async def _postpone(notification: DueNotification, deps: Dependencies, error: MailNotSent) -> None:
    now = deps.ports.clock.now()
    wait = min(MAX_RETRY, FIRST_RETRY * 2 ** min(notification.attempts - 1, 10))
    is_hopeless = error.permanent or notification.attempts >= MAX_ATTEMPTS
    async with deps.uow() as tx:
        await tx.notifications.mark_failed(
            notification.key,
            next_attempt_at=now + wait,
            error=str(error),
            given_up_at=now if is_hopeless else None,
        )
    log.warning(
        "notification_not_sent",
        **_fields(notification),
        attempts=notification.attempts,
        given_up=is_hopeless,
    )
