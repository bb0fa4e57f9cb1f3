"""MyFatoorah in the sandbox. Facts: payment_service/gateways/myfatoorah.md.

Amounts: JSON numbers in, strings with labels out. Keys: none. Refunds wait until somebody decides them (control API).
Webhooks: HMAC-SHA256 over chosen fields, in version 2 or 1. Requests with fields that are not documented are refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.domain.models import (
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    DisputeStatus,
    EntryStatus,
    IllegalMove,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.lacking import WithJsonAnswers, WithoutKeys, WithoutPendingCaptures
from services.gateway_sandbox.gateways.myfatoorah import events, objects, sessions
from services.gateway_sandbox.gateways.myfatoorah.money import MoneyCalls, paid_attempt
from services.gateway_sandbox.gateways.myfatoorah.objects import Attempt, Json
from services.gateway_sandbox.gateways.myfatoorah.wire import (
    accepted,
    amount_of,
    entry_of,
    invalid,
    json_body,
    moment,
    one_of,
    refused,
    required_text,
)
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutView,
    EntryFilter,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.wording import worded
from shared.clock import to_rfc3339
from shared.money import Money

_HOLD_LIFE = timedelta(days=7)
_PAGE = 500
_LOOKED_THROUGH = 1000
_DECLINED, _CANCELED = "MF002", "MF006"


class MyFatoorahSandbox(WithoutKeys, WithJsonAnswers, WithoutPendingCaptures):
    """Satisfies SandboxGateway. Without ``api_token`` any token will do."""

    name = "myfatoorah"

    def __init__(
        self,
        *,
        api_token: str | None,
        webhook_secrets: Sequence[str],
        currency: str,
        zone: timezone,
        webhook_version: int,
        public_base_url: str,
        merchant: str,
    ) -> None:
        self._api_token = api_token
        self._webhook_secret = webhook_secrets[0]
        self._currency = currency
        foreign = "SAR" if currency == "AED" else "AED"
        self.payouts = PayoutTerms((currency, foreign), "{day:%Y%m%d}", foreign_reference="{day:%Y%m%d}{currency}")
        self._zone = zone
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self._announcer = events.Announcer(webhook_version, zone)
        self._money = MoneyCalls(self._announcer)
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/v2/InitiatePayment", "list", self.initiate),
            WireRoute("POST", "/v2/SendPayment", "create_session", self.send_payment),
            WireRoute("POST", "/v2/ExecutePayment", "create_session", self.execute_payment),
            WireRoute("POST", "/v2/GetPaymentStatus", "retrieve", self.payment_status),
            WireRoute("POST", "/v2/GetWebhooks", "list", self.webhook_log),
            *self._money.routes,
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        is_known = not self._api_token or hmac.compare_digest(token.encode(), self._api_token.encode())
        if scheme != "Bearer" or not token or not is_known:
            raise refused("The token is invalid or has expired", status=401)

    def no_such_route(self, call: WireCall) -> WireError:  # noqa: ARG002 - the port's
        return refused("No HTTP resource was found that matches the request URI", status=404)

    def broken(self, status: int) -> WireAnswer:
        return WireAnswer(status, "<html><body>Server Error</body></html>", {"Content-Type": "text/html"})

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        headers = {"Content-Type": "text/plain", "Retry-After": str(retry_after_seconds)}
        return WireAnswer(429, "API calls quota exceeded", headers)

    def refusal(self, operation: str, code: str | None) -> WireError:
        return self._money.refusal(operation, code)

    # --- invoices ----------------------------------------------------------------------------------------------

    async def initiate(self, call: WireCall, books: Books) -> WireAnswer:  # noqa: ARG002 - it stores nothing
        body = json_body(call, frozenset({"InvoiceAmount", "CurrencyIso"}))
        if required_text(body, "CurrencyIso", longest=3) != self._currency:
            raise invalid("CurrencyIso", f"this sandbox account is in {self._currency} and has no rates")
        minor = amount_of(body, "InvoiceAmount", self._currency)
        methods = [objects.method(*method, minor, self._currency) for method in objects.METHODS]
        return accepted({"PaymentMethods": methods})

    async def send_payment(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_body(call, sessions.LINK_REQUIRED, sessions.LINK_OPTIONAL)
        return await self._open(body, "InvoiceURL", books)

    async def execute_payment(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_body(call, sessions.EXECUTE_REQUIRED, sessions.EXECUTE_OPTIONAL)
        return await self._open(body, "PaymentURL", books)

    async def _open(self, body: Json, url_name: str, books: Books) -> WireAnswer:
        entry = sessions.new_invoice(body, books, currency=self._currency, zone=self._zone)
        await books.open(entry)
        return accepted(
            {
                "InvoiceId": int(entry.gateway_reference),
                url_name: f"{self._public_base_url}/sandbox/myfatoorah/checkout/{entry.gateway_reference}",
                "CustomerReference": entry.reference,
                "UserDefinedField": entry.details["user_field"],
            }
        )

    async def payment_status(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_body(call, frozenset({"KeyType", "Key"}))
        entry = await entry_of(body, books, ("InvoiceId", "PaymentId", "CustomerReference"))
        shown = objects.invoice(entry, self._zone)
        return accepted(worded(shown, books, "InvoiceStatus", "TransactionStatus"))

    # --- the hosted page ---------------------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        attempts = objects.attempts_of(entry)
        is_declined = bool(attempts) and attempts[-1]["code"] == _DECLINED
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="MyFatoorah",
            lines=(),
            total=f"{Money(entry.amount_minor, entry.currency).as_major():f}",
            currency=entry.currency,
            is_manual_capture=entry.capture is CaptureMode.MANUAL,
            cancel_explanation="This attempt fails; the invoice stays open, and the shop hears of it.",
            declined_message="The bank declined the payment. Try again." if is_declined else None,
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> str | None:
        match outcome:
            case Outcome.SUCCEED:
                if entry.status not in (EntryStatus.COMPLETED, EntryStatus.AUTHORIZED):
                    await self._pay(entry, books, late=late)
                return _way_back(entry, entry.success_url)
            case Outcome.FAIL:
                await self._fail(entry, _DECLINED, "decline", books)
                return _way_back(entry, entry.cancel_url)
            case Outcome.CANCEL:
                await self._fail(entry, _CANCELED, "cancel", books)
                return _way_back(entry, entry.cancel_url)
            case Outcome.EXPIRE:
                await self.expire(entry, books)
        return None

    async def expire(self, entry: BookEntry, books: Books) -> None:
        """There is neither a status nor an event for it: only the time on the invoice tells."""
        if entry.status is EntryStatus.EXPIRED:
            return
        entry.end(EntryStatus.EXPIRED)
        entry.expires_at = min(entry.expires_at, books.now)
        await books.record(entry, "expire")

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        attempt = await self._attempt(entry, "Authorize" if entry.is_held() else "Succss", "", books)
        if entry.is_held():
            entry.hold_expires_at = books.now + _HOLD_LIFE
        await books.record(entry, "authorize" if entry.is_held() else "charge", entry.amount_minor)
        self._announcer.payment(entry, attempt, books)

    async def _fail(self, entry: BookEntry, code: str, operation: str, books: Books) -> None:
        """An attempt has failed; the invoice stays open for the next one."""
        if not entry.is_payable():
            raise IllegalMove(f"a payment that is {entry.status} has no attempt that could fail")
        attempt = await self._attempt(entry, "Failed", code, books)
        await books.record(entry, operation)
        self._announcer.payment(entry, attempt, books)

    async def _attempt(self, entry: BookEntry, status: str, code: str, books: Books) -> Attempt:
        attempts = objects.attempts_of(entry)
        number = f"0100{entry.gateway_reference}{len(attempts) + 1:06}"
        attempt: Attempt = {"id": number, "status": status, "code": code, "at": to_rfc3339(books.now)}
        entry.details["attempts"] = [*attempts, attempt]
        entry.payment_reference, entry.payment_created_at = number, books.now
        await books.alias(entry, number)
        return attempt

    # --- the log of webhooks -----------------------------------------------------------------------------------

    async def webhook_log(self, call: WireCall, books: Books) -> WireAnswer:
        """What the books tell that must have been sent. Each entry holds the whole body, as text."""
        optional = frozenset({"EventType", "Status", "Key", "KeyType"})
        body = json_body(call, frozenset({"Start", "End", "Page"}), optional)
        start, end, page = moment(body, "Start"), moment(body, "End"), body["Page"]
        if type(page) is not int or page < 1:
            raise invalid("Page", "must be a positive number")
        wanted = one_of(body, "EventType", tuple(events.NAMES.values())) if "EventType" in body else None
        entries = await self._logged_entries(body, books)
        items = [item for entry in entries for item in await self._items(entry, books)]
        items = [item for at, name, item in items if start <= at < end and wanted in (None, name)]  # type: ignore[misc]
        shown = items[(page - 1) * _PAGE : page * _PAGE]
        pages = max(1, -(-len(items) // _PAGE))
        pagination = {"PageSize": _PAGE, "PageNumber": page, "PagesCount": pages, "ItemsCount": len(items)}
        return accepted({"Items": shown, "Pagination": pagination})

    async def _logged_entries(self, body: Json, books: Books) -> list[BookEntry]:
        if "Key" not in body:
            return await books.search(EntryFilter(limit=_LOOKED_THROUGH))
        one_of(body, "KeyType", ("InvoiceId", "CustomerReference", "WebhookReference"))
        keys = body["Key"]
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise invalid("Key", "must be a list")
        found = [await books.find(key) for key in keys]
        return [entry for entry in found if entry is not None]

    async def _items(self, entry: BookEntry, books: Books) -> list[tuple[datetime, str, Json]]:
        told: list[tuple[datetime, int, Json]] = [
            (datetime.fromisoformat(attempt["at"]), 1, objects.payment_event(entry, attempt))
            for attempt in objects.attempts_of(entry)
        ]
        told += [
            (record.closed_at or record.created_at, 6, objects.dispute_event(entry, record, paid_attempt(entry)))
            for record in await books.disputes_of(entry)
        ]
        return [(at, events.NAMES[code], _logged(entry, code, data, at)) for at, code, data in told]

    # --- money without a call, and webhooks --------------------------------------------------------------------

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        if not entry.is_held():
            raise IllegalMove(f"a payment that is {entry.status} holds nothing that could lapse")
        await self._money.release(entry, "expire_hold", books)

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._money.capture(entry, amount_minor, books)

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._money.refund_in_dashboard(entry, amount_minor, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        await self._money.settle_refund(entry, refund, status, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        return await self._money.open_dispute(entry, amount_minor, reason, books)

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        await self._money.close_dispute(entry, dispute, status, books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - no time is signed
        return {"MyFatoorah-Signature": events.signature(self._webhook_secret, body)}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        """What ``GetDepositedInvoices`` answers for a day's deposit."""
        deposited = [objects.deposited(line, self._zone) for line in lines]
        body = {"IsSuccess": True, "Message": "", "ValidationErrors": None, "Data": deposited}
        return SettlementFile(f"myfatoorah-deposit-{day:%Y%m%d}.json", "application/json", to_json(body).encode())


def _way_back(entry: BookEntry, url: str | None) -> str | None:
    if not url:
        return None
    return f"{url}{'&' if '?' in url else '?'}paymentId={entry.payment_reference}"


def _logged(entry: BookEntry, code: int, data: Json, at: datetime) -> Json:
    reference = f"WH-{entry.gateway_reference}-{code}-{int(at.timestamp())}"
    return {
        "EndPoint": entry.details["webhook_url"],
        "Signature": "",
        "EventCode": code,
        "EventName": events.NAMES[code],
        "EventEntityId": entry.gateway_reference,
        "WebhookReference": reference,
        "Data": to_json(events.version_2(code, data, at, reference)),
        "Status": "Succeeded",
        "Attempts": [],
    }
