"""PhonePe in the sandbox. Facts: payment_service/gateways/phonepe.md.

Amounts: whole paise. Keys: none; an order and a refund are unique by the shop's own ids. Every call but the token's
carries a token. Webhooks: one header, the same for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.domain.models import (
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
    IllegalMove,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_end, book_refund
from services.gateway_sandbox.gateways.lacking import WithJsonAnswers, WithoutDisputes, WithoutHolds, WithoutKeys
from services.gateway_sandbox.gateways.phonepe import objects, wire
from services.gateway_sandbox.gateways.phonepe.tokens import Client
from services.gateway_sandbox.gateways.port import (
    Announcement,
    Books,
    CheckoutView,
    Departure,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.wording import worded
from shared.money import Money

_TOKEN_PATH = f"{wire.BASE}/v1/oauth/token"
_ORDER_REQUIRED = frozenset({"merchantOrderId", "amount", "paymentFlow"})
_ORDER_OPTIONAL = frozenset({"expireAfter", "metaInfo", "disablePaymentRetry", "prefillUserLoginDetails"})
_FLOW_REQUIRED, _FLOW_OPTIONAL = frozenset({"type", "merchantUrls"}), frozenset({"message", "paymentModeConfig"})
_REFUND_FIELDS = frozenset({"merchantRefundId", "originalMerchantOrderId", "amount"})
_USUAL_PAGE_SECONDS, _SHORTEST_PAGE_SECONDS, _LONGEST_PAGE_SECONDS = 1200, 300, 3600


class PhonepeSandbox(WithoutKeys, WithJsonAnswers, WithoutHolds, WithoutDisputes):
    """Satisfies SandboxGateway."""

    name = "phonepe"
    payouts = PayoutTerms(("INR",), "UTR{day:%Y%m%d}0001")

    def __init__(self, client: Client, *, webhook_credentials: str, public_base_url: str, merchant: str) -> None:
        self._client = client
        self._authorization = hashlib.sha256(webhook_credentials.encode()).hexdigest()
        self._pages = f"{public_base_url.rstrip('/')}/sandbox/phonepe/checkout"
        self._merchant = merchant
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", _TOKEN_PATH, "token", self.issue_token),
            WireRoute("POST", f"{wire.BASE}/checkout/v2/pay", "create_session", self.create_order),
            WireRoute("GET", f"{wire.BASE}/checkout/v2/order/{{name}}/status", "retrieve", self.order_status),
            WireRoute("POST", f"{wire.BASE}/payments/v2/refund", "refund", self.refund),
            WireRoute("GET", f"{wire.BASE}/payments/v2/refund/{{name}}/status", "retrieve", self.refund_status),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        if call.path != _TOKEN_PATH:
            self._client.authenticate(call)

    def no_such_route(self, call: WireCall) -> WireError:  # noqa: ARG002 - the port's
        return wire.not_found("NOT_FOUND")

    def broken(self, status: int) -> WireAnswer:
        return wire.error(status, "INTERNAL_SERVER_ERROR", "something went wrong").answer

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        answer = wire.error(429, "TOO_MANY_REQUESTS", "too many requests").answer
        return replace(answer, headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return wire.error(400, code or "BAD_REQUEST", f"the {operation} is refused")

    # --- calls -------------------------------------------------------------------------------------------------

    async def issue_token(self, call: WireCall, books: Books) -> WireAnswer:
        return WireAnswer.json(200, self._client.issue(call, books.new_id("", 16), books.now))

    async def create_order(self, call: WireCall, books: Books) -> WireAnswer:
        body = wire.json_body(call, _ORDER_REQUIRED, _ORDER_OPTIONAL)
        flow = wire.only(body["paymentFlow"], "paymentFlow", _FLOW_REQUIRED, _FLOW_OPTIONAL)
        if flow["type"] != "PG_CHECKOUT":
            raise wire.bad_request("paymentFlow.type must be PG_CHECKOUT")
        urls = wire.only(flow["merchantUrls"], "merchantUrls", frozenset({"redirectUrl"}))
        entry = _new_entry(body, wire.web_address(urls, "redirectUrl"), books)
        if await books.find(entry.reference or "") is not None:
            raise wire.error(409, "DUPLICATE_ORDER", "merchantOrderId was used before")
        await books.open(entry)
        await books.alias(entry, entry.reference or "")
        shown = objects.order(entry)
        answer = {key: shown[key] for key in ("orderId", "state", "expireAt")}
        return WireAnswer.json(200, {**answer, "redirectUrl": f"{self._pages}/{entry.gateway_reference}"})

    async def order_status(self, call: WireCall, books: Books) -> WireAnswer:
        wire.check_query(call, frozenset({"details", "errorContext"}))
        shown = objects.order(await _order(call.path_values["name"], books))
        if dict(call.query).get("details") != "true":
            shown["paymentDetails"] = shown["paymentDetails"][-1:]
        return WireAnswer.json(200, worded(shown, books, "state"))

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = wire.json_body(call, _REFUND_FIELDS)
        name, amount_minor = wire.identifier(body, "merchantRefundId"), wire.paise(body)
        entry = await _order(wire.identifier(body, "originalMerchantOrderId"), books, for_update=True)
        if await books.find_refund(name) is not None:
            raise wire.error(409, "DUPLICATE_REFUND", "merchantRefundId was used before")
        if entry.status is not EntryStatus.COMPLETED:
            raise wire.bad_request("the order is not completed")
        if amount_minor > entry.refundable_minor:
            raise wire.error(400, "EXCESS_REFUND_AMOUNT", "more than what is left of the order")
        made = await self._book_refund(entry, name, amount_minor, books, reference=name)
        return WireAnswer.json(200, objects.accepted(made))

    async def refund_status(self, call: WireCall, books: Books) -> WireAnswer:
        record = await books.find_refund(call.path_values["name"])
        entry = await books.find(record.gateway_reference) if record else None
        if record is None or entry is None:
            raise wire.not_found("REFUND_NOT_FOUND")
        return WireAnswer.json(200, worded(objects.refund(entry, record), books, "state"))

    async def _book_refund(
        self, entry: BookEntry, name: str, amount_minor: int, books: Books, *, reference: str | None
    ) -> BookRefund:
        details = {"refundId": _number("OMR", books)}
        made = await book_refund(entry, name, amount_minor, books, reference=reference, details=details)
        if made.status == "succeeded":
            _announce_refund("pg.refund.completed", entry, made, books)
        else:
            _announce_refund("pg.refund.accepted", entry, made, books)
        return made

    # --- the page ----------------------------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        has_failed = bool(entry.details["tries"]) and entry.is_payable()
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="PhonePe",
            lines=(),
            total=f"{Money(entry.amount_minor, entry.currency).as_major():f}",
            currency=entry.currency,
            is_manual_capture=False,
            cancel_explanation="Ends the order as cancelled, sends the webhook and goes back to the shop.",
            declined_message="The payment was declined. Try another way." if has_failed else None,
            instrument=("shopper@ybl", "Test UPI"),
            decline_label="Decline the payment",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> Departure | None:
        """There is one way back, and nothing is added to it: not who, not what became of it."""
        match outcome:
            case Outcome.SUCCEED:
                if entry.status is not EntryStatus.COMPLETED:
                    await self._pay(entry, books, late=late)
            case Outcome.FAIL:
                if not await self._decline(entry, books):
                    return None
            case Outcome.CANCEL:
                await self._end(entry, EntryStatus.CANCELED, "cancel", books)
            case Outcome.EXPIRE:
                await self.expire(entry, books)
                return None
        return entry.success_url

    async def expire(self, entry: BookEntry, books: Books) -> None:
        await self._end(entry, EntryStatus.EXPIRED, "expire", books)

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        entry.payment_reference, entry.payment_created_at = _note_try(entry, books, is_paid=True), books.now
        await books.record(entry, "charge", entry.amount_minor)
        _announce_order("checkout.order.completed", entry, books)

    async def _decline(self, entry: BookEntry, books: Books) -> bool:
        """Whether that was the end: unless the shop wants one try only, the page stays for another one."""
        if entry.status is EntryStatus.FAILED:
            return True
        if not entry.is_payable():
            raise IllegalMove(f"a payment that is {entry.status} cannot be declined")
        _note_try(entry, books, is_paid=False)
        if entry.details["single_try"]:
            await self._end(entry, EntryStatus.FAILED, "decline", books)
            return True
        await books.record(entry, "decline")
        _announce_order("checkout.transaction.attempt.failed", entry, books)
        return False

    async def _end(self, entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> None:
        if await book_end(entry, status, operation, books):
            _announce_order("checkout.order.failed", entry, books)

    # --- money without a call, webhooks, files -----------------------------------------------------------------

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._book_refund(entry, books.new_id("dash_", 20), amount_minor, books, reference=None)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if not refund.move(status, entry):
            return
        await books.save_refund(entry, refund, f"refund_{status}")
        name = "pg.refund.completed" if status == "succeeded" else "pg.refund.failed"
        _announce_refund(name, entry, refund, books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's: nothing is signed
        return {"Authorization": self._authorization}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return objects.settlement_file(lines, day)


async def _order(name: str, books: Books, *, for_update: bool = False) -> BookEntry:
    """By the shop's own id, and by no other."""
    entry = await books.find(name, for_update=for_update)
    if entry is None or entry.reference != name:
        raise wire.not_found("ORDER_NOT_FOUND")
    return entry


