"""Our own hosted-checkout gateway. Its contract: payment_service/gateways/generic.md.

Keys: ``Idempotency-Key`` on POST, answers kept 24 h. Webhooks: hex HMAC-SHA256 of the raw body in ``X-Signature``.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    CaptureStatus,
    DisputeStatus,
    EntryStatus,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.domain.signatures import hmac_sha256_hex
from services.gateway_sandbox.gateways.bookkeeping import book_capture, book_dispute, book_end, book_refund
from services.gateway_sandbox.gateways.generic import objects
from services.gateway_sandbox.gateways.generic.listing import page_of
from services.gateway_sandbox.gateways.generic.settlement import settlement_file
from services.gateway_sandbox.gateways.generic.wire import (
    Json,
    amount_of,
    entry_of,
    invalid,
    json_object,
    new_entry,
    refusals,
    refused,
    text_of,
)
from services.gateway_sandbox.gateways.port import (
    Announcement,
    Books,
    CheckoutView,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.wording import worded

_HOLD_LIFE = timedelta(days=7)
_USUAL_REFUSALS = {
    "complete": "session_not_approved",
    "capture": "capture_declined",
    "void": "void_refused",
    "refund": "insufficient_funds",
}
_SESSION_FIELDS = frozenset(
    {
        "reference",
        "order_id",
        "amount",
        "currency",
        "description",
        "customer_email",
        "return_url",
        "cancel_url",
        "capture",
        "expires_at",
        "metadata",
    }
)


class GenericSandbox:
    """Satisfies SandboxGateway. Without an ``api_key`` any bearer key will do."""

    name = "generic"
    payouts = PayoutTerms(("USD", "EUR"), "gs_{day:%Y%m%d}{currency}")

    def __init__(
        self, *, api_key: str | None, webhook_secrets: Sequence[str], public_base_url: str, merchant: str
    ) -> None:
        self._api_key = api_key
        self._webhook_secret = webhook_secrets[0]
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/v1/sessions", "create_session", self.create_session),
            WireRoute("GET", "/v1/sessions", "list", self.list_sessions),
            WireRoute("GET", "/v1/sessions/{id}", "retrieve", self.retrieve_session),
            WireRoute("POST", "/v1/sessions/{id}/expire", "expire_session", self.expire_session),
            WireRoute("POST", "/v1/payments/{id}/captures", "capture", self.capture),
            WireRoute("POST", "/v1/payments/{id}/void", "void", self.void),
            WireRoute("POST", "/v1/payments/{id}/refunds", "refund", self.refund),
            WireRoute("GET", "/v1/payments/{id}/captures", "list", self.list_captures),
            WireRoute("GET", "/v1/payments/{id}/refunds", "list", self.list_refunds),
            WireRoute("GET", "/v1/refunds/{id}", "retrieve", self.retrieve_refund),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        scheme, _, key = call.headers.get("authorization", "").partition(" ")
        is_known = not self._api_key or hmac.compare_digest(key.strip().encode(), self._api_key.encode())
        if scheme.lower() != "bearer" or not key.strip() or not is_known:
            raise refused(401, "unauthorized", "A valid bearer API key is required.", stored=False)

    def idempotency_key(self, call: WireCall) -> str | None:
        key = call.headers.get("idempotency-key") if call.method == "POST" else None
        if key and len(key) > 255:
            raise invalid("an Idempotency-Key has at most 255 characters")
        return key or None

    def no_such_route(self, call: WireCall) -> WireError:
        return refused(404, "not_found", f"There is no {call.method} {call.path}.", stored=False)

    def key_in_use(self) -> WireError:
        message = "A request with this Idempotency-Key is still running; repeat it shortly."
        return refused(409, "idempotency_key_in_use", message, stored=False)

    def key_reused(self, key: str) -> WireError:  # noqa: ARG002 - the port's
        message = "This Idempotency-Key was used with a different request."
        return refused(422, "idempotency_key_reused", message, stored=False)

    def broken(self, status: int) -> WireAnswer:
        return refused(status, "internal_error", "Something went wrong at the gateway.").answer

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        answer = refused(429, "rate_limited", "Too many requests.").answer
        return replace(answer, headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return refused(422, code or _USUAL_REFUSALS[operation], f"The {operation} was refused.")

    def finish(
        self,
        call: WireCall,  # noqa: ARG002 - the port's
        answer: WireAnswer,
        request_id: str,
        *,
        replayed: bool,
    ) -> WireAnswer:
        headers = {"Content-Type": "application/json", "Request-Id": request_id}
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        return replace(answer, headers={**answer.headers, **headers})

    # --- sessions ----------------------------------------------------------------------------------------------

    async def create_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = new_entry(json_object(call, allowed=_SESSION_FIELDS), books)
        await books.open(entry)
        return WireAnswer.json(201, await self._session(entry, books))

    async def retrieve_session(self, call: WireCall, books: Books) -> WireAnswer:
        session = await self._session(await entry_of(call, books), books)
        return WireAnswer.json(200, worded(session, books, "status"))

    async def list_sessions(self, call: WireCall, books: Books) -> WireAnswer:
        entries, next_cursor = await page_of(call, books)
        data = [await self._session(entry, books) for entry in entries]
        more = {"next_cursor": next_cursor} if next_cursor else {}
        return WireAnswer.json(200, {"data": worded(data, books, "status"), **more})

    async def expire_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await entry_of(call, books, for_update=True)
        if entry.status is not EntryStatus.OPEN:
            raise refused(409, "session_not_open", f"The session is {entry.status} and cannot be expired.")
        await self.expire(entry, books)
        return WireAnswer.json(200, await self._session(entry, books))

    async def _session(self, entry: BookEntry, books: Books) -> Json:
        page_url = f"{self._public_base_url}/sandbox/generic/checkout/{entry.gateway_reference}"
        return objects.session(entry, await objects.records_of(entry, books), page_url)

    # --- money operations --------------------------------------------------------------------------------------

    async def capture(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_object(call, allowed=frozenset({"amount", "reference", "final"}))
        entry = await entry_of(call, books, for_update=True)
        amount_minor = amount_of(body, entry.currency) if "amount" in body else entry.capturable_minor
        final = body.get("final", True)
        if not isinstance(final, bool):
            raise invalid("final must be true or false")
        with refusals():
            record = await self._capture(entry, amount_minor, text_of(body, "reference"), books, final=final)
        answer = {"capture_id": record.capture_id, "capture": objects.capture(entry, record)}
        return WireAnswer.json(201, {**await self._session(entry, books), **answer})

    async def list_captures(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await entry_of(call, books)
        data = [objects.capture(entry, capture) for capture in await books.captures_of(entry)]
        return WireAnswer.json(200, {"data": worded(data, books, "status")})

    async def void(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_object(call, allowed=frozenset({"reference"}))
        entry = await entry_of(call, books, for_update=True)
        released_minor = entry.capturable_minor
        with refusals():
            entry.release()
        entry.details["voided"] = True
        await books.record(entry, "void", released_minor, reference=text_of(body, "reference"))
        await self._announce_status(entry, books)
        return WireAnswer.json(200, await self._session(entry, books))

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_object(call, allowed=frozenset({"amount", "reference", "reason"}))
        entry = await entry_of(call, books, for_update=True)
        amount_minor = amount_of(body, entry.currency) if "amount" in body else entry.refundable_minor
        with refusals():
            record = await self._refund(entry, amount_minor, text_of(body, "reference"), text_of(body, "reason"), books)
        return WireAnswer.json(201, objects.refund(entry, record))

    async def list_refunds(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await entry_of(call, books)
        data = [objects.refund(entry, refund) for refund in await books.refunds_of(entry)]
        return WireAnswer.json(200, {"data": worded(data, books, "status")})

    async def retrieve_refund(self, call: WireCall, books: Books) -> WireAnswer:
        refund = await books.find_refund(call.path_values["id"])
        entry = await books.find(refund.gateway_reference) if refund else None
        if refund is None or entry is None:
            raise refused(404, "not_found", "There is no such refund.")
        return WireAnswer.json(200, worded(objects.refund(entry, refund), books, "status"))

    async def _capture(
        self, entry: BookEntry, amount_minor: int, reference: str | None, books: Books, *, final: bool
    ) -> BookCapture:
        capture_id = books.new_id("gc_")
        capture = await book_capture(entry, capture_id, amount_minor, books, is_final=final, reference=reference)
        if capture.status == "succeeded":
            await self._announce_captured(entry, books)
        return capture

    async def _refund(
        self, entry: BookEntry, amount_minor: int, reference: str | None, reason: str | None, books: Books
    ) -> BookRefund:
        refund_id = books.new_id("gr_")
        refund = await book_refund(entry, refund_id, amount_minor, books, reference=reference, reason=reason)
        self._announce_refund(entry, refund, books)
        return refund

    # --- what happens without a call ---------------------------------------------------------------------------

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._capture(entry, amount_minor, None, books, final=True)

    async def settle_capture(self, entry: BookEntry, capture: BookCapture, status: CaptureStatus, books: Books) -> None:
        if not capture.move(status, entry):
            return
        if status == "failed":
            entry.status = EntryStatus.AUTHORIZED
        await books.save_capture(entry, capture, f"capture_{status}")
        if status == "succeeded":
            await self._announce_captured(entry, books)
        else:
            await self._announce_status(entry, books)

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        lapsed_minor = entry.capturable_minor
        entry.lapse()
        await books.record(entry, "expire_hold", lapsed_minor)
        await self._announce_status(entry, books)

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._refund(entry, amount_minor, None, None, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if not refund.move(status, entry):
            return
        if status == "failed":
            refund.details["failure_code"] = "account_closed"
        await books.save_refund(entry, refund, f"refund_{status}")
        self._announce_refund(entry, refund, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        dispute = await book_dispute(entry, books.new_id("gd_"), amount_minor, reason or "fraudulent", books)
        self._announce(entry, books, "disputed", more=objects.about_dispute(entry, dispute))
        return dispute

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        if not dispute.close(status, books.now):
            return
        await books.save_dispute(entry, dispute, f"dispute_{status}")
        self._announce(entry, books, f"dispute_{status}", more=objects.about_dispute(entry, dispute))

    # --- the buyer, time, webhooks -----------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="Generic gateway",
            lines=(),
            total=f"{objects.major(entry.amount_minor, entry):f}",
            currency=entry.currency,
            is_manual_capture=entry.capture is CaptureMode.MANUAL,
            cancel_explanation="Ends the payment as canceled, sends the webhook and goes back to the shop.",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> str | None:
        match outcome:
            case Outcome.SUCCEED:
                if entry.status not in (EntryStatus.COMPLETED, EntryStatus.AUTHORIZED):
                    await self._pay(entry, books, late=late)
                return entry.success_url
            case Outcome.FAIL:
                await self._end(entry, EntryStatus.FAILED, "decline", books)
                return entry.success_url
            case Outcome.CANCEL:
                await self._end(entry, EntryStatus.CANCELED, "cancel", books)
                return entry.cancel_url
            case Outcome.EXPIRE:
                await self._end(entry, EntryStatus.EXPIRED, "expire", books)
        return None

    async def expire(self, entry: BookEntry, books: Books) -> None:
        await self._end(entry, EntryStatus.EXPIRED, "expire", books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's
        return {"X-Signature": hmac_sha256_hex(self._webhook_secret, body)}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return settlement_file(lines, day)

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        if entry.is_held():
            entry.hold_expires_at = books.now + _HOLD_LIFE
        await books.record(entry, "authorize" if entry.is_held() else "charge", entry.amount_minor)
        self._announce(entry, books, entry.status.value)

    async def _end(self, entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> None:
        if await book_end(entry, status, operation, books):
            self._announce(entry, books, status.value)

    async def _announce_captured(self, entry: BookEntry, books: Books) -> None:
        records = await objects.records_of(entry, books)
        self._announce(entry, books, "completed", pending_minor=records.capture_pending_minor)

    async def _announce_status(self, entry: BookEntry, books: Books) -> None:
        records = await objects.records_of(entry, books)
        status = objects.status_of(entry, records)
        self._announce(entry, books, status, pending_minor=records.capture_pending_minor)

    def _announce_refund(self, entry: BookEntry, refund: BookRefund, books: Books) -> None:
        status = "refunded" if refund.status == "succeeded" else f"refund_{refund.status}"
        self._announce(entry, books, status, more=objects.about_refund(entry, refund))

    def _announce(
        self, entry: BookEntry, books: Books, status: str, *, pending_minor: int = 0, more: Json | None = None
    ) -> None:
        event_id = books.new_id("evt_")
        captured_minor = entry.captured_minor - pending_minor

        def render(shown: BookEntry) -> str:
            amount_minor = shown.amount_minor
            if status == "completed":  # a copy with a wrong amount tells that one
                amount_minor = captured_minor if shown is entry else shown.captured_minor
            body = objects.webhook(shown, event_id, status, amount_minor, books.now)
            return WireAnswer.json(200, {**body, **(more or {})}).body

        books.announce(Announcement(event_id, f"payment.{status}", entry, render))
