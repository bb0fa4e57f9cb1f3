"""Tamara's API and hosted page. Its facts: payment_service/gateways/tamara.md.

The shopper's yes makes an order ``approved``; the client authorises, captures and refunds it. There are no keys: what
is sent twice is done twice. Webhooks: a JWT in ``Authorization``, which covers no body.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookEntry,
    BookRefund,
    CaptureStatus,
    EntryStatus,
    IllegalMove,
    MoreThanThereIs,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_capture, book_refund
from services.gateway_sandbox.gateways.lacking import WithJsonAnswers, WithoutDisputes, WithoutKeys
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutLine,
    CheckoutView,
    Departure,
    EntryFilter,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.tamara import objects
from services.gateway_sandbox.gateways.tamara.events import announce, announce_captured, announce_refunded
from services.gateway_sandbox.gateways.tamara.new_order import new_entry
from services.gateway_sandbox.gateways.tamara.statement import statement
from services.gateway_sandbox.gateways.tamara.wire import (
    Json,
    amount_of,
    check_fields,
    json_object,
    new_uuid,
    not_found,
    refused,
    shipping_info,
    text_of,
    transition_not_allowed,
)
from shared.clock import to_rfc3339
from shared.money import Money

_APPROVAL_LIFE = timedelta(hours=72)
_HOLD_LIFE = timedelta(days=21)

_CAPTURE_REQUIRED = frozenset({"order_id", "total_amount", "shipping_info"})
_CAPTURE_OPTIONAL = frozenset({"items", "tax_amount", "shipping_amount", "discount_amount"})
_CANCEL_OPTIONAL = frozenset({"items", "tax_amount", "shipping_amount", "discount_amount"})
_USUAL_REFUSALS = {
    "complete": "order_not_authorisable",
    "capture": "capture_not_allowed",
    "void": "cancel_not_allowed",
    "refund": "refund_not_allowed",
}


class TamaraSandbox(WithoutKeys, WithJsonAnswers, WithoutDisputes):
    """Satisfies SandboxGateway. Without an ``api_token`` any bearer token will do."""

    name = "tamara"
    payouts = PayoutTerms(("SAR", "AED"), "ST-{day:%Y%m%d}-{currency}")

    def __init__(
        self,
        *,
        api_token: str | None,
        notification_token: str,
        public_base_url: str,
        merchant: str,
        own_headers: Mapping[str, str],
    ) -> None:
        self._api_token = api_token
        self._notification_token = notification_token
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self._own_headers = dict(own_headers)
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/checkout", "create_session", self.create_session),
            WireRoute("GET", "/orders/{id}", "retrieve", self.retrieve_order),
            WireRoute("GET", "/merchants/orders/reference-id/{reference}", "retrieve", self.retrieve_by_reference),
            WireRoute("POST", "/orders/{id}/authorise", "complete", self.authorise),
            WireRoute("POST", "/payments/capture", "capture", self.capture),
            WireRoute("POST", "/orders/{id}/cancel", "void", self.cancel),
            WireRoute("POST", "/payments/simplified-refund/{id}", "refund", self.refund),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        is_known = not self._api_token or hmac.compare_digest(token.encode(), self._api_token.encode())
        if scheme != "Bearer" or not token or not is_known:
            raise refused(401, None, "Unauthorized")

    def no_such_route(self, call: WireCall) -> WireError:
        return refused(404, None, f"No route found for {call.method} {call.path}")

    def broken(self, status: int) -> WireAnswer:
        return refused(status, None, "Something went wrong").answer

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        answer = refused(429, None, "Too many requests").answer
        return replace(answer, headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return refused(400, code or _USUAL_REFUSALS[operation], f"The {operation} was refused")

    # --- orders --------------------------------------------------------------------------------------------------

    async def create_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = new_entry(json_object(call), books)
        await books.open(entry)
        answer = {
            "order_id": entry.gateway_reference,
            "checkout_id": entry.details["checkout_id"],
            "checkout_url": f"{self._public_base_url}/sandbox/tamara/checkout/{entry.gateway_reference}",
            "status": "new",
        }
        return WireAnswer.json(200, answer)

    async def retrieve_order(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _entry(call.path_values["id"], books)
        return WireAnswer.json(200, objects.order(entry, await objects.records_of(entry, books), books))

    async def retrieve_by_reference(self, call: WireCall, books: Books) -> WireAnswer:
        """The newest of several: nobody says that a reference is unique."""
        found = await books.search(EntryFilter(reference=call.path_values["reference"], limit=1))
        if not found:
            raise not_found()
        return WireAnswer.json(200, objects.order(found[0], await objects.records_of(found[0], books), books))

    async def authorise(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _entry(call.path_values["id"], books, for_update=True)
        if not objects.is_approved(entry):
            raise await _not_allowed(entry, "authorised", books)
        entry.pay()
        await self._hold(entry, books)
        answer = {
            "order_id": entry.gateway_reference,
            "status": "authorised",
            "order_expiry_time": to_rfc3339(books.now + _HOLD_LIFE),
            "payment_type": entry.details["payment_type"],
            "auto_captured": False,
            "authorized_amount": objects.money(entry, entry.amount_minor),
            "capture_id": None,
        }
        return WireAnswer.json(200, answer)

    # --- money ---------------------------------------------------------------------------------------------------

    async def capture(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_object(call)
        check_fields(body, _CAPTURE_REQUIRED, _CAPTURE_OPTIONAL)
        entry = await _entry(text_of(body, "order_id"), books, for_update=True)
        amount_minor = amount_of(body, "total_amount", entry.currency)
        shipping = shipping_info(body)
        if not entry.is_held():
            raise await _not_allowed(entry, "fully_captured", books)
        if amount_minor > objects.rest_minor(entry):
            raise refused(400, "total_amount_invalid", "The amount is more than what can be captured")
        record = await self._capture(entry, amount_minor, shipping, shipping.get("tracking_number"), books)
        records = await objects.records_of(entry, books)
        answer = {
            "capture_id": record.capture_id,
            "order_id": entry.gateway_reference,
            "status": objects.status_of(entry, records),
            "captured_amount": objects.money(entry, record.amount_minor),
        }
        return WireAnswer.json(200, answer)

    async def cancel(self, call: WireCall, books: Books) -> WireAnswer:
        """All of an order or a part of it, but only while nothing of it is captured."""
        body = json_object(call)
        check_fields(body, frozenset({"total_amount"}), _CANCEL_OPTIONAL)
        entry = await _entry(call.path_values["id"], books, for_update=True)
        amount_minor = amount_of(body, "total_amount", entry.currency)
        if not entry.is_held() or entry.captured_minor:
            raise await _not_allowed(entry, "canceled", books)
        if amount_minor > objects.rest_minor(entry):
            raise refused(400, "total_amount_invalid", "The amount is more than what can be canceled")
        cancel_id = await self._cancel(entry, amount_minor, books)
        answer = {
            "order_id": entry.gateway_reference,
            "cancel_id": cancel_id,
            "status": "canceled" if entry.status is EntryStatus.CANCELED else "updated",
            "canceled_amount": objects.money(entry, amount_minor),
        }
        return WireAnswer.json(200, answer)

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        """The same ``merchant_refund_id`` again is another refund: no document says that it is unique."""
        body = json_object(call)
        check_fields(body, frozenset({"total_amount", "comment"}), frozenset({"merchant_refund_id"}))
        entry = await _entry(call.path_values["id"], books, for_update=True)
        amount_minor = amount_of(body, "total_amount", entry.currency)
        comment = text_of(body, "comment")
        reference = text_of(body, "merchant_refund_id") if "merchant_refund_id" in body else None
        if not entry.captured_minor:
            raise await _not_allowed(entry, "fully_refunded", books)
        try:
            record = await self._refund(entry, amount_minor, reference, comment, books)
        except MoreThanThereIs:
            raise refused(400, "total_amount_invalid", "The amount is more than what can be refunded") from None
        is_whole = entry.refunded_minor == entry.captured_minor
        answer = {
            "order_id": entry.gateway_reference,
            "comment": comment,
            "refund_id": record.refund_id,
            "capture_id": record.details["capture_id"],
            "status": "fully_refunded" if is_whole else "partially_refunded",
            "refunded_amount": objects.money(entry, amount_minor),
        }
        return WireAnswer.json(200, answer)

    async def _capture(
        self, entry: BookEntry, amount_minor: int, shipping: Json, reference: str | None, books: Books
    ) -> BookCapture:
        record = await book_capture(
            entry,
            new_uuid(books),
            amount_minor,
            books,
            is_final=amount_minor == objects.rest_minor(entry),
            reference=reference,
            details={"shipping_info": shipping},
        )
        if record.status == "succeeded":
            announce_captured(entry, record, books)
        return record

    async def _cancel(self, entry: BookEntry, amount_minor: int, books: Books) -> str:
        cancel_id = new_uuid(books)
        is_whole = amount_minor == objects.rest_minor(entry)
        made = {"cancel_id": cancel_id, "amount_minor": amount_minor, "created_at": to_rfc3339(books.now)}
        entry.details["cancels"] = [*entry.details.get("cancels", []), made]
        if is_whole:
            entry.release()
        await books.record(entry, "void" if is_whole else "void_part", amount_minor)
        data = {"cancel_id": cancel_id, "canceled_amount": objects.money(entry, amount_minor)}
        announce(entry, books, "order_canceled", data)
        return cancel_id

    async def _refund(
        self, entry: BookEntry, amount_minor: int, reference: str | None, comment: str, books: Books
    ) -> BookRefund:
        captures = (await objects.records_of(entry, books)).settled
        if not captures:
            raise IllegalMove("nothing was captured that could be refunded")
        record = await book_refund(
            entry,
            new_uuid(books),
            amount_minor,
            books,
            reference=reference,
            reason=comment,
            details={"capture_id": captures[0].capture_id},
        )
        if record.status == "succeeded":  # of one that is under way no event tells
            announce_refunded(entry, record, books)
        return record

    # --- what happens without a call -----------------------------------------------------------------------------

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._capture(entry, min(amount_minor, objects.rest_minor(entry)), {}, None, books)

    async def settle_capture(self, entry: BookEntry, capture: BookCapture, status: CaptureStatus, books: Books) -> None:
        if not capture.move(status, entry):
            return
        if status == "failed":
            entry.status = EntryStatus.AUTHORIZED
        await books.save_capture(entry, capture, f"capture_{status}")
        if status == "succeeded":
            announce_captured(entry, capture, books)

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        lapsed_minor = objects.rest_minor(entry)
        entry.lapse()
        entry.details["lapsed"] = True
        await books.record(entry, "expire_hold", lapsed_minor)
        announce(entry, books, "order_expired")

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._refund(entry, amount_minor, None, "refunded in the portal", books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        """Of one that fails no event tells."""
        if not refund.move(status, entry):
            return
        await books.save_refund(entry, refund, f"refund_{status}")
        if status == "succeeded":
            announce_refunded(entry, refund, books)

    # --- the buyer, time, webhooks -------------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        total = f"{Money(entry.amount_minor, entry.currency).as_major():f}"
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="Tamara",
            lines=[CheckoutLine(item["name"], item["quantity"], item["total"]) for item in entry.details["items"]],
            total=total,
            currency=entry.currency,
            is_manual_capture=False,
            cancel_explanation="Goes back to the shop; the order stays open until its time is over.",
            instrument=(f"{entry.details['instalments']} payments", "Test card, the first one today"),
            decline_label="Be declined",
            pay_explanation="Pays the first instalment. The shop then authorises the order and captures it.",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> Departure | None:
        match outcome:
            case Outcome.SUCCEED:
                await self._approve(entry, books, late=late)
                return _with_order(entry.success_url, entry, "approved")
            case Outcome.FAIL:
                await self._decline(entry, books)
                return _with_order(str(entry.details["failure_url"]), entry, "declined")
            case Outcome.CANCEL:
                return _with_order(entry.cancel_url or "", entry, "canceled")
            case Outcome.EXPIRE:
                if entry.status is not EntryStatus.EXPIRED:
                    await self.expire(entry, books)
        return None

    async def expire(self, entry: BookEntry, books: Books) -> None:
        """Nobody agreed in time, or nobody authorised what was agreed to."""
        entry.end(EntryStatus.EXPIRED)
        await books.record(entry, "expire")
        announce(entry, books, "order_expired")

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - it signs no body, as Tamara does
        return {
            "Authorization": f"Bearer {objects.notification_jwt(self._notification_token, at)}",
            **self._own_headers,
        }

    async def _approve(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        if objects.is_approved(entry) or entry.is_held() or entry.captured_minor:
            return
        if entry.status is not EntryStatus.OPEN:
            await self._approve_late(entry, books, late=late)
            return
        entry.details["approved_at"] = to_rfc3339(books.now)
        entry.expires_at = books.now + _APPROVAL_LIFE
        await books.record(entry, "approve", entry.amount_minor)
        announce(entry, books, "order_approved")

    async def _approve_late(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        """After the end nobody waits for an approval any more, and it would lapse: money comes late only where Tamara
        has set an account to authorise and capture by itself, so that is what this plays."""
        if not late or entry.hold_expires_at is not None:
            raise IllegalMove(f"an order that is {entry.status} cannot be approved")
        entry.pay(late=True)
        await self._hold(entry, books)
        await self._capture(entry, entry.amount_minor, {}, None, books)

    async def _hold(self, entry: BookEntry, books: Books) -> None:
        entry.hold_expires_at = books.now + _HOLD_LIFE
        await books.record(entry, "authorize", entry.amount_minor)
        announce(entry, books, "order_authorised")

    async def _decline(self, entry: BookEntry, books: Books) -> None:
        if entry.status is EntryStatus.FAILED:
            return
        if objects.is_approved(entry):
            raise IllegalMove("an order that is approved cannot be declined")
        entry.end(EntryStatus.FAILED)
        await books.record(entry, "decline")
        data = {"declined_reason": "risk_declined", "declined_code": "risk", "decline_type": "hard"}
        announce(entry, books, "order_declined", data)

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return statement(lines, day)


async def _entry(identifier: str, books: Books, *, for_update: bool = False) -> BookEntry:
    entry = await books.find(identifier, for_update=for_update)
    if entry is None or entry.gateway_reference != identifier:
        raise not_found()
    return entry


async def _not_allowed(entry: BookEntry, new_state: str, books: Books) -> WireError:
    old_state = objects.status_of(entry, await objects.records_of(entry, books))
    return transition_not_allowed(entry.gateway_reference, old_state, new_state)


def _with_order(url: str, entry: BookEntry, status: str) -> str | None:
    """Integrations see these two added to the address; neither proves anything."""
    if not url:
        return None
    added = urlencode({"paymentStatus": status, "orderId": entry.gateway_reference})
    return f"{url}{'&' if '?' in url else '?'}{added}"
