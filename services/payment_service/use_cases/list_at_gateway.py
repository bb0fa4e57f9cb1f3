"""What a gateway itself lists for a window of time, beside what we know of each payment in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.payment_service.domain.errors import CapabilityNotSupported
from services.payment_service.gateways.port import Capability, Listed
from services.payment_service.use_cases.ports import Context
from shared.errors import InvalidRequest

FIRST_YEAR, LAST_YEAR = 2000, 2200
"""Adapters look a little further on both sides, which must stay a time."""


@dataclass(frozen=True, slots=True)
class ListedPayment:
    """``payment_id`` None: the gateway has it and we do not."""

    listed: Listed
    payment_id: str | None


@dataclass(frozen=True, slots=True)
class ListedPage:
    entries: Sequence[ListedPayment]
    next_cursor: str | None


async def list_at_gateway(
    gateway: str, since: datetime, until: datetime, context: Context, *, account: str | None, cursor: str | None
) -> ListedPage:
    """One page. Raises GatewayNotEnabled, CapabilityNotSupported where the gateway has no list, InvalidRequest for a
    window that is none, or a GatewayError."""
    if not since < until or not FIRST_YEAR <= since.year <= until.year < LAST_YEAR:
        raise InvalidRequest("a window ends after it begins, and is of this age")
    account = context.gateways.account_of(gateway, account)
    adapter = context.gateways.get(gateway, account)
    if Capability.LIST_BY_WINDOW not in adapter.facts.capabilities:
        reason = adapter.facts.not_offered.get(Capability.LIST_BY_WINDOW, "not offered")
        raise CapabilityNotSupported(f"{gateway} cannot list its payments: {reason}")
    page = await adapter.list_window(since, until, cursor=cursor)
    entries = []
    async with context.uow() as tx:
        for listed in page.entries:
            known = await tx.payments.find(gateway, listed.references, listed.our_references, account=account)
            entries.append(ListedPayment(listed, known))
    return ListedPage(entries, page.next_cursor)
