"""What happened to a payment, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.payment_service.domain.case_timeline import unresolved
from services.payment_service.domain.models import Payment, PaymentStatus
from services.payment_service.domain.timeline import EntryKind, TimelineEntry, in_time_order, without_told
from services.payment_service.domain.transitions import is_late_success
from services.payment_service.domain.verdict import verdict
from services.payment_service.use_cases.ports import Context
from shared.errors import NotFound

MAX_ENTRIES = 1_000
"""A payment has dozens; a gateway that repeats itself for days must not make an answer of megabytes."""


@dataclass(frozen=True, slots=True)
class PaymentTimeline:
    payment: Payment
    verdict: str
    entries: Sequence[TimelineEntry]
    is_complete: bool
    """False where only the newest entries are shown."""


async def read_timeline(payment_id: str, context: Context) -> PaymentTimeline:
    """Raises NotFound. Facts that were learnt before there was a timeline are told from the facts themselves."""
    async with context.uow() as tx:
        payment = await tx.payments.get(payment_id)
        if payment is None:
            raise NotFound
        attempt = await tx.attempts.latest(payment_id)
        operations = await tx.operations.of_payment(payment_id)
        disputes = await tx.disputes.of_payment(payment_id)
        written = await tx.timeline.of_payment(payment_id, limit=MAX_ENTRIES + 1)
        facts = await tx.timeline.facts_of(payment_id, limit=MAX_ENTRIES + 1)
    # Of a payment with more entries than are shown, the oldest facts are out of sight and not untold.
    untold = without_told(facts, written) if len(written) <= MAX_ENTRIES else []
    entries = in_time_order(written, untold)
    return PaymentTimeline(
        payment=payment,
        verdict=verdict(
            payment,
            attempt,
            operations,
            disputes,
            late_after=_given_up_as(written),
            open_cases=unresolved(written),
        ),
        entries=entries[-MAX_ENTRIES:],
        is_complete=len(entries) <= MAX_ENTRIES,
    )


def _given_up_as(entries: Iterable[TimelineEntry]) -> PaymentStatus | None:
    """The status in which the payment had been given up when its money came, if that is what happened."""
    for entry in entries:
        if entry.kind is EntryKind.STATUS:
            before, after = PaymentStatus(entry.details["from"]), PaymentStatus(entry.details["to"])
            if is_late_success(before, after):
                return before
    return None
