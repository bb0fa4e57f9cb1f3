"""The commands of CCAvenue's API, and what the panel and the banks do with an order's money."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from services.gateway_sandbox.domain.models import (
    BookDispute,
    BookEntry,
    BookRefund,
    DisputeStatus,
    EntryStatus,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_dispute, book_refund
from services.gateway_sandbox.gateways.ccavenue import objects
from services.gateway_sandbox.gateways.ccavenue.wire import (
    API,
    Json,
    Keys,
    amount_of,
    check_fields,
    command_payload,
    day_of,
    form_of,
    refused,
    start_of,
    text_of,
)
from services.gateway_sandbox.gateways.port import Books, EntryFilter, Handler, WireAnswer, WireCall, WireRoute

ROWS_PER_PAGE = 25

_REFUND_REFERENCE = re.compile(r"[A-Za-z0-9]{1,30}")
_LOOKUP_FIELDS = frozenset(
    "from_date to_date order_no reference_no order_status order_currency order_payment_type order_min_amount "
    "order_max_amount page_number".split()
)
_REFUND_FIELDS = frozenset({"reference_no", "refund_amount", "refund_ref_no"})
_ORDER_FIELDS = frozenset({"reference_no", "amount"})
NOTHING = {"error_desc": "No records found", "error_code": "51419"}

Tell = Callable[[BookEntry, Books], None]


class MoneyCalls:
    """``tell`` announces an order's status as it is now."""

    def __init__(self, keys: Keys, tell: Tell) -> None:
        self._keys = keys
        self._tell = tell
        self.routes: Sequence[WireRoute] = (
            command("orderStatusTracker", "retrieve", self.track),
            command("orderLookup", "list", self.look_up),
            command("getRefundDetails", "retrieve", self.list_refunds),
            command("confirmOrder", "capture", self.confirm, also=("complete",)),
            command("cancelOrder", "void", self.cancel),
            command("refundOrder", "refund", self.refund),
        )

    # --- asking ----------------------------------------------------------------------------------------------------

    async def track(self, call: WireCall, books: Books) -> WireAnswer:
        """By its own reference, or by the shop's number: then the newest of those that share it."""
        payload = command_payload(call, self._keys, "1.2", frozenset({"reference_no", "order_no"}), frozenset())
        if not payload:
            raise refused("51401", "Required parameter missing")
        if "reference_no" in payload:
            entry = await _entry(text_of(payload, "reference_no"), books)
        else:
            found = await books.search(EntryFilter(reference=text_of(payload, "order_no"), limit=1))
            entry = found[0] if found else None
        if entry is None or payload.get("order_no", entry.reference) != entry.reference:
            return self._keys.answer({"status": 1, "error_desc": "No records found", "error_code": "51313"})
        return self._keys.answer(objects.found(entry, books.word(objects.status_word(entry))))

    async def look_up(self, call: WireCall, books: Books) -> WireAnswer:
        """By whole days of India."""
        payload = command_payload(call, self._keys, "1.2", _LOOKUP_FIELDS, frozenset({"from_date", "page_number"}))
        first, last, number = day_of(payload, "from_date"), day_of(payload, "to_date"), payload["page_number"]
        assert first is not None, "it is required"
        if type(number) is not int or number < 1:
            raise refused("51405", "Invalid page_number")
        order_no = text_of(payload, "order_no") if "order_no" in payload else None
        before = start_of(last + timedelta(days=1)) if last is not None else None
        entries = await books.search(
            EntryFilter(reference=order_no, created_from=start_of(first), created_before=before)
        )
        if "reference_no" in payload:
            entries = [entry for entry in entries if entry.gateway_reference == payload["reference_no"]]
        rows = [objects.order(entry, books.word(objects.status_word(entry))) for entry in entries]
        shown = rows[(number - 1) * ROWS_PER_PAGE : number * ROWS_PER_PAGE]
        if not shown:
            return self._keys.answer({"order_Status_List": [], "page_count": 0, "total_records": 0, **NOTHING})
        pages = -(-len(rows) // ROWS_PER_PAGE)
        totals = {"page_count": pages, "total_records": len(rows), "error_desc": "", "error_code": ""}
        return self._keys.answer({"order_Status_List": shown, **totals})

    async def list_refunds(self, call: WireCall, books: Books) -> WireAnswer:
        fields = frozenset({"reference_no"})
        payload = command_payload(call, self._keys, "1.1", fields, fields)
        entry = await _entry(text_of(payload, "reference_no"), books)
        refunds = await books.refunds_of(entry) if entry is not None else []
        if entry is None or not refunds:
            return self._keys.answer({"refund_list": [], **NOTHING})
        rows = [objects.refund(each, entry.currency, books.word(objects.refund_word(each))) for each in refunds]
        # One alone comes as an object, as in the XML that this was made from.
        listed: Any = rows if len(rows) > 1 else rows[0]
        return self._keys.answer({"refund_list": listed, "error_desc": "", "error_code": ""})

    # --- confirming and cancelling -----------------------------------------------------------------------------------

    async def confirm(self, call: WireCall, books: Books) -> WireAnswer:
        return await self._each(call, books, self._confirm)

    async def cancel(self, call: WireCall, books: Books) -> WireAnswer:
        return await self._each(call, books, self._cancel)

    async def _each(self, call: WireCall, books: Books, move: Callable[[BookEntry, int, Books], Any]) -> WireAnswer:
        payload = command_payload(call, self._keys, "1.1", frozenset({"order_List"}), frozenset({"order_List"}))
        wanted = payload["order_List"]
        if not isinstance(wanted, list) or not wanted:
            raise refused("51401", "Required parameter missing")
        failed: list[Json] = []
        for each in wanted:
            check_fields(each, _ORDER_FIELDS, _ORDER_FIELDS)
            entry = await _entry(text_of(each, "reference_no"), books, for_update=True)
            code = "51304" if entry is None else _why_not(entry)
            if entry is not None and code is None:
                code = await move(entry, amount_of(each["amount"], entry.currency), books)
            if code is not None:
                failed.append({"reference_no": each["reference_no"], "reason": "Refused", "error_code": code})
        body = {"success_count": len(wanted) - len(failed), "failed_List": failed, "error_desc": "", "error_code": ""}
        return self._keys.answer(body)

    async def _confirm(self, entry: BookEntry, amount_minor: int, books: Books) -> str | None:
        if amount_minor > entry.amount_minor:
            return "51306"
        await self.capture_in_dashboard(entry, amount_minor, books)
        return None

    async def _cancel(self, entry: BookEntry, amount_minor: int, books: Books) -> str | None:
        if amount_minor != entry.amount_minor:
            return "51306"
        entry.release()
        entry.details["voided"] = True
        await self._moved(entry, "void", entry.amount_minor, books)
        return None

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        """Once; the rest of a part goes back by itself."""
        entry.take(amount_minor, final=True)
        await self._moved(entry, "capture", amount_minor, books)

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        entry.lapse()
        entry.details["lapsed"] = True
        await self._moved(entry, "expire_hold", entry.amount_minor, books)

    # --- refunds -----------------------------------------------------------------------------------------------------

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        payload = command_payload(call, self._keys, "1.1", _REFUND_FIELDS, _REFUND_FIELDS)
        reference = text_of(payload, "refund_ref_no")
        if not _REFUND_REFERENCE.fullmatch(reference):
            raise refused("51085", "Refund reference number is invalid")
        entry = await _entry(text_of(payload, "reference_no"), books, for_update=True)
        code = await _why_no_refund(entry, reference, payload, books)
        if code is not None or entry is None:
            return self._keys.answer({"refund_status": 1, "reason": "Refused", "error_code": code or "51310"})
        await self._refund(entry, reference, amount_of(payload["refund_amount"], entry.currency), books, reference)
        return self._keys.answer({"refund_status": 0, "reason": "", "error_code": ""})

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._refund(entry, books.new_id("panel", 15), amount_minor, books, None)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if not refund.move(status, entry):
            return
        await books.save_refund(entry, refund, f"refund_{status}")
        await self._count_refunds(entry, books)

    async def _refund(
        self, entry: BookEntry, refund_id: str, amount_minor: int, books: Books, reference: str | None
    ) -> BookRefund:
        made = await book_refund(entry, refund_id, amount_minor, books, reference=reference)
        if made.status == "succeeded":
            await self._count_refunds(entry, books)
        return made

    async def _count_refunds(self, entry: BookEntry, books: Books) -> None:
        entry.details["has_refund"] = objects.has_refund(await books.refunds_of(entry))
        await self._moved(entry, "status", None, books)

    # --- disputes ----------------------------------------------------------------------------------------------------

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        dispute_id = f"{entry.gateway_reference}-chargeback"
        dispute = await book_dispute(entry, dispute_id, amount_minor, reason or "chargeback", books)
        entry.details["chargeback"] = True
        await self._moved(entry, "status", None, books)
        return dispute

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        """In the shop's favour it is an ordinary order again; lost, it stays what it is, and nobody is told."""
        if not dispute.close(status, books.now):
            return
        entry.details["chargeback"] = status == "lost"
        await books.save_dispute(entry, dispute, f"dispute_{status}")
        if status == "won":
            await self._moved(entry, "status", None, books)

    async def _moved(self, entry: BookEntry, operation: str, amount_minor: int | None, books: Books) -> None:
        entry.details["moved_at"] = books.now.isoformat()
        entry.hold_expires_at = None
        await books.record(entry, operation, amount_minor)
        self._tell(entry, books)


def command(name: str, operation: str, handler: Handler, *, also: tuple[str, ...] = ()) -> WireRoute:
    """One address serves all commands; the envelope names them."""

    def wants(call: WireCall) -> bool:
        return form_of(call).get("command") == name

    return WireRoute("POST", API, operation, handler, wants, also)


async def _entry(reference: str, books: Books, *, for_update: bool = False) -> BookEntry | None:
    entry = await books.find(reference, for_update=for_update)
    return entry if entry is not None and entry.gateway_reference == reference else None


def _why_not(entry: BookEntry) -> str | None:
    """Why an order can be neither confirmed nor cancelled; None where it can."""
    if entry.is_held():
        return None
    if entry.captured_minor:
        return "51301"
    return "51302" if entry.status is EntryStatus.CANCELED else "51303"


async def _why_no_refund(entry: BookEntry | None, reference: str, payload: Json, books: Books) -> str | None:
    if entry is None:
        return "51308"
    if await books.find_refund(reference) is not None:
        return "51309"
    if not entry.captured_minor:
        return "51310"
    amount_minor = amount_of(payload["refund_amount"], entry.currency)
    return "51314" if amount_minor > entry.refundable_minor else None
