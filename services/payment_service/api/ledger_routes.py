"""The sub-ledger: balances and entries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from services.payment_service.api.dependencies import PaymentsReader, UseCaseContext
from services.payment_service.api.fields import GatewayName, OptionalStorable
from services.payment_service.api.ledger_schemas import (
    BalancesOut,
    CurrencyIn,
    EntryCursor,
    EntryOut,
    EntryPage,
)
from services.payment_service.domain.ledger import Account
from services.payment_service.use_cases.ports import LedgerFilter
from services.payment_service.use_cases.read_ledger import read_balances, read_entries
from shared.web.moments import MomentIn
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1/ledger", tags=["ledger"])

_RESPONSES = problem_responses(401, 403, 422, 503)


@router.get("/balances", responses=_RESPONSES)
async def get_balances(
    context: UseCaseContext,
    _: PaymentsReader,
    gateway: GatewayName | None = None,
    currency: CurrencyIn | None = None,
    at: Annotated[MomentIn | None, Query(description="as it was at this moment; now, where it is left out")] = None,
) -> BalancesOut:
    """Every account's balance, per gateway and currency, with the trial balance."""
    return BalancesOut.of(await read_balances(context, gateway=gateway, currency=currency, at=at))


@router.get("/entries", responses=_RESPONSES)
async def list_entries(
    context: UseCaseContext,
    _: PaymentsReader,
    payment_id: Annotated[str | None, Query(max_length=100), OptionalStorable] = None,
    account: Annotated[Account | None, Query(description="entries with a posting to this account")] = None,
    gateway: GatewayName | None = None,
    cursor: EntryCursor | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EntryPage:
    """Entries with all their postings, newest first."""
    filter_ = LedgerFilter(payment_id, account, gateway)
    before = int(cursor) if cursor is not None else None
    page, next_before = await read_entries(context, filter_, before=before, limit=limit)
    next_cursor = str(next_before) if next_before is not None else None
    return EntryPage(data=[EntryOut.of(entry) for entry in page], next_cursor=next_cursor)
