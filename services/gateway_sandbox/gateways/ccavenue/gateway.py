"""CCAvenue in the sandbox. Facts: payment_service/gateways/ccavenue.md.

No key and no signature: everything is encrypted under a working key. Amounts: decimal text with two digits. A try of
the shopper begins when the browser posts the form, and several may share the shop's order number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from services.gateway_sandbox.domain.models import (
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    DisputeStatus,
    EntryStatus,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.ccavenue import objects
from services.gateway_sandbox.gateways.ccavenue.money import MoneyCalls
from services.gateway_sandbox.gateways.ccavenue.payouts import PayoutReports
from services.gateway_sandbox.gateways.ccavenue.settlement import TERMS, settlement_file
from services.gateway_sandbox.gateways.ccavenue.wire import API, PAGE, Keys, checkout_fields, form_of, refused
from services.gateway_sandbox.gateways.lacking import WithoutKeys, WithoutPendingCaptures
from services.gateway_sandbox.gateways.port import (
    Announcement,
    Books,
    CheckoutView,
    FormPost,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from shared.money import Money

_PAGE_LIFE = timedelta(minutes=15)
_HOLD_LIFE = timedelta(days=12)
_USUAL_REFUSALS = {"capture": "51303", "complete": "51303", "void": "51303", "refund": "51310"}


class CCAvenueSandbox(WithoutKeys, WithoutPendingCaptures):
    """Satisfies SandboxGateway. Without a merchant id or access codes any will do."""

    name = "ccavenue"
    payouts = TERMS

    def __init__(
        self,
        *,
        merchant_id: str | None,
        page: Keys,
        api: Keys,
        is_confirmed_by_hand: bool,
        public_base_url: str,
        merchant: str,
    ) -> None:
        self._merchant_id = merchant_id
        self._page = page
        self._api = api
        self._is_confirmed_by_hand = is_confirmed_by_hand
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self._money = MoneyCalls(api, self._tell)
        self.routes: Sequence[WireRoute] = (
            *self._money.routes,
            *PayoutReports(api).routes,
            WireRoute("POST", PAGE, "checkout", self.open_checkout),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        if call.path == API and not self._api.knows(form_of(call).get("access_code", "")):
            raise refused("51407", "Access code is invalid")

    def no_such_route(self, call: WireCall) -> WireError:
        if call.path == API and call.method == "POST":
            return refused("51410", "Command is invalid")
        return WireError(WireAnswer(404, "<html><body>Not found</body></html>"), stored=False)

    def broken(self, status: int) -> WireAnswer:
        return WireAnswer(status, "<html><body>We are sorry, something went wrong.</body></html>")

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        return WireAnswer(429, "<html><body>Busy</body></html>", {"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return refused(code or _USUAL_REFUSALS[operation], "Refused")

    def finish(self, call: WireCall, answer: WireAnswer, request_id: str, *, replayed: bool) -> WireAnswer:  # noqa: ARG002
        return replace(answer, headers={"Content-Type": "text/html; charset=utf-8", **answer.headers})

    # --- the hosted page ---------------------------------------------------------------------------------------

    async def open_checkout(self, call: WireCall, books: Books) -> WireAnswer:
        """Every post is a new try, under a number that need not be new."""
        fields = checkout_fields(call, self._page, self._merchant_id)
        currency = fields["currency"]
        params = {name: value for name, value in fields.items() if name.startswith("merchant_param")}
        tracking_id = f"313{_digits(books, 9)}"
        entry = BookEntry(
            gateway=self.name,
            gateway_reference=tracking_id,
            reference=fields["order_id"],
            order_id=params.get("merchant_param3"),
            amount_minor=Money.from_major(fields["amount"], currency).amount_minor,
            currency=currency,
            capture=CaptureMode.MANUAL if self._is_confirmed_by_hand else CaptureMode.AUTOMATIC,
            success_url=fields["redirect_url"],
            cancel_url=fields["cancel_url"],
            page_token=books.new_id("", 32),
            created_at=books.now,
            expires_at=books.now + _PAGE_LIFE,
            customer_email=fields.get("billing_email"),
            metadata=params,
            details={"billing": {name: value for name, value in fields.items() if name.startswith("billing_")}},
        )
        await books.open(entry)
        location = f"{self._public_base_url}/sandbox/{self.name}/checkout/{tracking_id}"
        return WireAnswer(303, "", {"Location": location})

    def checkout(self, entry: BookEntry) -> CheckoutView:
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="CCAvenue",
            lines=(),
            total=f"{Money(entry.amount_minor, entry.currency).as_major():f}",
            currency=entry.currency,
            is_manual_capture=entry.capture is CaptureMode.MANUAL,
            cancel_explanation="Ends this try (Aborted) and goes back to the shop.",
            declined_message="The bank declined the payment." if entry.status is EntryStatus.FAILED else None,
            instrument=("UPI", "Test bank"),
            decline_label="Decline at the bank",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> FormPost | None:
        match outcome:
            case Outcome.SUCCEED:
                if not entry.is_held() and not entry.captured_minor:
                    await self._pay(entry, books, late=late)
            case Outcome.FAIL:
                await self._end(entry, EntryStatus.FAILED, "decline", books)
            case Outcome.CANCEL:
                await self._end(entry, EntryStatus.CANCELED, "cancel", books)
                return self._way_back(entry, entry.cancel_url or "", books)
            case Outcome.EXPIRE:
                await self.expire(entry, books)
        return self._way_back(entry, entry.success_url, books)

    async def expire(self, entry: BookEntry, books: Books) -> None:
        await self._end(entry, EntryStatus.EXPIRED, "expire", books)

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        entry.payment_reference, entry.payment_created_at = entry.gateway_reference, books.now
        entry.details |= {"bank_ref_no": _digits(books, 12), "moved_at": books.now.isoformat()}
        if entry.is_held():
            entry.hold_expires_at = books.now + _HOLD_LIFE
        await books.record(entry, "authorize" if entry.is_held() else "charge", entry.amount_minor)
        self._tell(entry, books)

    async def _end(self, entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> None:
        """A try ends once; whoever presses twice changes nothing."""
        if entry.status is status:
            return
        entry.end(status)
        entry.details["moved_at"] = books.now.isoformat()
        await books.record(entry, operation)
        self._tell(entry, books)

    def _way_back(self, entry: BookEntry, url: str, books: Books) -> FormPost:
        text = objects.callback_text(entry, entry.details.get("bank_ref_no") or _digits(books, 12))
        return FormPost(url, {"encResp": self._page.seal(text), "orderNo": entry.reference or ""})

    def _tell(self, entry: BookEntry, books: Books) -> None:
        """Events differ in their bank's number at least: equal texts would be equal encrypted, and one event."""
        bank_ref_no = _digits(books, 12)

        def render(shown: BookEntry) -> str:
            return urlencode({"encResp": self._page.seal(objects.callback_text(shown, bank_ref_no))})

        books.announce(Announcement(books.new_id("evt_"), objects.status_word(entry), entry, render))

    # --- what happens without a call -----------------------------------------------------------------------------

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        await self._money.expire_hold(entry, books)

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._money.capture_in_dashboard(entry, amount_minor, books)

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._money.refund_in_dashboard(entry, amount_minor, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        await self._money.settle_refund(entry, refund, status, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        return await self._money.open_dispute(entry, amount_minor, reason, books)

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        await self._money.close_dispute(entry, dispute, status, books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - there is no signature
        return {"Content-Type": "application/x-www-form-urlencoded"}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return settlement_file(lines, day)


def _digits(books: Books, count: int) -> str:
    return "".join(str(ord(character) % 10) for character in books.new_id("", count))
