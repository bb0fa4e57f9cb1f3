"""Razorpay's settlements and their reconciliation: integers in sub-units, a fee that includes its tax."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import groupby
from typing import NamedTuple

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.gateways.bookkeeping import paid_out, payouts_of
from services.gateway_sandbox.gateways.port import (
    Books,
    Payout,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
)
from services.gateway_sandbox.gateways.razorpay import errors, fields, objects
from services.gateway_sandbox.gateways.razorpay.money import page
from services.gateway_sandbox.gateways.razorpay.objects import Json
from services.gateway_sandbox.gateways.wording import worded

_TYPE = {"capture": "payment", "refund": "refund", "dispute": "adjustment"}


TERMS = PayoutTerms(("INR", "USD"), "setl_{day:%Y%m%d}{number:06d}", "UTR{day:%Y%m%d}{number:04d}")
_INDIA = timezone(timedelta(hours=5, minutes=30))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_ROWS = 1000
_RECON_QUERY = frozenset({"year", "month", "day", "count", "skip"})
_SETTLEMENTS_QUERY = frozenset({"from", "to", "count", "skip"})


async def list_recon(call: WireCall, books: Books) -> WireAnswer:
    """What was settled on a day of India's calendar, or in a month; here what moved is settled on its own day."""
    query = dict(call.query)
    fields.only(query, _RECON_QUERY)
    year, month = (fields.whole_number(query, key, default=0, most=9999) for key in ("year", "month"))
    day = fields.whole_number(query, "day", default=0, most=31)
    count = fields.whole_number(query, "count", default=10, most=_MOST_ROWS)
    skip = fields.whole_number(query, "skip", default=0, most=10**9)
    try:
        first = datetime(year, month, day or 1, tzinfo=_INDIA)
    except ValueError:
        raise errors.invalid("The date is invalid.", field="day") from None
    days = 1 if day else monthrange(year, month)[1]
    rows = [row for settled in await _settled(books, first, first + timedelta(days=days)) for row in settled.rows]
    return WireAnswer.json(200, objects.collection(rows[skip : skip + count]))


async def list_settlements(call: WireCall, books: Books) -> WireAnswer:
    settled = await _settled(books, _EPOCH, books.now)
    items = [_settlement(each, payout) for each in settled for payout in each.payouts]
    return WireAnswer.json(200, worded(page(items, call, _SETTLEMENTS_QUERY), books, "status"))


class _Settled(NamedTuple):
    day: date
    lines: Sequence[SettlementLine]
    payouts: Sequence[Payout]

    @property
    def rows(self) -> list[Json]:
        return [_row(line, self.day) for line in self.lines]


async def _settled(books: Books, since: datetime, until: datetime) -> list[_Settled]:
    """By day of India, oldest first."""
    found = []
    moved = await books.movements(since, until)
    for day, lines in groupby(moved, key=lambda line: line.at.astimezone(_INDIA).date()):
        own = list(lines)
        payouts = payouts_of(own, TERMS, day)
        found.append(_Settled(day, paid_out(own, payouts), list(payouts.values())))
    return found


def _settlement(settled: _Settled, payout: Payout) -> Json:
    lines = [line for line in settled.lines if line.payout == payout]
    return {
        "id": payout.reference,
        "entity": "settlement",
        "amount": payout.amount_minor,
        "status": "processed",
        "fees": sum(line.fee_minor + line.tax_minor for line in lines),
        "tax": sum(line.tax_minor for line in lines),
        "utr": payout.bank_reference,
        "created_at": _settled_at(settled.day),
    }


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    body = objects.collection([_row(line, day) for line in lines])
    return SettlementFile(f"settlement-recon-{day:%Y-%m-%d}.json", "application/json", to_json(body).encode())


def _settled_at(day: date) -> int:
    return objects.unix(datetime.combine(day, time(), _INDIA) + timedelta(days=1, seconds=-1))


def _row(line: SettlementLine, day: date) -> Json:
    """A payment's row names itself by ``entity_id`` alone; only what takes from a payment has a ``payment_id``."""
    entry, is_payment = line.entry, line.kind == "capture"
    row = {
        "entity_id": f"adj_{line.object_id.partition('_')[2]}" if line.kind == "dispute" else line.object_id,
        "type": _TYPE[line.kind],
        "debit": max(-line.net_minor, 0),
        "credit": max(line.net_minor, 0),
        "amount": line.written(line.amount_minor),
        "currency": entry.currency,
        "fee": line.fee_minor + line.tax_minor,
        "tax": line.tax_minor,
        "on_hold": False,
        "settled": True,
        "created_at": objects.unix(line.at),
        "settled_at": _settled_at(day),
        "settlement_id": line.payout.reference,
        "settlement_utr": line.payout.bank_reference,
        "payment_id": None if is_payment else entry.payment_reference,
    }
    if line.kind == "dispute":  # adjustments lack the rest
        return {**row, "dispute_id": line.object_id}
    return {
        **row,
        "order_id": entry.details["order_id"],
        "order_receipt": entry.reference,
        "method": "card",
        "description": None,
        "notes": to_json(entry.metadata),
        "dispute_id": None,
    }
