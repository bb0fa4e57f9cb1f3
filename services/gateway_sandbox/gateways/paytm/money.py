"""Orders asked about, refunds, and the passbook's list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, BookRefund, EntryStatus, RefundStatus
from services.gateway_sandbox.gateways.bookkeeping import book_refund
from services.gateway_sandbox.gateways.paytm import events, objects
from services.gateway_sandbox.gateways.paytm.wire import (
    TRANSACTION,
    Json,
    Wire,
    amount_of,
    identifier_of,
    order_id_of,
    text_of,
)
from services.gateway_sandbox.gateways.port import Books, EntryFilter, WireAnswer, WireCall, WireError, WireRoute
from services.gateway_sandbox.gateways.wording import worded

_REFUND_REQUIRED = frozenset({"mid", "txnType", "orderId", "txnId", "refId", "refundAmount"})
_REFUND_OPTIONAL = frozenset({"comments", "disableMerchantDebitRetry", "agentInfo", "refundItems"})
_LIST_REQUIRED = frozenset(
    {"mid", "fromDate", "toDate", "orderSearchType", "orderSearchStatus", "pageNumber", "pageSize"}
)
_LIST_OPTIONAL = frozenset({"isSort", "merchantOrderId", "payMode"})
_INVALID = "1001"
_SMALLEST_PAGE, _LARGEST_PAGE = 20, 50

# Codes of refused refunds are the sandbox's own choice.
_REFUND_REFUSED, _DUPLICATE_REFUND, _TOO_MUCH = "600", "617", "619"

_PAYMENTS_LISTED = {
    "SUCCESS": EntryStatus.COMPLETED,
    "FAILURE": EntryStatus.FAILED,
    "PENDING": EntryStatus.PROCESSING,
}
_REFUNDS_LISTED = {"SUCCESS": ("succeeded",), "FAILURE": ("failed", "reversed"), "PENDING": ("pending",)}


class MoneyCalls:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/v3/order/status", "retrieve", self.order_status),
            WireRoute("POST", "/refund/apply", "refund", self.apply_refund),
            WireRoute("POST", "/v2/refund/status", "retrieve", self.refund_status),
            WireRoute("POST", "/merchant-passbook/search/list/order/v2", "list", self.list_orders),
        )

    async def order_status(self, call: WireCall, books: Books) -> WireAnswer:
        required = frozenset({"mid", "orderId"})
        body = self._wire.read(call, TRANSACTION, required=required, optional=frozenset({"txnType"}))
        entry = await books.find(order_id_of(body, TRANSACTION))
        if entry is None or entry.gateway_reference != body["orderId"]:
            return self._answer({"resultInfo": objects.result_info(objects.NO_RECORD)}, books)
        return self._answer(objects.order(entry, await _refunded(entry, books)), books)

    # --- refunds -----------------------------------------------------------------------------------------------

    async def apply_refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = self._wire.read(call, TRANSACTION, required=_REFUND_REQUIRED, optional=_REFUND_OPTIONAL)
        ref_id, reason = identifier_of(body, "refId", TRANSACTION), text_of(body, "comments", TRANSACTION)
        amount_minor = amount_of(body["refundAmount"], TRANSACTION)
        entry = await books.find(order_id_of(body, TRANSACTION), for_update=True)
        if entry is None or entry.payment_reference != body["txnId"] or body["txnType"] != "REFUND":
            raise TRANSACTION(_REFUND_REFUSED, "The refund request does not fit any transaction")
        if await books.find_refund(ref_id) is not None:
            raise TRANSACTION(_DUPLICATE_REFUND, "A refund was already raised under this refId")
        if amount_minor > entry.refundable_minor:
            raise TRANSACTION(_TOO_MUCH, "The refund amount is greater than what is left of the transaction")
        refund = await self.book(entry, ref_id, amount_minor, books, reference=ref_id, reason=reason or None)
        return self._wire.answer(objects.refund_accepted(entry, refund), books.now)

    async def refund_status(self, call: WireCall, books: Books) -> WireAnswer:
        body = self._wire.read(call, TRANSACTION, required=frozenset({"mid", "orderId", "refId"}))
        refund = await books.find_refund(identifier_of(body, "refId", TRANSACTION))
        entry = await books.find(order_id_of(body, TRANSACTION))
        if refund is None or entry is None or refund.gateway_reference != entry.gateway_reference:
            return self._answer({"resultInfo": objects.result_info(objects.NO_REFUND)}, books)
        return self._answer(objects.refund_status(entry, refund, await _refunded(entry, books)), books)

    async def book(
        self,
        entry: BookEntry,
        ref_id: str,
        amount_minor: int,
        books: Books,
        *,
        reference: str | None,
        reason: str | None = None,
    ) -> BookRefund:
        """``ref_id`` is what a refund is asked about by, so it is its name in the books; Paytm's own id goes along."""
        details = {"refundId": new_number(self._wire, books.now)}
        refund = await book_refund(
            entry, ref_id, amount_minor, books, reference=reference, reason=reason, details=details
        )
        events.refund_moved(entry, refund, self._wire, books)
        if refund.status == "succeeded":
            events.refund_moved(entry, refund, self._wire, books, is_credited=True)
        return refund

    async def settle(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if not refund.move(status, entry):
            return
        await books.save_refund(entry, refund, f"refund_{status}")
        is_credited = status == "succeeded"
        events.refund_moved(entry, refund, self._wire, books, is_credited=is_credited, is_failed=not is_credited)

    def refusal(self, code: str | None) -> WireError:
        return TRANSACTION(code or _REFUND_REFUSED, "The refund cannot be processed")

    # --- the passbook ------------------------------------------------------------------------------------------

    async def list_orders(self, call: WireCall, books: Books) -> WireAnswer:
        body = self._wire.read(call, TRANSACTION, required=_LIST_REQUIRED, optional=_LIST_OPTIONAL)
        since, until = _moment(body["fromDate"]), _moment(body["toDate"])
        number, size = _whole(body["pageNumber"]), _whole(body["pageSize"])
        if number < 1 or not _SMALLEST_PAGE <= size <= _LARGEST_PAGE:
            raise TRANSACTION(_INVALID, "pageNumber or pageSize is invalid")
        wanted = EntryFilter(reference=body.get("merchantOrderId"), paid_only=True)
        entries = await books.search(wanted)
        rows = [row for at, row in await _rows(entries, body, books) if since <= at < until]
        shown = rows[(number - 1) * size : number * size]
        result = objects.result_info(("SUCCESS", "0000", "Success"))
        return self._answer({"resultInfo": result, "pageNumber": number, "pageSize": size, "orders": shown}, books)

    def _answer(self, body: Json, books: Books) -> WireAnswer:
        return self._wire.answer(worded(body, books, "resultStatus"), books.now)


def new_number(wire: Wire, at: datetime) -> str:
    """Paytm's ids are long numbers that begin with the time."""
    tail = int.from_bytes(wire.randomness.token_bytes(8), "big") % 10**17
    return f"{at:%Y%m%d%H%M%S}1110{tail:017}"


async def _refunded(entry: BookEntry, books: Books) -> int:
    return sum(refund.amount_minor for refund in await books.refunds_of(entry) if refund.status == "succeeded")


async def _rows(entries: Sequence[BookEntry], body: Json, books: Books) -> list[tuple[datetime, Json]]:
    kind, status = body["orderSearchType"], body["orderSearchStatus"]
    if status not in _PAYMENTS_LISTED or kind not in ("TRANSACTION", "REFUND"):
        raise TRANSACTION(_INVALID, "orderSearchType or orderSearchStatus is invalid")
    if kind == "TRANSACTION":
        listed = [entry for entry in entries if entry.status is _PAYMENTS_LISTED[status]]
        return [(entry.payment_created_at or entry.created_at, objects.row(entry)) for entry in listed]
    refunds = [(entry, refund) for entry in entries for refund in await books.refunds_of(entry)]
    wanted = _REFUNDS_LISTED[status]
    return [(each.created_at, objects.row(entry, each)) for entry, each in refunds if each.status in wanted]


def _moment(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise TRANSACTION(_INVALID, "a date is invalid") from None
    if found.tzinfo is None or found.microsecond:
        raise TRANSACTION(_INVALID, "a date is invalid")
    return found


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TRANSACTION(_INVALID, "pageNumber or pageSize is invalid")
    return value
