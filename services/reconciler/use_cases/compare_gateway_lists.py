"""Look through what gateways themselves list, for money that payment_service does not know of.

Windows overlap from run to run, so that what moves between two pages while they are read is met by the next run at the
latest (failure RC13). A gateway that is away is left out, and the run says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

import structlog

from services.reconciler.domain.cases import Finding
from services.reconciler.domain.decisions import MoneyState, money_of
from services.reconciler.domain.mirror import KnownPayment
from services.reconciler.domain.models import RunRequest
from services.reconciler.domain.order_findings import of_listed
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.act_on_case import sync_payment
from services.reconciler.use_cases.mirror_ports import ListedAtGateway
from services.reconciler.use_cases.order_cases import OrderCases
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.running import Progress
from shared.clock import to_rfc3339
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable

log = structlog.get_logger()

PHASE = "listing_gateways"
MOST_PAGES = 10_000
CANDIDATES = 10
MOST_LOOKED_UP = 200
"""Unknown payments of one list for which candidates are looked for: thousands are a wrong account's, not ours."""
CANDIDATES_WITHIN = timedelta(days=1)


async def compare_gateway_lists(
    cases: OrderCases, request: RunRequest, settled_before: datetime, context: Context, progress: Progress
) -> int:
    """Returns how many gateways could not be looked through. Raises ServiceUnavailable, GatewayOutcomeUnknown where
    payment_service itself does not say which there are."""
    since, until = _window(request, context)
    if not since < until:
        return 0
    missed = 0
    for gateway in await context.gateway_lists.gateways_with_lists():
        if request.gateway not in (None, gateway):
            continue
        async with context.uow() as tx:
            accounts = sorted({"", *await tx.mirror.accounts(gateway)})
        for account in accounts:
            look = _Look(cases, gateway, account, settled_before, context)
            try:
                await look.through(since, until, progress)
            except (GatewayUnavailable, GatewayOutcomeUnknown) as error:
                log.warning("gateway_not_listed", gateway=gateway, account=account, code=error.code)
                missed += 1
    return missed


def _window(request: RunRequest, context: Context) -> tuple[datetime, datetime]:
    rules, latest = context.order_rules, context.clock.now() - context.order_rules.list_lag
    until = min(request.window_to or latest, latest)
    return request.window_from or context.clock.now() - rules.list_window, until


class _Look:
    """Through the list of one account at one gateway."""

    def __init__(
        self, cases: OrderCases, gateway: str, account: str, settled_before: datetime, context: Context
    ) -> None:
        self._cases = cases
        self._gateway = gateway
        self._account = account
        self._settled_before = settled_before
        self._context = context
        self._looked_up = 0

    async def through(self, since: datetime, until: datetime, progress: Progress) -> None:
        cursor: str | None = None
        done = 0
        for _ in range(MOST_PAGES):
            page = await self._context.gateway_lists.page(self._gateway, self._account, since, until, cursor)
            with_money = [entry for entry in page.entries if entry.money is not None and _names(entry)]
            if with_money:
                async with self._context.uow() as tx:
                    await self._judge(tx, with_money)
            done += len(page.entries)
            await progress(PHASE, done)
            if page.next_cursor is None:
                return
            if page.next_cursor == cursor:
                raise GatewayOutcomeUnknown("the gateway's list does not end")
            cursor = page.next_cursor
        raise GatewayOutcomeUnknown("the gateway's list does not end")

    async def _judge(self, tx: ReconcilerTransaction, entries: Sequence[ListedAtGateway]) -> None:
        findings: dict[str, Finding] = {}
        for entry in entries:
            finding = await self._unknown(tx, entry) if entry.payment_id is None else await self._unseen(tx, entry)
            if finding is not None:
                findings[finding.key] = finding
        await self._cases.keep(tx, list(findings.values()))

    async def _unknown(self, tx: ReconcilerTransaction, entry: ListedAtGateway) -> Finding | None:
        assert entry.money is not None, "only what has money is judged"
        self._looked_up += 1
        if self._looked_up > MOST_LOOKED_UP:
            return self._finding(entry, ())
        near = entry.created_at or self._context.clock.now()
        found = await tx.mirror.candidates(
            self._gateway, entry.money, near=near, within=CANDIDATES_WITHIN, limit=CANDIDATES
        )
        candidates = [asdict(each) | {"created_at": to_rfc3339(each.created_at)} for each in found]
        return self._finding(entry, candidates)

    async def _unseen(self, tx: ReconcilerTransaction, entry: ListedAtGateway) -> Finding | None:
        """The gateway has money of a payment that shows none here: it is asked about, and is a case once it should
        have been known."""
        assert entry.payment_id is not None, "its payment is known"
        payment = await tx.mirror.payment(entry.payment_id)
        if payment is None or shows_money(payment):
            return None
        is_old = (entry.created_at or payment.created_at) <= self._settled_before
        if is_old and payment.updated_at <= self._settled_before:
            return self._finding(entry, ())
        await sync_payment(tx, entry.payment_id, run_id=self._cases.run_id, context=self._context)
        return None

    def _finding(self, entry: ListedAtGateway, candidates: Sequence[Mapping[str, object]]) -> Finding:
        assert entry.money is not None, "only what has money is judged"
        return of_listed(
            self._gateway,
            self._account,
            _names(entry),
            entry.money,
            payment_id=entry.payment_id,
            created_at=entry.created_at,
            candidates=candidates,
        )


def _names(entry: ListedAtGateway) -> tuple[str, ...]:
    return entry.references or entry.our_references


def shows_money(payment: KnownPayment) -> bool:
    is_conflicted = payment.status is PaymentStatus.CONFLICTED
    return is_conflicted or money_of(payment) not in (MoneyState.COMING, MoneyState.NONE, MoneyState.UNCLEAR)
