"""Apply many webhooks in one transaction: each as ``apply_webhook`` would, their reads and writes together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from services.payment_service.gateways.port import GatewayEvent
from services.payment_service.use_cases.apply_webhook import Reading, apply_reading, tell_of
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.recording_ports import NotTogether, RecordingTransaction, Wanted
from shared.unit_of_work import InboxClaim

WITHOUT_A_PAUSE = 10
"""Webhooks: memory answers at once, so nobody else in this process would have a turn for as long as a batch takes."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A webhook's message. ``correlated``: within it log lines and events belong to that message."""

    reading: Reading
    claim: InboxClaim
    correlated: Callable[[], AbstractContextManager[None]]


def may_be_together(reading: Reading) -> bool:
    """Whether it is applied without a word from its gateway; nearly always, of what says so."""
    return not reading.is_of_interest or reading.unreadable is not None or reading.speaks_for_itself


async def apply_webhooks(arrived: Sequence[Arrived], context: Context) -> None:
    """All of one consumer's, or none: in the order given, those that were claimed before left out.

    Webhooks of one payment see what those before them have changed. Raises NotTogether for what has to be done one by
    one, and what the database raises; nothing is left behind then.
    """
    if not arrived:
        return
    consumer, once = arrived[0].claim.consumer, _once(arrived)
    wanted = {
        message_id: _wanted(each.reading, context) for message_id, each in once.items() if each.reading.is_of_interest
    }
    async with context.uow() as tx:
        if not wanted:
            _tell_of_all(once, await tx.inbox.claim_all(consumer, list(once)))
            return
        async with tx.together(consumer, list(once), wanted) as together:
            for number, each in enumerate([once[each] for each in once if each in together.claimed], 1):
                with each.correlated():
                    tell_of(each.reading)
                    believed = await _believed(together, each.reading, context)
                    await apply_reading(together, each.reading, believed, context)
                if number % WITHOUT_A_PAUSE == 0:
                    await context.clock.sleep(0)


def _once(arrived: Sequence[Arrived]) -> dict[str, Arrived]:
    """By message id: a message can be in a batch twice, where its broker has delivered it again."""
    first: dict[str, Arrived] = {}
    for each in arrived:
        first.setdefault(each.claim.message_id, each)
    return first


def _tell_of_all(arrived: Mapping[str, Arrived], claimed: Collection[str]) -> None:
    for message_id, each in arrived.items():
        if message_id in claimed:
            with each.correlated():
                tell_of(each.reading)


def _wanted(reading: Reading, context: Context) -> Wanted:
    webhook, event = reading.webhook, reading.event or GatewayEvent("")
    account = context.gateways.account_of(webhook.gateway, webhook.account)
    return Wanted(webhook.gateway, account, event.references, event.our_references)


async def _believed(together: RecordingTransaction, reading: Reading, context: Context) -> GatewayEvent | None:
    """``apply_webhook.ask_if_needed`` for what need not ask: the event, or None where its payment is not known.

    One that names no object is about the session that we know; where we know none, the gateway has to be asked.
    """
    event = reading.event
    if event is None or not reading.is_of_interest or reading.names_its_objects:
        return event
    wanted = _wanted(reading, context)
    payment_id = await together.payments.find(
        wanted.gateway, wanted.references, wanted.our_references, account=wanted.account
    )
    payment = await together.payments.get_for_update(payment_id) if payment_id is not None else None
    if payment is None or not context.gateways.has(payment.gateway, payment.account):
        return None
    if payment.gateway_reference is None:
        raise NotTogether("its gateway has to be asked")
    return event
