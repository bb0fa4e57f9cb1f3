"""Paytm in the sandbox. Facts: payment_service/gateways/paytm.md.

Amounts: rupees as text with two decimals. Keys: none; an order and a refund are unique by the shop's references. Every
call carries a checksum of its body and is refused for any other. A form brings the shopper to the page, and another one
brings them back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from services.gateway_sandbox.domain.models import (
    BookEntry,
    BookRefund,
    EntryStatus,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.lacking import WithJsonAnswers, WithoutDisputes, WithoutHolds, WithoutKeys
from services.gateway_sandbox.gateways.paytm import events, objects
from services.gateway_sandbox.gateways.paytm.money import MoneyCalls, new_number
from services.gateway_sandbox.gateways.paytm.sessions import Sessions
from services.gateway_sandbox.gateways.paytm.settlement import settlement_file
from services.gateway_sandbox.gateways.paytm.wire import TRANSACTION, Wire, rupees
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutView,
    Departure,
    FormPost,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)

_PAGE = "/theia/api/v1/showPaymentPage"


class PaytmSandbox(WithoutKeys, WithJsonAnswers, WithoutHolds, WithoutDisputes):
    """Satisfies SandboxGateway."""

    name = "paytm"
    payouts = PayoutTerms(("INR",), "UTR{day:%Y%m%d}0001")

    def __init__(self, wire: Wire, *, website: str | None, public_base_url: str, merchant: str) -> None:
        self._wire = wire
        self._sessions = Sessions(wire, website)
        self._money = MoneyCalls(wire)
        self._pages = f"{public_base_url.rstrip('/')}/sandbox/paytm/checkout"
        self._merchant = merchant
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/theia/api/v1/initiateTransaction", "create_session", self._sessions.initiate),
            WireRoute("POST", _PAGE, "checkout", self.show_page),
            *self._money.routes,
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        """A call's checksum is its authentication, and each reads its own; a browser has none."""

    def no_such_route(self, call: WireCall) -> WireError:
        return WireError(WireAnswer.json(404, {"error": f"no {call.method} {call.path}"}), stored=False)

    def broken(self, status: int) -> WireAnswer:
        result = objects.result_info(("U", "501", "System Error"))
        return WireAnswer.json(status, {"head": {"version": "v1"}, "body": {"resultInfo": result}})

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        return replace(self.broken(429), headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        if operation == "refund":
            return self._money.refusal(code)
        return TRANSACTION(code or "1001", f"The {operation} is refused")

    # --- the page ----------------------------------------------------------------------------------------------

    async def show_page(self, call: WireCall, books: Books) -> WireAnswer:
        return await self._sessions.show_page(call, books, self._pages)

    def checkout(self, entry: BookEntry) -> CheckoutView:
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="Paytm",
            lines=(),
            total=rupees(entry.amount_minor),
            currency=entry.currency,
            is_manual_capture=False,
            cancel_explanation="Ends the order as cancelled, sends the webhook and goes back to the shop with a form.",
            instrument=("7777777777@paytm", "Test wallet and UPI"),
            decline_label="Decline the payment",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> Departure | None:
        match outcome:
            case Outcome.SUCCEED:
                if entry.status is not EntryStatus.COMPLETED:
                    await self._pay(entry, books, late=late)
            case Outcome.FAIL:
                await self._end(entry, EntryStatus.FAILED, "decline", books)
            case Outcome.CANCEL:
                await self._end(entry, EntryStatus.CANCELED, "cancel", books)
            case Outcome.EXPIRE:
                await self.expire(entry, books)
                return None
        return FormPost(entry.success_url, events.signed_form(objects.callback_fields(entry), self._wire))

    async def expire(self, entry: BookEntry, books: Books) -> None:
        """The token is dead. Nobody is told, and the order has no record, as before."""
        if entry.status is EntryStatus.EXPIRED:
            return
        entry.end(EntryStatus.EXPIRED)
        await books.record(entry, "expire")

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        self._note_try(entry, books)
        await books.record(entry, "charge", entry.amount_minor)
        events.payment_moved(entry, self._wire, books)

    async def _end(self, entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> None:
        """An order is one try: there is no second one on its page."""
        if entry.status is status:
            return
        entry.end(status)
        self._note_try(entry, books)
        await books.record(entry, operation)
        events.payment_moved(entry, self._wire, books)

    def _note_try(self, entry: BookEntry, books: Books) -> None:
        entry.payment_reference = entry.payment_reference or new_number(self._wire, books.now)
        entry.payment_created_at = books.now
        entry.details["bank_txn_id"] = f"{int.from_bytes(self._wire.randomness.token_bytes(5), 'big') % 10**12:012}"

    # --- money without a call, and webhooks --------------------------------------------------------------------

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._money.book(entry, books.new_id("DASH_", 20), amount_minor, books, reference=None)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        await self._money.settle(entry, refund, status, books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's: no time is signed
        """The checksum is in the body; what kind of body it is, the header says."""
        return {"Content-Type": events.content_type_of(body)}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return settlement_file(lines, day)
