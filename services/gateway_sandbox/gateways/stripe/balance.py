"""Stripe's balance transactions: what moved, and each day's payouts at the midnight after it, newest first.

Amounts are Stripe's minor units, the fee has its tax in it. The ids are those of the reconciliation's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import groupby

from services.gateway_sandbox.gateways.bookkeeping import payouts_of
from services.gateway_sandbox.gateways.port import (
    Books,
    Payout,
    PayoutTerms,
    SettlementKind,
    SettlementLine,
    WireAnswer,
    WireCall,
)
from services.gateway_sandbox.gateways.stripe import errors, objects
from services.gateway_sandbox.gateways.stripe.form import Parameters, parse_pairs
from services.gateway_sandbox.gateways.stripe.money import to_wire
from services.gateway_sandbox.gateways.stripe.objects import Json
from services.gateway_sandbox.gateways.stripe.reading import slice_of, window_of
from services.gateway_sandbox.gateways.wording import worded

TERMS = PayoutTerms(("USD", "EUR"), "po_{day:%Y%m%d}{currency}", "ST{day:%Y%m%d}{currency}")
_PARAMETERS = frozenset({"created", "currency", "type", "limit", "starting_after", "expand"})
_EXPANDED = "data.source"
_LONGEST_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_KINDS: dict[SettlementKind, tuple[str, str]] = {
    "capture": ("charge", "charge"),
    "refund": ("refund", "refund"),
    "dispute": ("adjustment", "dispute"),
}


async def list_balance_transactions(call: WireCall, books: Books) -> WireAnswer:
    query = Parameters(parse_pairs(call.query))
    query.allow_only(_PARAMETERS)
    unknown = [path for path in query.texts("expand") if path != _EXPANDED]
    if unknown:
        raise errors.invalid_parameter(f"This property cannot be expanded ({unknown[0]}).", param="expand")
    first, last = window_of(query)
    since, until = first or _LONGEST_AGO, min(last or books.now, books.now + timedelta(seconds=1))
    rows = await _rows(books, since, until, is_expanded=query.has("expand"))
    rows = [row for row in rows if query.text("type") in (None, row["type"])]
    rows = [row for row in rows if query.text("currency") in (None, row["currency"])]
    rows.sort(key=lambda row: (row["created"], row["id"]), reverse=True)
    shown, has_more = slice_of(rows, query)
    page = objects.as_list(shown, "/v1/balance_transactions", has_more=has_more)
    return WireAnswer.json(200, worded(page, books, "status"))


async def _rows(books: Books, since: datetime, until: datetime, *, is_expanded: bool) -> list[Json]:
    moved = await books.movements(since - timedelta(days=1), until)
    rows = []
    for line in moved:
        if line.at >= since:
            source = await _source(line, books) if is_expanded else _source_id(line)
            rows.append(_movement(line, source))
    for payout, at in _payouts(moved):
        if since <= at < until:
            source = {"id": payout.reference, "object": "payout"} if is_expanded else payout.reference
            rows.append(_paid_out(payout, at, source))
    return rows


def _payouts(moved: Sequence[SettlementLine]) -> Iterator[tuple[Payout, datetime]]:
    for day, lines in groupby(moved, key=lambda line: line.at.astimezone(UTC).date()):
        at = datetime.combine(day, time(), UTC) + timedelta(days=1)
        for payout in payouts_of(list(lines), TERMS, day).values():
            yield payout, at


def _movement(line: SettlementLine, source: Json | str) -> Json:
    currency, (kind, category) = line.entry.currency, _KINDS[line.kind]
    fee = to_wire(line.fee_minor + line.tax_minor, currency)
    fees = [{"amount": fee, "currency": currency.lower(), "type": "stripe_fee"}] if fee else []
    row = _row(f"txn_{line.object_id.partition('_')[2]}", kind, category, to_wire(line.gross_minor, currency), currency)
    created = objects.unix(line.at)
    return {**row, "created": created, "available_on": created, "fee": fee, "fee_details": fees, "source": source} | {
        "net": row["amount"] - fee
    }


def _paid_out(payout: Payout, at: datetime, source: Json | str) -> Json:
    amount = -to_wire(payout.amount_minor, payout.currency)
    row = _row(f"txn_{payout.reference[3:]}", "payout", "payout", amount, payout.currency)
    return {**row, "created": objects.unix(at), "available_on": objects.unix(at), "source": source}


def _row(identifier: str, kind: str, category: str, amount: int, currency: str) -> Json:
    return {
        "id": identifier,
        "object": "balance_transaction",
        "amount": amount,
        "currency": currency.lower(),
        "description": None,
        "exchange_rate": None,
        "fee": 0,
        "fee_details": [],
        "net": amount,
        "reporting_category": category,
        "status": "available",
        "type": kind,
    }


def _source_id(line: SettlementLine) -> str:
    return (objects.latest_charge_id(line.entry) or line.object_id) if line.kind == "capture" else line.object_id


async def _source(line: SettlementLine, books: Books) -> Json | str:
    """The object that moved, whole."""
    if line.kind == "capture":
        return objects.charge(line.entry) if objects.latest_charge_id(line.entry) else line.object_id
    if line.kind == "refund":
        refund = await books.find_refund(line.object_id)
        return objects.refund(line.entry, refund) if refund is not None else line.object_id
    dispute = await books.find_dispute(line.object_id)
    return objects.dispute(line.entry, dispute, books.now) if dispute is not None else line.object_id
