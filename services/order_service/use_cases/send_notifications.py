"""Tell customers about their orders. The row commits with the payment; sending comes later and holds up nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial

import structlog

from services.order_service.use_cases.compose_mail import order_paid_mail, refund_mail
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import (
    REFUND_SUCCEEDED,
    DueNotification,
    InvoiceNotDrawnInTime,
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

COMPOSING = timedelta(seconds=60)
"""A mail that is not ready to be sent by then is given back, or somebody else would send it, too. Invoices are drawn
one after the other, by whatever processor time is left over; this is longer than one of them may take, so that a slow
one does not come back for ever."""

FIRST_RETRY = timedelta(seconds=10)
GIVEN_BACK = timedelta(seconds=10)
"""For what could not be tried."""

MAX_RETRY = timedelta(hours=1)
Compose = Callable[[], Awaitable[Mail]]

MAX_ATTEMPTS = 30
"""With the waits above about a day: long enough for a mail server's bad night."""


async def send_due_notifications(
    deps: Dependencies, mailer: Mailer, invoices: InvoiceRenderer, *, mail_domain: str
) -> int:
    """One round. Returns how many were due; ``BATCH``: there may be more to do at once."""
    now = deps.ports.clock.now()
    async with deps.uow() as tx:
        due = await tx.notifications.claim_due(now=now, lease_until=now + LEASE, limit=BATCH)
    ready_by = now + COMPOSING
    async with asyncio.TaskGroup() as group:  # one after the other, slow mails would outlast the lease of the last ones
        for notification in due:
            compose = partial(_compose, notification, deps, invoices, mail_domain)
            group.create_task(_send_or_postpone(notification, compose, deps, mailer, ready_by))
    return len(due)


async def _send_or_postpone(
    notification: DueNotification, compose: Compose, deps: Dependencies, mailer: Mailer, ready_by: datetime
) -> None:
    """Raises nothing: a mail that cannot be made or sent is its own trouble and nobody else's."""
    try:
        try:
            mail = await _composed(notification, compose, deps, ready_by)
            if mail is not None:
                await _send(notification, mail, deps, mailer)
        except MailNotSent as error:
            await _postpone(notification, deps, error)
        except PayrailError:
            raise
        except Exception as error:  # a bug that this mail shows; it counts as an attempt, so it ends
            log.exception("notification_broken", **_fields(notification))
            await _postpone(notification, deps, MailNotSent(type(error).__name__))
    except PayrailError as error:
        log.warning("notification_left_to_its_lease", **_fields(notification), code=error.code)


async def _composed(
    notification: DueNotification, compose: Compose, deps: Dependencies, ready_by: datetime
) -> Mail | None:
    """None: it was given back, and its attempt does not count, for no mail server was tried.

    Raises MailNotSent where it is the mail's own fault, an invoice that takes too long; so that ends, too.
    """
    try:
        mail, code = await compose(), "composed_too_late"
    except InvoiceNotDrawnInTime as error:
        raise MailNotSent("its invoice was not drawn in time") from error
    except PayrailError as error:
        mail, code = None, error.code
    if mail is not None and deps.ports.clock.now() <= ready_by:
        return mail
    log.warning("notification_given_back", **_fields(notification), code=code)
    async with deps.uow() as tx:
        await tx.notifications.release(notification, next_attempt_at=deps.ports.clock.now() + GIVEN_BACK)
    return None


async def _send(notification: DueNotification, mail: Mail, deps: Dependencies, mailer: Mailer) -> None:
    """A crash between the sending and the mark sends again, under the same Message-ID. Raises MailNotSent."""
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
    # A recipient who does not exist is his own trouble; whatever else never worked is ours.
    level = logging.ERROR if is_hopeless and not error.permanent else logging.WARNING
    log.log(
        level,
        "notification_not_sent",
        **_fields(notification),
        attempts=notification.attempts,
        given_up=is_hopeless,
    )
