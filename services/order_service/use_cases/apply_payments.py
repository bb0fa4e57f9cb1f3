"""Take in the news of many payments in one transaction.

The rules are ``apply_payment``'s, called once for each event in the order of arrival. Only the transaction differs: it
reads for all of them at once, lets later events see what earlier ones did, and writes at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from services.order_service.domain.models import PaymentSnapshot, Refund
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.settle_order import apply_payment
from services.order_service.use_cases.settling_ports import PaymentBatchFactory

WITHOUT_A_PAUSE = 10
"""Events: memory answers at once, so nobody else in this process would have a turn for as long as a batch takes."""


@dataclass(frozen=True, slots=True)
class PaymentNews:
    """What one event says. ``refund`` comes with the events of refunds; ``within`` ties what happens to the event."""

    message_id: str
    payment: PaymentSnapshot
    refund: Refund | None
    within: Callable[[], AbstractContextManager[None]]


async def apply_payments(
    consumer: str, news: Sequence[PaymentNews], *, batches: PaymentBatchFactory, deps: Dependencies
) -> None:
    """All of them, or none; those that were claimed before are skipped. Raises what applying any of them raises."""
    async with batches() as batch:
        unclaimed = await batch.inbox.claim_all(consumer, [each.message_id for each in news])
        mine = []
        for each in news:
            if each.message_id in unclaimed:
                unclaimed.discard(each.message_id)  # the same message twice in one batch is one message
                mine.append(each)
        refund_ids = [each.refund.refund_id for each in mine if each.refund is not None]
        await batch.load([each.payment for each in mine], refund_ids=refund_ids)
        for number, each in enumerate(mine, 1):
            with each.within():
                await apply_payment(
                    batch,
                    each.payment,
                    now=deps.ports.clock.now(),
                    deps=deps,
                    refund=each.refund,
                    causation_id=each.message_id,
                )
            if number % WITHOUT_A_PAUSE == 0:
                await deps.ports.clock.sleep(0)
