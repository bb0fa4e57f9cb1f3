"""Holds, refunds and disputes: the calls of MyFatoorah's API, and what its people and the banks do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.domain.models import (
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    DisputeStatus,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_dispute, book_refund, refusals
from services.gateway_sandbox.gateways.myfatoorah import objects
from services.gateway_sandbox.gateways.myfatoorah.events import Announcer
from services.gateway_sandbox.gateways.myfatoorah.objects import Attempt
from services.gateway_sandbox.gateways.myfatoorah.sessions import new_number
from services.gateway_sandbox.gateways.myfatoorah.wire import (
    accepted,
    amount_of,
    entry_of,
    invalid,
    json_body,
    one_of,
    refused,
    text,
)
from services.gateway_sandbox.gateways.port import Books, WireAnswer, WireCall, WireError, WireRoute
from services.gateway_sandbox.gateways.wording import worded
from shared.clock import to_rfc3339
from shared.money import Money

_UPDATE_PATH = "/v2/UpdatePaymentStatus"
_UPDATE = frozenset({"Operation", "Key", "KeyType"})
_REFUND = frozenset({"KeyType", "Key", "Amount"})
_REFUND_MORE = frozenset(
    "Comment ExternalIdentifier ServiceChargeOnCustomer RefundChargeOnCustomer AmountDeductedFromSupplier "
    "CurrencyIso".split()
)
_BY_EITHER = ("InvoiceId", "PaymentId")


class MoneyCalls:
    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", _UPDATE_PATH, "void", self.update, wants=lambda call: _operation_of(call) == "Release"),
            WireRoute("POST", _UPDATE_PATH, "capture", self.update),
            WireRoute("POST", "/v2/MakeRefund", "refund", self.refund),
            WireRoute("POST", "/v2/GetRefundStatus", "list", self.refund_status),
        )

    def refusal(self, operation: str, code: str | None) -> WireError:
        if operation == "refund":
            return refused(code or "The refund amount is over your available balance")
        return refused(code or "The invoice cannot be updated")

    # --- holds -----------------------------------------------------------------------------------------------------

    async def update(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_body(call, _UPDATE, frozenset({"Amount"}))
        operation = one_of(body, "Operation", ("Capture", "Release"))
        entry = await entry_of(body, books, _BY_EITHER, for_update=True)
        if entry.capture is not CaptureMode.MANUAL or not entry.is_held():
            raise refused("The invoice status must be Authorize")
        if operation == "Capture":
            minor = amount_of(body, "Amount", entry.currency)
            with refusals(refused):
                await self.capture(entry, minor, books)
        else:
            if "Amount" in body:
                raise invalid("Amount", "a release is always of the whole amount")
            await self.release(entry, "void", books)
        return accepted({"InvoiceId": int(entry.gateway_reference)})

    async def capture(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        """The rest of the hold is dropped. Raises IllegalMove, MoreThanThereIs."""
        entry.take(amount_minor, final=True)
        entry.hold_expires_at = None
        attempt = change(entry, "Succss", books)
        await books.record(entry, "capture", amount_minor)
        self._announcer.payment(entry, attempt, books)

    async def release(self, entry: BookEntry, operation: str, books: Books) -> None:
        held_minor = entry.capturable_minor
        if operation == "void":
            entry.release()
        else:
            entry.lapse()
        entry.hold_expires_at = None
        attempt = change(entry, "Canceled", books)
        await books.record(entry, operation, held_minor)
        self._announcer.payment(entry, attempt, books)

    # --- refunds ---------------------------------------------------------------------------------------------------

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        """Files a request, whatever becomes of it. Nothing keeps a client from filing the same one twice."""
        body = json_body(call, _REFUND, _REFUND_MORE)
        entry = await entry_of(body, books, _BY_EITHER, for_update=True)
        for name in ("ServiceChargeOnCustomer", "RefundChargeOnCustomer"):
            if type(body.get(name, False)) is not bool:
                raise invalid(name, "must be true or false")
        if not entry.captured_minor:
            raise refused("The invoice is not paid")
        minor = amount_of(body, "Amount", entry.currency)
        ours, comment = text(body, "ExternalIdentifier", longest=100), text(body, "Comment", longest=500)
        with refusals(refused):
            record = await self._book(entry, minor, books, is_pending=True, reference=ours, reason=comment)
        return accepted(
            {
                "Key": body["Key"],
                "RefundId": int(record.refund_id),
                "RefundReference": record.details["reference"],
                "RefundInvoiceId": int(record.refund_id) + 1,
                "Amount": Money(minor, entry.currency).as_major(),
                "Comment": comment,
                "ExternalIdentifier": ours,
            }
        )

    async def refund_status(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_body(call, frozenset({"KeyType", "Key"}))
        if one_of(body, "KeyType", ("RefundId", "RefundReference", "InvoiceId")) == "InvoiceId":
            entry = await entry_of(body, books, ("InvoiceId",))
            records = await books.refunds_of(entry)
        else:
            found = await books.find_refund(str(body["Key"]))
            entry_found = await books.find(found.gateway_reference) if found is not None else None
            if found is None or entry_found is None:
                raise refused("No data match the provided values!")
            entry, records = entry_found, [found]
        shown = [objects.refund(entry, record) for record in records]
        return accepted(worded({"RefundStatusResult": shown}, books, "RefundStatus"))

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        """Filed in the portal, and decided at once."""
        record = await self._book(entry, amount_minor, books, is_pending=False)
        self._announcer.refund(entry, record, books)
        return record

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if not refund.move(status, entry):
            return
        await books.save_refund(entry, refund, f"refund_{status}")
        self._announcer.refund(entry, refund, books)

    async def _book(
        self, entry: BookEntry, amount_minor: int, books: Books, *, is_pending: bool, **more: Any
    ) -> BookRefund:
        details = {"reference": f"{books.now.year}{new_number(books, 6)}"}
        number = new_number(books, 8)
        return await book_refund(entry, number, amount_minor, books, is_pending=is_pending, details=details, **more)

    # --- disputes --------------------------------------------------------------------------------------------------

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        record = await book_dispute(entry, new_number(books, 8), amount_minor, reason or "FRAUD", books)
        self._announcer.dispute(entry, record, paid_attempt(entry), books)
        return record

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        if not dispute.close(status, books.now):
            return
        await books.save_dispute(entry, dispute, f"dispute_{status}")
        self._announcer.dispute(entry, dispute, paid_attempt(entry), books)


def _operation_of(call: WireCall) -> Any:
    """One address serves captures and releases."""
    try:
        body = from_json(call.body)
    except (ValueError, RecursionError):
        return None
    return body.get("Operation") if isinstance(body, dict) else None


def paid_attempt(entry: BookEntry) -> Attempt:
    return next(each for each in reversed(objects.attempts_of(entry)) if each["status"] == "Succss")


def change(entry: BookEntry, status: str, books: Books) -> Attempt:
    """The newest attempt, which held the money, takes another status."""
    *earlier, newest = objects.attempts_of(entry)
    changed = cast("Attempt", {**newest, "status": status, "at": to_rfc3339(books.now)})
    entry.details["attempts"] = [*earlier, changed]
    return changed
