"""The shopper's browser comes back from the gateway: ask the gateway, within a time budget, and send it on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.domain.models import OPEN, FactSource, Payment, PaymentStatus
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.sync_payment import sync_payment
from shared.errors import DatabaseUnavailable, GatewayError, NotFound

ASK_AGAIN_AFTER = timedelta(seconds=1)
"""A browser that reloads this address does not make us call the gateway each time."""


async def follow_return(payment_id: str, *, from_cancel: bool, budget_seconds: float, context: Context) -> str:
    """The URL to send the browser to, with ``order_id`` and ``status``.

    What the browser carries is never believed; ``from_cancel`` (which of our two links the gateway followed) only
    chooses the page for a payment that is still open. Raises NotFound.
    """
    async with context.uow() as tx:
        payment = await tx.payments.get(payment_id)
    if payment is None:
        raise NotFound
    if payment.status in OPEN and _may_ask(payment, context):
        payment = await _ask(payment, budget_seconds, context)
    return _destination(payment, from_cancel=from_cancel)


def _may_ask(payment: Payment, context: Context) -> bool:
    return payment.asked_at is None or context.clock.now() - payment.asked_at > ASK_AGAIN_AFTER


async def _ask(payment: Payment, budget_seconds: float, context: Context) -> Payment:
    """The payment as the gateway describes it, or as we knew it if the gateway does not answer in time (failure
    PY13)."""
    try:
        async with asyncio.timeout(budget_seconds):
            return (await sync_payment(payment.payment_id, FactSource.RETURN, context)).payment
    except (GatewayError, GatewayNotEnabled, DatabaseUnavailable, TimeoutError):
        return payment


def _destination(payment: Payment, *, from_cancel: bool) -> str:
    status = payment.status
    if status in (PaymentStatus.FAILED, PaymentStatus.EXPIRED):
        target = payment.failure_url
    elif status is PaymentStatus.CANCELED or (from_cancel and status in OPEN):
        target = payment.cancel_url
    else:
        target = payment.success_url
    shown = status if from_cancel or status is not PaymentStatus.REQUIRES_ACTION else PaymentStatus.PROCESSING
    return _with_query(target, {"order_id": payment.order_id, "status": shown.value})


def _with_query(url: str, added: dict[str, str]) -> str:
    """Add to a query without touching what is there, nor the fragment that an SPA routes by."""
    parts = urlsplit(url)
    kept = [pair for pair in parts.query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in added]
    return urlunsplit(parts._replace(query="&".join((*kept, urlencode(added)))))
