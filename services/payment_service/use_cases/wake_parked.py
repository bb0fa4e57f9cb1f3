"""Apply parked webhooks whose payment is known now, and give up on those that nobody claims."""

from __future__ import annotations

from datetime import timedelta

import structlog

from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.domain.models import ParkedStatus
from services.payment_service.gateways.port import UnreadableWebhook
from services.payment_service.use_cases.apply_webhook import Webhook, apply_translated, ask_if_needed, retranslate
from services.payment_service.use_cases.ports import Context
from shared.errors import GatewayError, InfrastructureError
from shared.metrics import PARKED_EVENTS

log = structlog.get_logger()


async def apply_one_ready(context: Context) -> bool:
    """Apply one parked event whose payment has been created. False when none is ready.

    Two workers that take the same one apply the same facts, which is once. The event stays ready until it is applied,
    so a crash only delays it. One whose gateway cannot be asked now goes back to waiting until the next slow round, so
    that it does not stand before the others; one that breaks us is set aside as unreadable for the same reason.
    """
    async with context.uow() as tx:
        parked = await tx.parked.take(ParkedStatus.READY)
    if parked is None:
        return False
    webhook = Webhook.from_parked(parked)
    try:
        status = await _look_at(webhook, parked.parked_id, context)
    except InfrastructureError:
        raise  # our own database: nothing to blame on the event
    except UnreadableWebhook:
        status = await _set_aside(parked.parked_id, ParkedStatus.UNREADABLE, context)
    except (GatewayError, GatewayNotEnabled) as error:
        log.warning("parked_event_waits", gateway=parked.gateway, delivery_id=parked.delivery_id, code=error.code)
        status = await _set_aside(parked.parked_id, ParkedStatus.WAITING, context)
    except Exception:  # else the oldest event could end this worker again after every restart
        log.exception("parked_event_breaks_us", gateway=parked.gateway, delivery_id=parked.delivery_id)
        status = await _set_aside(parked.parked_id, ParkedStatus.UNREADABLE, context)
    log.info("parked_event_looked_at", delivery_id=parked.delivery_id, status=status)
    return True


async def _look_at(webhook: Webhook, parked_id: str, context: Context) -> ParkedStatus:
    believed = await ask_if_needed(webhook, retranslate(webhook, context), context)
    async with context.uow() as tx:
        applied = believed is not None and await apply_translated(tx, webhook, believed, context)
        status = ParkedStatus.APPLIED if applied else ParkedStatus.WAITING
        await tx.parked.set_status(parked_id, status)
    return status


async def _set_aside(parked_id: str, status: ParkedStatus, context: Context) -> ParkedStatus:
    async with context.uow() as tx:
        await tx.parked.set_status(parked_id, status)
    return status


async def look_after_parked(context: Context, *, deadline: timedelta) -> None:
    """The slow round: find what a missed wake-up left waiting, and mark as unclaimed what waited past the deadline."""
    async with context.uow() as tx:
        unclaimed = await tx.parked.expire_waiting(
            context.clock.now() - deadline
        )  # what is woken below waits no longer
        await tx.parked.waiting_with_known_payment()
        PARKED_EVENTS.set(await tx.parked.count_waiting())
    for parked in unclaimed:
        log.error("webhook_unclaimed", gateway=parked.gateway, delivery_id=parked.delivery_id)
