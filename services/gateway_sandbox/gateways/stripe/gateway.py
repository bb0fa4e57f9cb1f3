"""Stripe in the sandbox. Facts: payment_service/gateways/stripe.md; API version 2026-06-24.dahlia.

Amounts: integers in Stripe's minor units. Keys: ``Idempotency-Key`` on POST, answers kept 24 h, 500s included.
Webhooks: HMAC-SHA256 over timestamp and raw body, one ``v1`` per active secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureStatus,
    DisputeStatus,
    EntryStatus,
    IllegalMove,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.domain.signatures import hmac_sha256_hex
from services.gateway_sandbox.gateways.bookkeeping import book_capture
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutLine,
    CheckoutView,
    EntryFilter,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.stripe import balance, disputes, errors, objects, refunds
from services.gateway_sandbox.gateways.stripe.events import announce
from services.gateway_sandbox.gateways.stripe.expand import expand, expand_list
from services.gateway_sandbox.gateways.stripe.form import Parameters, parse_body, parse_pairs
from services.gateway_sandbox.gateways.stripe.money import to_books
from services.gateway_sandbox.gateways.stripe.new_session import new_session
from services.gateway_sandbox.gateways.stripe.objects import STATUS_KEYS, Json
from services.gateway_sandbox.gateways.stripe.reading import amount_of, intent_of, limit_of, our_reference, page_of
from services.gateway_sandbox.gateways.stripe.search import parse_query
from services.gateway_sandbox.gateways.stripe.settlement import settlement_file
from services.gateway_sandbox.gateways.wording import worded
from shared.money import Money

_LONGEST_IDEMPOTENCY_KEY = 255
_SEARCHED = 1000  # a development account has no more payments than this worth searching
_CANCEL_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer", "abandoned"})
_LIST_PARAMETERS = frozenset({"created", "expand", "limit", "starting_after"})
_CAPTURE_PARAMETERS = frozenset(
    {
        "amount_details",
        "amount_to_capture",
        "application_fee_amount",
        "expand",
        "final_capture",
        "metadata",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "transfer_data",
        "payment_details",
        "hooks",
    }
)
_USUAL_REFUSALS = {
    "capture": "capture_charge_authorization_expired",
    "void": "payment_intent_unexpected_state",
    "refund": "balance_insufficient",
}
_CARD_CODES = frozenset({"card_declined", "expired_card", "insufficient_funds", "processing_error"})
_HOLD_LIFE = timedelta(days=7)
_MOST_CAPTURES = 50
_DECLINE = {"code": "card_declined", "decline_code": "generic_decline", "message": "Your card was declined."}


class StripeSandbox:
    """Satisfies SandboxGateway. ``webhook_secrets`` sign in turn: one ``v1`` each."""

    name = "stripe"
    payouts = balance.TERMS

    def __init__(self, *, webhook_secrets: Sequence[str], public_base_url: str, merchant: str) -> None:
        self._webhook_secrets = webhook_secrets
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/v1/checkout/sessions", "create_session", self.create_session),
            WireRoute("GET", "/v1/checkout/sessions", "list", self.list_sessions),
            WireRoute("GET", "/v1/checkout/sessions/{id}", "retrieve", self.retrieve_session),
            WireRoute("GET", "/v1/checkout/sessions/{id}/line_items", "retrieve", self.retrieve_line_items),
            WireRoute("POST", "/v1/checkout/sessions/{id}/expire", "expire_session", self.expire_session),
            WireRoute("GET", "/v1/payment_intents", "list", self.list_intents),
            WireRoute("GET", "/v1/payment_intents/search", "list", self.search_intents),
            WireRoute("GET", "/v1/payment_intents/{id}", "retrieve", self.retrieve_intent),
            WireRoute("POST", "/v1/payment_intents/{id}/capture", "capture", self.capture_intent),
            WireRoute("POST", "/v1/payment_intents/{id}/cancel", "void", self.cancel_intent),
            WireRoute("POST", "/v1/refunds", "refund", refunds.create_refund),
            WireRoute("GET", "/v1/refunds", "list", refunds.list_refunds),
            WireRoute("GET", "/v1/refunds/{id}", "retrieve", refunds.retrieve_refund),
            WireRoute("POST", "/v1/refunds/{id}/cancel", "void", refunds.cancel_refund),
            WireRoute("GET", "/v1/disputes", "list", disputes.list_disputes),
            WireRoute("GET", "/v1/disputes/{id}", "retrieve", disputes.retrieve_dispute),
            WireRoute("GET", "/v1/balance_transactions", "list", balance.list_balance_transactions),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        key = _api_key(call.headers.get("authorization", ""))
        if not key:
            raise errors.no_key()
        if not key.startswith(("sk_test_", "rk_test_")):
            raise errors.wrong_key(key)

    def idempotency_key(self, call: WireCall) -> str | None:
        key = call.headers.get("idempotency-key")
        if call.method != "POST" or not key:
            return None
        if len(key) > _LONGEST_IDEMPOTENCY_KEY:
            raise errors.key_too_long()
        return key

    def no_such_route(self, call: WireCall) -> WireError:
        return errors.no_such_url(call.method, call.path)

    def key_in_use(self) -> WireError:
        return errors.key_in_use()

    def key_reused(self, key: str) -> WireError:
        return errors.key_reused(key)

    def broken(self, status: int) -> WireAnswer:
        return errors.api_error(status)

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        headers = {"Retry-After": str(retry_after_seconds), "Stripe-Rate-Limited-Reason": "global-rate"}
        return replace(errors.rate_limited(), headers=headers)

    def refusal(self, operation: str, code: str | None) -> WireError:
        code = code or _USUAL_REFUSALS[operation]
        if code in _CARD_CODES:
            return errors.card_declined(code)
        return errors.refused(f"This {operation} cannot be made ({code}).", code=code)

    def finish(self, call: WireCall, answer: WireAnswer, request_id: str, *, replayed: bool) -> WireAnswer:
        headers = {
            "Content-Type": "application/json",
            "Request-Id": answer.headers.get("Request-Id", request_id),
            "Stripe-Version": call.headers.get("stripe-version", objects.API_VERSION),
        }
        key = call.headers.get("idempotency-key")
        if key and call.method == "POST":
            headers["Idempotency-Key"] = key
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        return replace(answer, headers={**answer.headers, **headers})

    # --- checkout sessions -------------------------------------------------------------------------------------

    async def create_session(self, call: WireCall, books: Books) -> WireAnswer:
        parameters = Parameters(parse_body(call.body))
        entry = new_session(parameters, books)
        await books.open(entry)
        return self._session_answer(entry, parameters)

    async def retrieve_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await self._session(call, books)
        body = self._session_body(entry, Parameters(parse_pairs(call.query)))
        return WireAnswer.json(200, worded(body, books, *STATUS_KEYS))

    async def retrieve_line_items(self, call: WireCall, books: Books) -> WireAnswer:
        return WireAnswer.json(200, objects.line_items(await self._session(call, books)))

    async def list_sessions(self, call: WireCall, books: Books) -> WireAnswer:
        query = Parameters(parse_pairs(call.query))
        intent = query.text("payment_intent")
        if intent is not None:
            entry = await books.find(intent)
            entries, has_more = ([entry] if entry is not None and entry.payment_reference == intent else []), False
        else:
            entries, has_more = await page_of(query, books, paid_only=False)
        data = [objects.session(entry, self._page_url(entry)) for entry in entries]
        page = objects.as_list(data, "/v1/checkout/sessions", has_more=has_more)
        page = expand_list(page, entries, query.texts("expand"))
        return WireAnswer.json(200, worded(page, books, *STATUS_KEYS))

    async def expire_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await self._session(call, books, for_update=True)
        if entry.status is not EntryStatus.OPEN:
            status = objects.session(entry, "")["status"]
            raise errors.refused(
                'Only Checkout Sessions with a status in ["open"] can be expired. '
                f"This Checkout Session has a status of `{status}`."
            )
        await self.expire(entry, books)
        return self._session_answer(entry, Parameters(parse_body(call.body)))

    async def _session(self, call: WireCall, books: Books, *, for_update: bool = False) -> BookEntry:
        identifier = call.path_values["id"]
        entry = await books.find(identifier, for_update=for_update)
        if entry is None or entry.gateway_reference != identifier:
            raise errors.missing_resource("checkout.session", identifier, "session")
        return entry

    def _session_answer(self, entry: BookEntry, parameters: Parameters) -> WireAnswer:
        return WireAnswer.json(200, self._session_body(entry, parameters))

    def _session_body(self, entry: BookEntry, parameters: Parameters) -> Json:
        return expand(objects.session(entry, self._page_url(entry)), entry, parameters.texts("expand"))

    def _page_url(self, entry: BookEntry) -> str:
        return f"{self._public_base_url}/sandbox/stripe/checkout/{entry.gateway_reference}"

    # --- payment intents ---------------------------------------------------------------------------------------

    async def retrieve_intent(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await intent_of(call.path_values["id"], books)
        query = Parameters(parse_pairs(call.query))
        body = expand(objects.payment_intent(entry), entry, query.texts("expand"))
        return WireAnswer.json(200, worded(body, books, *STATUS_KEYS))

    async def list_intents(self, call: WireCall, books: Books) -> WireAnswer:
        query = Parameters(parse_pairs(call.query))
        query.allow_only(_LIST_PARAMETERS)
        entries, has_more = await page_of(query, books, paid_only=True)
        data = [objects.payment_intent(entry) for entry in entries]
        page = objects.as_list(data, "/v1/payment_intents", has_more=has_more)
        page = expand_list(page, entries, query.texts("expand"))
        return WireAnswer.json(200, worded(page, books, *STATUS_KEYS))

    async def search_intents(self, call: WireCall, books: Books) -> WireAnswer:
        query = Parameters(parse_pairs(call.query))
        matches = parse_query(query.required_text("query"))
        entries = await books.search(EntryFilter(paid_only=True, limit=_SEARCHED))
        found = [entry for entry in entries if matches(objects.payment_intent(entry))][: limit_of(query)]
        data = [objects.payment_intent(entry) for entry in found]
        page: Json = {
            "object": "search_result",
            "data": data,
            "has_more": False,
            "next_page": None,
            "url": "/v1/payment_intents/search",
        }
        page = expand_list(page, found, query.texts("expand"))
        return WireAnswer.json(200, worded(page, books, *STATUS_KEYS))

    async def capture_intent(self, call: WireCall, books: Books) -> WireAnswer:
        parameters = Parameters(parse_body(call.body))
        parameters.allow_only(_CAPTURE_PARAMETERS)
        entry = await intent_of(call.path_values["id"], books, for_update=True)
        if objects.intent_status(entry) != "requires_capture":
            raise _unexpected_state(entry, "captured", "requires_capture")
        amount_minor = amount_of(parameters, "amount_to_capture", entry) or entry.capturable_minor
        if amount_minor > entry.capturable_minor:
            message = "The amount to capture is larger than the amount that can be captured."
            raise errors.refused(message, code="amount_too_large", param="amount_to_capture")
        final = parameters.boolean("final_capture") is not False
        if not final and len(await books.captures_of(entry)) >= _MOST_CAPTURES - 1:
            raise errors.refused(f"A PaymentIntent can be captured {_MOST_CAPTURES} times.", param="final_capture")
        metadata = parameters.metadata()
        entry.details["intent"]["metadata"] |= metadata
        await self._capture(entry, amount_minor, our_reference(metadata), books, call, final=final)
        return WireAnswer.json(200, expand(objects.payment_intent(entry), entry, parameters.texts("expand")))

    async def cancel_intent(self, call: WireCall, books: Books) -> WireAnswer:
        parameters = Parameters(parse_body(call.body))
        parameters.allow_only(frozenset({"cancellation_reason", "expand"}))
        reason = parameters.choice("cancellation_reason", _CANCEL_REASONS)
        entry = await intent_of(call.path_values["id"], books, for_update=True)
        if objects.intent_status(entry) != "requires_capture":
            raise _unexpected_state(entry, "canceled", "requires_capture")
        released_minor = entry.capturable_minor
        entry.release()
        if entry.status is EntryStatus.CANCELED:
            entry.details |= {"cancellation_reason": reason, "canceled_at": objects.unix(books.now)}
        _remember_release(entry, released_minor, books)
        await books.record(entry, "void", released_minor)
        self._announce(entry, books, _event_of_end(entry), call)
        return WireAnswer.json(200, expand(objects.payment_intent(entry), entry, parameters.texts("expand")))

    async def _capture(
        self,
        entry: BookEntry,
        amount_minor: int,
        reference: str | None,
        books: Books,
        call: WireCall | None = None,
        *,
        final: bool,
    ) -> None:
        """A capture is no object at Stripe; its record here tells tests which call took what."""
        released_minor = entry.capturable_minor - amount_minor
        if final and released_minor > 0:
            _remember_release(entry, released_minor, books)
        if books.answers_later:
            entry.details["capture_pending_minor"] = amount_minor
        capture_id = books.new_id("capture_")
        await book_capture(entry, capture_id, amount_minor, books, is_final=final, reference=reference)
        if books.answers_later:
            self._announce(entry, books, "payment_intent.processing", call)
        else:
            self._announce_captured(entry, books, call)

    def _announce_captured(self, entry: BookEntry, books: Books, call: WireCall | None = None) -> None:
        announce(entry, books, "charge.captured", objects.charge, call)
        is_done = entry.status is EntryStatus.COMPLETED
        event_type = "payment_intent.succeeded" if is_done else "payment_intent.amount_capturable_updated"
        self._announce(entry, books, event_type, call)

    # --- what happens without a call ---------------------------------------------------------------------------

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._capture(entry, amount_minor, None, books, final=True)

    async def settle_capture(self, entry: BookEntry, capture: BookCapture, status: CaptureStatus, books: Books) -> None:
        if not capture.move(status, entry):
            return
        entry.details.pop("capture_pending_minor", None)
        if status == "failed" and not entry.is_held() and not entry.captured_minor:
            entry.status = EntryStatus.FAILED
            entry.details["last_payment_error"] = {**_DECLINE, "type": "card_error"}
        await books.save_capture(entry, capture, f"capture_{status}")
        if status == "succeeded":
            self._announce_captured(entry, books)
        else:
            self._announce(entry, books, "payment_intent.payment_failed")

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        released_minor = entry.capturable_minor
        entry.lapse()
        if entry.status is EntryStatus.EXPIRED:
            entry.details |= {"cancellation_reason": "automatic", "canceled_at": objects.unix(books.now)}
        _remember_release(entry, released_minor, books)
        await books.record(entry, "expire_hold", released_minor)
        announce(entry, books, "charge.expired", objects.charge)
        self._announce(entry, books, _event_of_end(entry))

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await refunds.refund_in_dashboard(entry, amount_minor, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        await refunds.settle_refund(entry, refund, status, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        return await disputes.open_dispute(entry, amount_minor, reason, books)

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        await disputes.close_dispute(entry, dispute, status, books)

    # --- the buyer, time, webhooks -----------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        items = entry.details.get("line_items", [])
        failure = entry.details.get("last_payment_error")
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="Stripe",
            lines=[_checkout_line(item, entry.currency) for item in items],
            total=f"{Money(entry.amount_minor, entry.currency).as_major():f}",
            currency=entry.currency,
            is_manual_capture=entry.capture == "manual",
            cancel_explanation="Goes back to the shop. Stripe keeps the session open and sends no webhook.",
            declined_message=f"{failure['message']} Try again or use another card." if failure else None,
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> str | None:
        match outcome:
            case Outcome.SUCCEED:
                if entry.status not in (EntryStatus.COMPLETED, EntryStatus.AUTHORIZED):
                    await self._confirm(entry, books, late=late)
                return entry.success_url.replace("{CHECKOUT_SESSION_ID}", entry.gateway_reference)
            case Outcome.FAIL:
                await self._decline(entry, books)
            case Outcome.CANCEL:
                return entry.cancel_url
            case Outcome.EXPIRE:
                if entry.status is not EntryStatus.EXPIRED:
                    await self.expire(entry, books)
        return None

    async def expire(self, entry: BookEntry, books: Books) -> None:
        entry.end(EntryStatus.EXPIRED)
        await books.record(entry, "expire")
        self._announce(entry, books, "checkout.session.expired")

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:
        timestamp = str(objects.unix(at))
        content = timestamp.encode() + b"." + body
        signatures = [f"v1={hmac_sha256_hex(secret, content)}" for secret in self._webhook_secrets]
        return {"Stripe-Signature": ",".join([f"t={timestamp}", *signatures])}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return settlement_file(lines, day)

    async def _confirm(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        await _add_charge(entry, books, failure=None)
        entry.details["last_payment_error"] = None
        if entry.is_held():
            entry.hold_expires_at = books.now + _HOLD_LIFE
        is_held = entry.status is EntryStatus.AUTHORIZED
        await books.record(entry, "authorize" if is_held else "charge", entry.amount_minor)
        intent_event = "payment_intent.amount_capturable_updated" if is_held else "payment_intent.succeeded"
        self._announce(entry, books, intent_event)
        self._announce(entry, books, "checkout.session.completed")

    async def _decline(self, entry: BookEntry, books: Books) -> None:
        """A declined card leaves the session open: the buyer may try another one on the same page."""
        if entry.status is not EntryStatus.OPEN:
            raise IllegalMove(f"a payment that is {entry.status} cannot be declined")
        await _add_charge(entry, books, failure=_DECLINE)
        charge_id = entry.details["charges"][-1]["id"]
        entry.details["last_payment_error"] = {**_DECLINE, "charge": charge_id, "type": "card_error"}
        await books.record(entry, "decline", entry.amount_minor)
        self._announce(entry, books, "payment_intent.payment_failed")

    def _announce(self, entry: BookEntry, books: Books, event_type: str, call: WireCall | None = None) -> None:
        def session(shown: BookEntry) -> Json:
            return objects.session(shown, self._page_url(shown))

        picture = session if event_type.startswith("checkout.") else objects.payment_intent
        announce(entry, books, event_type, picture, call)


def _api_key(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("ascii").partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _unexpected_state(entry: BookEntry, verb: str, allowed: str) -> WireError:
    status = objects.intent_status(entry)
    message = (
        f"This PaymentIntent could not be {verb} because it has a status of {status}. "
        f"Only a PaymentIntent with one of the following statuses may be {verb}: {allowed}."
    )
    intent = objects.payment_intent(entry)
    return errors.refused(message, code="payment_intent_unexpected_state", payment_intent=intent)


async def _add_charge(entry: BookEntry, books: Books, *, failure: Mapping[str, str] | None) -> None:
    """The first confirmation, also a declined one, brings the PaymentIntent into being."""
    if entry.payment_reference is None:
        entry.payment_reference, entry.payment_created_at = books.new_id("pi_"), books.now
    charge: Json = {
        "id": books.new_id("ch_"),
        "created": objects.unix(books.now),
        "failure": dict(failure) if failure else None,
    }
    entry.details["charges"] = [*entry.details.get("charges", []), charge]
    await books.alias(entry, charge["id"])


def _remember_release(entry: BookEntry, amount_minor: int, books: Books) -> None:
    entry.details["released"] = {
        "id": books.new_id("re_"),
        "amount_minor": amount_minor,
        "at": books.now.isoformat(),
    }


def _event_of_end(entry: BookEntry) -> str:
    """A hold that ends after a partial capture leaves a PaymentIntent that has succeeded."""
    return "payment_intent.succeeded" if entry.captured_minor else "payment_intent.canceled"


def _checkout_line(item: Mapping[str, Any], currency: str) -> CheckoutLine:
    amount_minor = to_books(item["unit_amount"] * item["quantity"], currency, param="line_items")
    return CheckoutLine(item["name"], item["quantity"], f"{Money(amount_minor, currency).as_major():f}")