def _new_entry(body: wire.Json, redirect_url: str, books: Books) -> BookEntry:
    meta = wire.meta_info(body)
    seconds = _USUAL_PAGE_SECONDS
    if "expireAfter" in body:
        seconds = wire.whole(body, "expireAfter", _SHORTEST_PAGE_SECONDS, _LONGEST_PAGE_SECONDS)
    return BookEntry(
        gateway="phonepe",
        gateway_reference=_number("OMO", books),
        reference=wire.identifier(body, "merchantOrderId"),
        order_id=meta.get("udf2"),
        amount_minor=wire.paise(body),
        currency="INR",
        capture=CaptureMode.AUTOMATIC,
        success_url=redirect_url,
        cancel_url=redirect_url,
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=books.now + timedelta(seconds=seconds),
        metadata=meta,
        details={"single_try": wire.flag(body, "disablePaymentRetry"), "tries": []},
    )


def _number(prefix: str, books: Books) -> str:
    """PhonePe's ids are letters, the time, and a number."""
    digits = int(hashlib.sha256(books.new_id("", 32).encode()).hexdigest(), 16) % 10**10
    return f"{prefix}{books.now:%y%m%d%H%M%S}{digits:010}"


def _note_try(entry: BookEntry, books: Books, *, is_paid: bool) -> str:
    transaction_id = _number("OM", books)
    attempt = objects.new_try(transaction_id, books.now, is_paid=is_paid)
    entry.details["tries"] = [*entry.details["tries"], attempt]
    return transaction_id


def _announce_order(name: str, entry: BookEntry, books: Books) -> None:
    def render(shown: BookEntry) -> str:
        return to_json(objects.event(name, objects.order_payload(shown)))

    books.announce(Announcement(books.new_id("", 20), name, entry, render))


def _announce_refund(name: str, entry: BookEntry, refund: BookRefund, books: Books) -> None:
    def render(shown: BookEntry) -> str:
        return to_json(objects.event(name, objects.refund(shown, refund)))

    books.announce(Announcement(books.new_id("", 20), name, entry, render))
