"""Disputes and Transaction Search, written from the books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.paypal import objects
from services.gateway_sandbox.gateways.paypal.errors import invalid, not_found
from services.gateway_sandbox.gateways.paypal.objects import Records, records_of
from services.gateway_sandbox.gateways.paypal.wire import Json
from services.gateway_sandbox.gateways.port import Books, EntryFilter, SettlementLine, WireAnswer, WireCall
from services.gateway_sandbox.gateways.wording import worded

LONGEST_WINDOW = timedelta(days=31)
_HISTORY = timedelta(days=366)
_LARGEST_PAGE = 500
_QUERY = frozenset({"start_date", "end_date", "fields", "page_size", "page", "transaction_id"})


async def list_disputes(call: WireCall, books: Books, base_url: str) -> WireAnswer:
    query = dict(call.query)
    transaction = query.get("disputed_transaction_id")
    since = _moment(query, "start_time")
    if transaction is not None:
        entry = await books.find(transaction)
        entries = [entry] if entry is not None else []
    else:
        entries = await books.search(EntryFilter(paid_only=True, limit=1000))
    items = [
        objects.dispute(entry, dispute, base_url)
        for entry in entries
        for dispute in await books.disputes_of(entry)
        if (transaction is None or dispute.details["capture_id"] == transaction)
        and (since is None or dispute.created_at >= since)
    ]
    return WireAnswer.json(200, {"items": worded(items, books, "status"), "links": []})


async def show_dispute(call: WireCall, books: Books, base_url: str) -> WireAnswer:
    dispute = await books.find_dispute(call.path_values["id"])
    entry = await books.find(dispute.gateway_reference) if dispute else None
    if dispute is None or entry is None:
        raise not_found()
    return WireAnswer.json(200, worded(objects.dispute(entry, dispute, base_url), books, "status"))


async def search_transactions(call: WireCall, books: Books) -> WireAnswer:
    """Captures, refunds and lost disputes, oldest first. Real data lags up to three hours; this does not."""
    query = dict(call.query)
    if not set(query) <= _QUERY or query.get("fields", "transaction_info") != "transaction_info":
        raise invalid("INVALID_PARAMETER_VALUE", "/fields")
    start, end = _moment(query, "start_date"), _moment(query, "end_date")
    if start is None or end is None or not start <= end <= start + LONGEST_WINDOW:
        raise invalid("INVALID_DATE_RANGE", "/start_date")
    size, page = _number(query, "page_size", 100, _LARGEST_PAGE), _number(query, "page", 1, 10_000)
    entries = await books.search(EntryFilter(paid_only=True, created_from=start - _HISTORY))
    rows = [row for entry in entries for row in _rows(entry, await records_of(entry, books))]
    moved = {line.object_id: line for line in await books.movements(start, end + timedelta(seconds=1))}
    for _, info in rows:
        if (line := moved.get(info["transaction_id"])) is not None and line.fee_minor:
            fee_minor = line.fee_minor + line.tax_minor
            info["fee_amount"] = objects.money(-fee_minor, line.entry.currency)
    rows += [_chargeback(line) for line in moved.values() if line.kind == "dispute"]
    wanted = query.get("transaction_id")
    in_window = sorted(
        (row for row in rows if start <= row[0] <= end and wanted in (None, row[1]["transaction_id"])),
        key=lambda row: (row[0], row[1]["transaction_id"]),
    )
    shown = in_window[(page - 1) * size : page * size]
    infos = [{"transaction_info": info} for _, info in shown]
    return WireAnswer.json(
        200,
        {
            "transaction_details": worded(infos, books, "transaction_status"),
            "start_date": objects.stamp(start),
            "end_date": objects.stamp(end),
            "last_refreshed_datetime": objects.stamp(books.now),
            "page": page,
            "total_items": len(in_window),
            "total_pages": -(-len(in_window) // size),
            "links": [],
        },
    )


def _rows(entry: BookEntry, records: Records) -> list[tuple[datetime, Json]]:
    captures = [
        (
            each.created_at,
            _info(each.capture_id, "T0006", each.created_at, each.amount_minor, entry, each.details)
            | {"transaction_status": "P" if each.status == "pending" else "S"},
        )
        for each in records.captures
        if each.status != "failed"
    ]
    refunds = [
        (
            each.created_at,
            _info(each.refund_id, "T1107", each.created_at, -each.amount_minor, entry, each.details)
            | {
                "transaction_status": "P" if each.status == "pending" else "S",
                "paypal_reference_id": each.details["capture_id"],
                "paypal_reference_id_type": "TXN",
            },
        )
        for each in records.refunds
        if each.status in ("pending", "succeeded")
    ]
    return [*captures, *refunds]


def _chargeback(line: SettlementLine) -> tuple[datetime, Json]:
    info = _info(line.object_id, "T1201", line.at, line.gross_minor, line.entry, {})
    about = {"paypal_reference_id": line.parent_id, "paypal_reference_id_type": "TXN"} if line.parent_id else {}
    return line.at, {**info, **about, "transaction_status": "S"}


def _info(identifier: str, code: str, at: datetime, amount_minor: int, entry: BookEntry, details: Json) -> Json:
    return {
        "transaction_id": identifier,
        "transaction_event_code": code,
        "transaction_initiation_date": objects.stamp(at),
        "transaction_updated_date": objects.stamp(at),
        "transaction_amount": objects.money(amount_minor, entry.currency),
        "invoice_id": details.get("invoice_id"),
        "custom_field": details.get("custom_id") or entry.details.get("custom_id"),
    }


def _moment(query: dict[str, str], key: str) -> datetime | None:
    text = query.get(key)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise invalid("INVALID_PARAMETER_SYNTAX", f"/{key}") from None
    if found.tzinfo is None:
        raise invalid("INVALID_PARAMETER_SYNTAX", f"/{key}")
    return found.astimezone(UTC)


def _number(query: dict[str, str], key: str, otherwise: int, largest: int) -> int:
    text = query.get(key, str(otherwise))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= largest:
        raise invalid("INVALID_PARAMETER_VALUE", f"/{key}")
    return int(text)
