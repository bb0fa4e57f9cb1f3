"""Payments, refunds and disputes: the calls of Razorpay's API, and what the dashboard and the banks do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.gateway_sandbox.domain.models import (
    BookDispute,
    BookEntry,
    BookRefund,
    DisputeStatus,
    MoreThanThereIs,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_dispute, book_refund
from services.gateway_sandbox.gateways.port import Books, EntryFilter, WireAnswer, WireCall, WireError, WireRoute
from services.gateway_sandbox.gateways.razorpay import errors, events, fields, objects
from services.gateway_sandbox.gateways.razorpay.objects import Json, Try
from services.gateway_sandbox.gateways.wording import worded

_CAPTURE_FIELDS = frozenset({"amount", "currency"})
_REFUND_FIELDS = frozenset({"amount", "speed", "notes", "receipt"})
_LIST_FIELDS = frozenset({"from", "to", "count", "skip", "expand[]"})
_MOST_LISTED = 100
_LOOKED_THROUGH = 1000  # a development account has no more payments than this worth listing
_USUAL_DISPUTE = "goods_or_services_not_received_or_partially_received"


class MoneyCalls:
    """``short_url`` makes a link's address, which ``payment_link.paid`` shows."""

    def __init__(self, short_url: Callable[[BookEntry], str]) -> None:
        self._short_url = short_url
        self.routes: Sequence[WireRoute] = (
            WireRoute("GET", "/v1/payments", "list", self.list_payments),
            WireRoute("GET", "/v1/payments/{id}", "retrieve", self.retrieve_payment),
            WireRoute("POST", "/v1/payments/{id}/capture", "capture", self.capture),
            WireRoute("POST", "/v1/payments/{id}/refund", "refund", self.refund),
            WireRoute("GET", "/v1/payments/{id}/refunds", "list", self.list_refunds_of_payment),
            WireRoute("GET", "/v1/payments/{id}/refunds/{refund_id}", "retrieve", self.retrieve_refund),
            WireRoute("GET", "/v1/refunds", "list", self.list_refunds),
            WireRoute("GET", "/v1/refunds/{refund_id}", "retrieve", self.retrieve_refund),
            WireRoute("GET", "/v1/disputes", "list", self.list_disputes),
            WireRoute("GET", "/v1/disputes/{id}", "retrieve", self.retrieve_dispute),
        )

    # --- payments ----------------------------------------------------------------------------------------------

    async def retrieve_payment(self, call: WireCall, books: Books) -> WireAnswer:
        entry, which = await _payment(call, books)
        body = objects.payment(entry, which)
        if "refunds" in [value for name, value in call.query if name == "expand[]"]:
            body["refunds"] = objects.collection(await _refunds(entry, books))
        return WireAnswer.json(200, worded(body, books, "status"))

    async def list_payments(self, call: WireCall, books: Books) -> WireAnswer:
        entries = await books.search(EntryFilter(paid_only=True, limit=_LOOKED_THROUGH))
        tries = [(entry, which) for entry in entries for which in objects.tries_of(entry)]
        payments = [objects.payment(entry, which) for entry, which in tries]
        return WireAnswer.json(200, worded(page(payments, call), books, "status"))

    async def capture(self, call: WireCall, books: Books) -> WireAnswer:
        body = fields.json_body(call, _CAPTURE_FIELDS)
        entry, which = await _payment(call, books, for_update=True)
        amount_minor = fields.amount_of(body, entry.currency)
        status = objects.payment_status(entry, which)
        if status == "captured" or (status == "refunded" and entry.captured_minor):
            raise errors.refused("This payment has already been captured")
        if status != "authorized":
            raise self.refusal("capture", None)
        if amount_minor != entry.amount_minor:
            raise errors.refused("Capture amount must be equal to the amount authorized")
        if body.get("currency", "INR") != entry.currency:
            raise errors.refused("The currency should be the same as that of the payment")
        await self.capture_in_dashboard(entry, amount_minor, books)
        return WireAnswer.json(200, objects.payment(entry, which))

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        if entry.is_held() and amount_minor != entry.amount_minor:
            raise MoreThanThereIs(f"Razorpay captures the whole {entry.amount_minor} or nothing")
        entry.take(amount_minor, final=True)
        entry.hold_expires_at = None
        await books.record(entry, "capture", amount_minor)
        which = objects.good_try(entry)
        assert which is not None, "held money came with a payment"
        events.taken(entry, which, self._short_url(entry), books)

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        """Not captured in time: the payment becomes ``refunded`` without ever having been captured."""
        entry.lapse()
        entry.hold_expires_at = None
        entry.details["lapsed"] = {"refund_id": books.new_id("rfnd_", 14), "at": objects.unix(books.now)}
        await books.record(entry, "expire_hold", entry.amount_minor)
        await books.alias(entry, entry.details["lapsed"]["refund_id"])
        events.hold_released(entry, books)

    # --- refunds -----------------------------------------------------------------------------------------------

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = fields.json_body(call, _REFUND_FIELDS)
        entry, which = await _payment(call, books, for_update=True)
        amount_minor = _refund_amount(body, entry, which)
        receipt = fields.text(body, "receipt", longest=40)
        speed = body.get("speed", "normal")
        if speed not in ("normal", "optimum"):
            raise errors.invalid("The selected speed is invalid.", field="speed")
        if receipt and any(earlier.reference == receipt for earlier in await books.refunds_of(entry)):
            raise errors.refused("The receipt has already been used for another refund.")
        notes = fields.notes(body)
        refund = await _refund(entry, amount_minor, books, reference=receipt, notes=notes, speed=speed)
        return WireAnswer.json(200, objects.refund(refund, entry.currency))

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await _refund(entry, amount_minor, books, is_pending=False)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        """Razorpay shows a refund that was taken back as failed; there is no status of its own for it."""
        if not refund.move(status, entry):
            return
        await books.save_refund(entry, refund, f"refund_{status}")
        events.refund_moved(entry, refund, "refund.processed" if status == "succeeded" else "refund.failed", books)

    async def list_refunds_of_payment(self, call: WireCall, books: Books) -> WireAnswer:
        entry, which = await _payment(call, books)
        found = await _refunds(entry, books) if which["failure"] is None else []
        return WireAnswer.json(200, worded(page(found, call), books, "status"))

    async def list_refunds(self, call: WireCall, books: Books) -> WireAnswer:
        entries = await books.search(EntryFilter(paid_only=True, limit=_LOOKED_THROUGH))
        found = [each for entry in entries for each in await _refunds(entry, books)]
        return WireAnswer.json(200, worded(page(found, call), books, "status"))

    async def retrieve_refund(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await books.find(call.path_values["refund_id"])
        found = await _refunds(entry, books) if entry is not None else []
        body = next((refund for refund in found if refund["id"] == call.path_values["refund_id"]), None)
        if body is None or call.path_values.get("id", body["payment_id"]) != body["payment_id"]:
            raise errors.no_such_id()
        return WireAnswer.json(200, worded(body, books, "status"))

    def refusal(self, operation: str, code: str | None) -> WireError:
        if operation == "refund":
            description = "Your account does not have enough balance to carry out the refund operation."
            return errors.refused(description, reason=code or "insufficient_balance")
        description = "Only payments which have been authorized and not yet captured can be captured"
        return errors.refused(description, reason=code or "NA")

    # --- disputes ----------------------------------------------------------------------------------------------

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        dispute = await book_dispute(entry, books.new_id("disp_", 14), amount_minor, reason or _USUAL_DISPUTE, books)
        events.dispute_moved(entry, dispute, "payment.dispute.created", books)
        return dispute

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        if not dispute.close(status, books.now):
            return
        await books.save_dispute(entry, dispute, f"dispute_{status}")
        events.dispute_moved(entry, dispute, f"payment.dispute.{status}", books)

    async def list_disputes(self, call: WireCall, books: Books) -> WireAnswer:
        entries = await books.search(EntryFilter(paid_only=True, limit=_LOOKED_THROUGH))
        found = [objects.dispute(entry, each) for entry in entries for each in await books.disputes_of(entry)]
        return WireAnswer.json(200, worded(page(found, call), books, "status"))

    async def retrieve_dispute(self, call: WireCall, books: Books) -> WireAnswer:
        dispute = await books.find_dispute(call.path_values["id"])
        entry = await books.find(dispute.gateway_reference) if dispute is not None else None
        if dispute is None or entry is None:
            raise errors.no_such_id()
        return WireAnswer.json(200, worded(objects.dispute(entry, dispute), books, "status"))


def page(items: Sequence[Json], call: WireCall, allowed: frozenset[str] = _LIST_FIELDS) -> Json:
    """``from`` and ``to`` are about ``created_at``, newest first; without ``count`` ten come."""
    query = dict(call.query)
    fields.only(query, allowed)
    first = fields.whole_number(query, "from", default=0, most=10**11)
    last = fields.whole_number(query, "to", default=10**11, most=10**11)
    count = fields.whole_number(query, "count", default=10, most=_MOST_LISTED)
    skip = fields.whole_number(query, "skip", default=0, most=10**9)
    wanted = [item for item in items if first <= item["created_at"] <= last]
    wanted.sort(key=lambda item: int(item["created_at"]), reverse=True)
    return objects.collection(wanted[skip : skip + count])


async def _payment(call: WireCall, books: Books, *, for_update: bool = False) -> tuple[BookEntry, Try]:
    identifier = call.path_values["id"]
    entry = await books.find(identifier, for_update=for_update)
    which = next((each for each in objects.tries_of(entry) if each["id"] == identifier), None) if entry else None
    if entry is None or which is None:
        raise errors.no_such_id()
    return entry, which


async def _refunds(entry: BookEntry, books: Books) -> list[Json]:
    released = objects.release(entry)
    found = [objects.refund(refund, entry.currency) for refund in await books.refunds_of(entry)]
    return found + ([released] if released is not None else [])


def _refund_amount(body: Mapping[str, Any], entry: BookEntry, which: Try) -> int:
    if objects.payment_status(entry, which) not in ("captured", "refunded") or not entry.captured_minor:
        raise errors.refused("The payment status should be captured for action to be taken")
    if entry.refundable_minor == 0:
        raise errors.refused("The payment has been fully refunded already")
    amount_minor = fields.amount_of(body, entry.currency) if "amount" in body else entry.refundable_minor
    if amount_minor > entry.refundable_minor:
        raise errors.refused("The total refund amount is greater than the refund payment amount")
    return amount_minor


async def _refund(
    entry: BookEntry,
    amount_minor: int,
    books: Books,
    *,
    reference: str | None = None,
    notes: Mapping[str, str] | None = None,
    speed: str = "normal",
    is_pending: bool | None = None,
) -> BookRefund:
    refund = await book_refund(
        entry,
        books.new_id("rfnd_", 14),
        amount_minor,
        books,
        is_pending=is_pending,
        reference=reference,
        reason=(notes or {}).get("reason"),
        metadata=notes,
        details={"payment_id": entry.payment_reference, "speed": speed},
    )
    events.refund_moved(entry, refund, "refund.created", books)
    if refund.status == "succeeded":
        events.refund_moved(entry, refund, "refund.processed", books)
    return refund
