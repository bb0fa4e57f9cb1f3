"""What PayPal does with an order's money, whoever asks: the API, the dashboard, banks or time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, timedelta

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
    MoreThanThereIs,
)
from services.gateway_sandbox.gateways.bookkeeping import book_capture, book_refund
from services.gateway_sandbox.gateways.paypal import objects
from services.gateway_sandbox.gateways.paypal.objects import Records, records_of
from services.gateway_sandbox.gateways.paypal.wire import ORDER_WINDOW, Json
from services.gateway_sandbox.gateways.port import Announcement, Books

VALID_FOR = timedelta(days=29)

_CAPTURE_EVENTS = {"pending": "PENDING", "succeeded": "COMPLETED", "failed": "DENIED"}
_REFUND_EVENTS = {
    "pending": "PAYMENT.REFUND.PENDING",
    "succeeded": "PAYMENT.CAPTURE.REFUNDED",
    "failed": "PAYMENT.REFUND.FAILED",
    "reversed": "PAYMENT.REFUND.FAILED",
}


@dataclass(frozen=True, slots=True)
class Desk:
    """``base_url`` is where this PayPal's API begins."""

    base_url: str
    page_base_url: str

    def order(self, entry: BookEntry, records: Records) -> Json:
        return objects.order(entry, records, self.base_url, f"{self.page_base_url}/{entry.gateway_reference}")

    # --- the order -------------------------------------------------------------------------------------------------

    async def approve(self, entry: BookEntry, books: Books, *, instrument_declines: bool) -> None:
        """The buyer agrees; no money moves. The client has three hours to ask for it."""
        # To the microsecond, because a second approval within one second is another one.
        approved_at = books.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        entry.details |= {"approved_at": approved_at, "instrument_declines": instrument_declines}
        entry.details.pop("declined", None)
        entry.expires_at = books.now + ORDER_WINDOW
        await books.record(entry, "approve", entry.amount_minor)
        self.announce(entry, books, "CHECKOUT.ORDER.APPROVED", "checkout-order", lambda shown: self.order(shown, _NONE))

    async def decline(self, entry: BookEntry, books: Books) -> None:
        """The instrument was declined: the buyer has to choose another one on the same page."""
        entry.details |= {"approved_at": None, "instrument_declines": False, "declined": True}
        await books.record(entry, "decline", entry.amount_minor)

    async def capture_order(self, entry: BookEntry, books: Books) -> None:
        """The buyer's yes and the capture are one step here, so nothing was held that could be taken."""
        entry.pay()
        record = BookCapture(
            gateway=entry.gateway,
            capture_id=new_id(books),
            gateway_reference=entry.gateway_reference,
            reference=entry.reference,
            amount_minor=entry.amount_minor,
            status="pending" if books.answers_later else "succeeded",
            is_final=True,
            created_at=books.now,
            details={"invoice_id": entry.details.get("invoice_id"), **_why_it_waits(books)},
        )
        if record.status == "pending":
            entry.status = EntryStatus.PROCESSING
        entry.payment_reference, entry.payment_created_at = record.capture_id, books.now
        await books.add_capture(entry, record)
        await self._announce_capture(entry, record, books)

    async def authorize_order(self, entry: BookEntry, books: Books) -> None:
        entry.pay()
        identifier = new_id(books)
        entry.details["authorization"] = {"id": identifier, "created_at": objects.stamp(books.now), "ended_at": None}
        entry.hold_expires_at = books.now + VALID_FOR
        entry.payment_reference, entry.payment_created_at = identifier, books.now
        await books.record(entry, "authorize", entry.amount_minor)
        self._announce_authorization(entry, books, "CREATED")

    # --- held and captured money -----------------------------------------------------------------------------------

    async def capture(
        self, entry: BookEntry, amount_minor: int, books: Books, *, is_final: bool, invoice_id: str | None
    ) -> BookCapture:
        """Raises IllegalMove, MoreThanThereIs."""
        record = await book_capture(
            entry,
            new_id(books),
            amount_minor,
            books,
            is_final=is_final,
            reference=invoice_id,
            details={"invoice_id": invoice_id, **_why_it_waits(books)},
        )
        await self._announce_capture(entry, record, books)
        return record

    async def settle_capture(self, entry: BookEntry, record: BookCapture, books: Books) -> None:
        """The record has been moved: let the order follow it."""
        if entry.capture is CaptureMode.AUTOMATIC:
            entry.status = EntryStatus.COMPLETED if record.status == "succeeded" else EntryStatus.FAILED
        elif record.status == "failed" and not entry.details["authorization"]["ended_at"]:
            entry.status = EntryStatus.AUTHORIZED
        await books.save_capture(entry, record, f"capture_{record.status}")
        await self._announce_capture(entry, record, books)

    async def release(self, entry: BookEntry, books: Books, operation: str) -> None:
        """The hold has ended, by a void or by time: the entry has been moved already."""
        entry.details["authorization"]["ended_at"] = objects.stamp(books.now)
        released_minor = entry.amount_minor - entry.captured_minor
        await books.record(entry, operation, released_minor)
        self._announce_authorization(entry, books, "VOIDED")

    async def refund(
        self,
        entry: BookEntry,
        capture: BookCapture,
        amount_minor: int,
        books: Books,
        *,
        custom_id: str | None = None,
        invoice_id: str | None = None,
        note: str | None = None,
    ) -> BookRefund:
        """Raises MoreThanThereIs. Without a ``custom_id`` PayPal copies the order's."""
        record = await book_refund(
            entry,
            new_id(books),
            amount_minor,
            books,
            reference=custom_id,
            reason=note,
            details={
                "capture_id": capture.capture_id,
                "custom_id": custom_id or entry.details.get("custom_id"),
                "invoice_id": invoice_id or capture.details.get("invoice_id"),
            },
        )
        self.announce_refund(entry, record, books)
        return record

    # --- events ----------------------------------------------------------------------------------------------------

    def announce(
        self,
        entry: BookEntry,
        books: Books,
        event_type: str,
        resource_type: str,
        picture: Callable[[BookEntry], Json],
    ) -> None:
        event_id, at = f"WH-{new_id(books)}-{new_id(books)}", books.now

        def render(shown: BookEntry) -> str:
            return to_json(objects.event(event_id, event_type, resource_type, at, picture(shown)))

        books.announce(Announcement(event_id, event_type, entry, render))

    def announce_refund(self, entry: BookEntry, record: BookRefund, books: Books) -> None:
        body = objects.refund(entry, record, self.base_url)
        self.announce(entry, books, _REFUND_EVENTS[record.status], "refund", lambda _shown: body)

    async def _announce_capture(self, entry: BookEntry, record: BookCapture, books: Books) -> None:
        records = await records_of(entry, books)
        event_type = f"PAYMENT.CAPTURE.{_CAPTURE_EVENTS[record.status]}"
        self.announce(
            entry,
            books,
            event_type,
            "capture",
            lambda shown: objects.capture(shown, record, records, self.base_url),
        )

    def _announce_authorization(self, entry: BookEntry, books: Books, what: str) -> None:
        body = objects.authorization(entry, self.base_url)
        self.announce(entry, books, f"PAYMENT.AUTHORIZATION.{what}", "authorization", lambda _shown: body)


_NONE = Records((), ())


def _why_it_waits(books: Books) -> Json:
    return {"pending_reason": books.pending_code} if books.pending_code else {}


def new_id(books: Books) -> str:
    """PayPal's ids are 17 capital letters and digits, whatever they are the id of."""
    return books.new_id("", 17).upper()


def refundable_of(capture: BookCapture, records: Records) -> int:
    return capture.amount_minor - records.refunded_of(capture)


def capture_to_refund(amount_minor: int, records: Records) -> BookCapture:
    """For the dashboard, where somebody points at a payment: the first capture with so much left."""
    for capture in records.captures:
        if capture.status == "succeeded" and refundable_of(capture, records) >= amount_minor:
            return capture
    raise MoreThanThereIs(f"no capture has {amount_minor} left to refund")
