"""PayU India in the sandbox. Facts: payment_service/gateways/payu.md.

The page is opened by a form that a browser posts, signed with the salt; the API is one address with commands. Webhooks
of payments are forms signed in their body, those of refunds and disputes JSON without a signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    CaptureStatus,
    DisputeStatus,
    EntryStatus,
    IllegalMove,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.lacking import WithJsonAnswers, WithoutKeys
from services.gateway_sandbox.gateways.payu import checkout, desk, objects
from services.gateway_sandbox.gateways.payu.events import Events
from services.gateway_sandbox.gateways.payu.settlement import TERMS, settlement_file
from services.gateway_sandbox.gateways.payu.wire import (
    command_hash,
    form_of,
    form_refused,
    html,
    paise,
    refused,
    rupees,
    same,
)
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutLine,
    CheckoutView,
    Departure,
    FormPost,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)

_FORM = "/_payment"


class PayuSandbox(WithoutKeys, WithJsonAnswers):
    """Satisfies SandboxGateway."""

    name = "payu"
    payouts = TERMS

    def __init__(self, *, merchant_key: str, salt: str, public_base_url: str, merchant: str) -> None:
        self._key = merchant_key
        self._salt = salt
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self._events = Events(merchant_key, salt)
        self._desk = desk.Desk(merchant_key, merchant, self._events)
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", _FORM, "checkout", self.open_checkout),
            *self._desk.routes,
        )

    # --- what every call meets -----------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        """The browser's form is checked where it is opened, because its refusal is a page."""
        if call.path == _FORM:
            return
        if dict(call.query).get("form") != "2":
            raise WireError(
                WireAnswer(200, 'a:2:{s:6:"status";i:0;s:3:"msg";s:4:"form";}', {"Content-Type": "text/html"})
            )
        form = form_of(call)
        if not same(form.get("key", ""), self._key):
            raise refused("Invalid key")
        if not same(form.get("hash", ""), command_hash(form, self._salt)):
            raise refused("Invalid Hash.")

    def no_such_route(self, call: WireCall) -> WireError:
        if call.path == desk.ADDRESS:
            return refused("Your key does not have the permission for this command")
        return WireError(html(404, "Not Found"))

    def broken(self, status: int) -> WireAnswer:
        return html(status, "Service Unavailable")

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        body = {"status": 0, "msg": "Too Many Requests, please wait for 60 seconds"}
        return WireAnswer.json(429, body, {"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return desk.refusal(operation, code)

    # --- the hosted page -----------------------------------------------------------------------------------------

    async def open_checkout(self, call: WireCall, books: Books) -> WireAnswer:
        """The form posted again leads to the same page, after a try that failed to a new one under the same txnid; a
        success uses the txnid up."""
        form = form_of(call)
        checkout.check_form(form, self._key, self._salt)
        entry = await books.find(form["txnid"], for_update=True)
        if entry is None:
            entry = checkout.new_entry(form, books)
            await books.open(entry)
            await books.alias(entry, objects.payu_id(entry))
        elif paise(form["amount"]) != entry.amount_minor or objects.state_of(entry)[0] == "success":
            raise form_refused("Duplicate transaction id")
        elif not entry.is_payable():
            await self._another_try(entry, books)
        page = f"{self._public_base_url}/sandbox/payu/checkout/{entry.gateway_reference}"
        return WireAnswer(303, "", {"Location": page})

    async def _another_try(self, entry: BookEntry, books: Books) -> None:
        """With an id of its own; the one before stays a name of the same entry."""
        entry.status, entry.expires_at = EntryStatus.OPEN, books.now + checkout.PAGE_LIFE
        entry.details["mihpayid"] = checkout.new_payu_id(books)
        await books.record(entry, "another_try")
        await books.alias(entry, objects.payu_id(entry))

    def checkout(self, entry: BookEntry) -> CheckoutView:
        total = rupees(entry.amount_minor)
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="PayU",
            lines=(CheckoutLine(entry.description or "", 1, total),),
            total=total,
            currency=entry.currency,
            is_manual_capture=entry.capture is CaptureMode.MANUAL,
            cancel_explanation="Fails the payment as cancelled by you, tells the shop, and posts the browser back.",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> Departure | None:
        match outcome:
            case Outcome.SUCCEED:
                if not entry.is_held() and not entry.captured_minor:
                    await self._pay(entry, books, late=late)
                return self._way_back(entry, entry.success_url)
            case Outcome.FAIL:
                await self._end(entry, EntryStatus.FAILED, "decline", books)
                return self._way_back(entry, entry.details["form"]["furl"])
            case Outcome.CANCEL:
                await self._end(entry, EntryStatus.CANCELED, "cancel", books)
                return self._way_back(entry, entry.cancel_url or entry.success_url)
            case Outcome.EXPIRE:
                await self.expire(entry, books)
        return None

    async def expire(self, entry: BookEntry, books: Books) -> None:
        await self._end(entry, EntryStatus.EXPIRED, "expire", books)

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        entry.payment_reference, entry.payment_created_at = objects.payu_id(entry), books.now
        if entry.captured_minor:
            entry.details["capture_request_id"] = checkout.new_number("13", 9, books)
            await books.alias(entry, entry.details["capture_request_id"])
        await books.record(entry, "authorize" if entry.is_held() else "charge", entry.amount_minor)
        self._events.payment_moved(entry, books)

    async def _end(self, entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> None:
        if entry.status is status and "cancel" not in entry.details:
            return
        if "cancel" in entry.details:
            raise IllegalMove("the payment was held and let go")
        entry.end(status)
        await books.record(entry, operation)
        self._events.payment_moved(entry, books)

    def _way_back(self, entry: BookEntry, url: str) -> FormPost:
        return FormPost(url, objects.returned_form(entry, self._key, self._salt, objects.state_of(entry)))

    # --- money without a call, and webhooks ----------------------------------------------------------------------

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        await self._desk.expire_hold(entry, books)

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._desk.capture_in_dashboard(entry, amount_minor, books)

    async def settle_capture(self, entry: BookEntry, capture: BookCapture, status: CaptureStatus, books: Books) -> None:
        await self._desk.settle_capture(entry, capture, status, books)

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._desk.refund_in_dashboard(entry, amount_minor, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        await self._desk.settle_refund(entry, refund, status, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        return await self._desk.open_dispute(entry, amount_minor, reason, books)

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        await self._desk.close_dispute(entry, dispute, status, books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's: the hash is in the body
        if body.startswith(b"{"):
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/x-www-form-urlencoded"}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return settlement_file(lines, day)
