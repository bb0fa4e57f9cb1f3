"""Everything that this service knows of payments, and of webhooks that found none, as lines of JSON for the reconciler.

Pages go by the time of the last change: each is one short transaction, so a million payments need the memory of one
page, and nothing is open while the reader is slow. A payment that changes meanwhile moves on to a later page and comes
again. ``updated_at`` is set before its transaction commits, so a reader begins a little before where it ended last.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from services.payment_service.domain.snapshots import (
    Movement,
    PaymentSnapshot,
    movements,
    references,
    unknown_since,
)
from services.payment_service.use_cases.ports import Context, ParkedForAPerson, Position
from shared.clock import to_rfc3339

PAGE = 500
"""As fast as larger ones, and decoding one holds up other requests for some tens of milliseconds only."""
AT_ONCE = 100
"""So many documents are written before others get their turn: a page of them would hold up every request."""

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_encode = json.JSONEncoder(separators=(",", ":")).encode


async def export_payments(
    context: Context, *, since: datetime | None = None, before: datetime | None = None
) -> AsyncGenerator[bytes]:
    """Lines of the payments that were updated in ``[since, before)``, oldest change first, and their number at the end.

    Raises DatabaseUnavailable, which breaks the stream off: without its last line it is not whole.
    """
    count, after = 0, Position(since or _BEGINNING, "")
    while True:
        async with context.uow() as tx:
            page = await tx.exports.payments(after=after, before=before, limit=PAGE)
        for first in range(0, len(page), AT_ONCE):
            yield b"".join(_line("payment", payment_document(each)) for each in page[first : first + AT_ONCE])
            await context.clock.sleep(0)
        count += len(page)
        if len(page) < PAGE:
            break
        after = Position(page[-1].updated_at, page[-1].payment_id)
    yield _line("end", {"count": count})


async def export_parked_events(context: Context) -> AsyncGenerator[bytes]:
    """Lines of the webhooks that no payment claimed in time or nobody could read, oldest first."""
    count, after = 0, Position(_BEGINNING, "")
    while True:
        async with context.uow() as tx:
            page = await tx.exports.parked(after=after, limit=PAGE)
        if page:
            yield b"".join(_line("parked_event", _parked_document(each)) for each in page)
        count += len(page)
        if len(page) < PAGE:
            break
        after = Position(page[-1].received_at, page[-1].parked_id)
    yield _line("end", {"count": count})


def payment_document(payment: PaymentSnapshot) -> dict[str, Any]:
    """``shared.contracts.exports.ExportedPayment``, written without it: a model per row costs more than the row."""
    moved, since = movements(payment), unknown_since(payment)
    return {
        "payment_id": payment.payment_id,
        "order_id": payment.order_id,
        "gateway": payment.gateway,
        "account": payment.account,
        "status": payment.status,
        "version": payment.version,
        "amount": {"amount_minor": payment.amount_minor, "currency": payment.currency},
        **payment.totals,
        "outcome_unknown": payment.outcome_unknown,
        "unknown_since": to_rfc3339(since) if since is not None else None,
        "gateway_reference": payment.gateway_reference,
        "conflict": payment.conflict,
        "duplicate_of": payment.duplicate_of,
        "created_at": to_rfc3339(payment.created_at),
        "updated_at": to_rfc3339(payment.updated_at),
        "references": references(payment, moved),
        "movements": _movements(moved, payment.currency),
    }


def _movements(moved: Sequence[Movement], currency: str) -> list[dict[str, Any]]:
    return [
        {
            "kind": movement.kind,
            "reference": movement.reference,
            "our_reference": movement.our_reference,
            "amount_minor": movement.amount_minor,
            "currency": currency,
            "occurred_at": to_rfc3339(movement.occurred_at),
        }
        for movement in moved
    ]


def _parked_document(parked: ParkedForAPerson) -> dict[str, Any]:
    return {
        "parked_id": parked.parked_id,
        "gateway": parked.gateway,
        "account": parked.account,
        "delivery_id": parked.delivery_id,
        "event_type": parked.event_type,
        "status": parked.status,
        "references": list(parked.references),
        "received_at": to_rfc3339(parked.received_at),
    }


def _line(kind: str, document: Mapping[str, Any]) -> bytes:
    return _encode({kind: document}).encode() + b"\n"
