"""Stripe in the sandbox. Facts: payment_service/gateways/stripe.md; API version 2026-06-24.dahlia.

Amounts: integers in Stripe's minor units. Keys: ``Idempotency-Key`` on POST, answers kept 24 h, 500s included.
Webhooks: HMAC-SHA256 over timestamp and raw body, one ``v1`` per active secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, BookRefund, EntryStatus, IllegalMove, Outcome
from services.gateway_sandbox.domain.signatures import hmac_sha256_hex
from services.gateway_sandbox.gateways.port import (
    Announcement,
    Books,
    CheckoutLine,
    CheckoutView,
    EntryFilter,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.stripe import errors, objects
from services.gateway_sandbox.gateways.stripe.expand import expand, expand_list
from services.gateway_sandbox.gateways.stripe.form import Parameters, parse_body, parse_pairs
from services.gateway_sandbox.gateways.stripe.money import to_books
from services.gateway_sandbox.gateways.stripe.new_session import new_session
from services.gateway_sandbox.gateways.stripe.objects import Json
from services.gateway_sandbox.gateways.stripe.search import parse_query
from shared.money import Money

_LONGEST_IDEMPOTENCY_KEY = 255
_SEARCHED = 1000  # a development account has no more payments than this worth searching
_CANCEL_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer", "abandoned"})
_REFUND_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
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
_REFUND_PARAMETERS = frozenset(
    {
        "amount",
        "charge",
        "currency",
        "customer",
        "expand",
        "instructions_email",
        "metadata",
        "origin",
        "payment_intent",
        "reason",
        "refund_application_fee",
        "reverse_transfer",
    }
)
_DECLINE = {"code": "card_declined", "decline_code": "generic_decline", "message": "Your card was declined."}


class StripeSandbox:
    """Satisfies SandboxGateway. ``webhook_secrets`` sign in turn: one ``v1`` each."""

    name = "stripe"

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
            WireRoute("POST", "/v1/refunds", "refund", self.create_refund),
            WireRoute("GET", "/v1/refunds", "list", self.list_refunds),
            WireRoute("GET", "/v1/refunds/{id}", "retrieve", self.retrieve_refund),
            WireRoute("GET", "/v1/disputes", "list", self.list_disputes),
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
        return self._session_answer(entry, Parameters(parse_pairs(call.query)))

    async def retrieve_line_items(self, call: WireCall, books: Books) -> WireAnswer:
        return WireAnswer.json(200, objects.line_items(await self._session(call, books)))

    async def list_sessions(self, call: WireCall, books: Books) -> WireAnswer:
        query = Parameters(parse_pairs(call.query))
        intent = query.text("payment_intent")
        if intent is not None:
            entry = await books.find(intent)
            entries, has_more = ([entry] if entry is not None and entry.payment_reference == intent else []), False
        else:
            entries, has_more = await _page(query, books, paid_only=False)
        data = [objects.session(entry, self._page_url(entry)) for entry in entries]
        page = objects.as_list(data, "/v1/checkout/sessions", has_more=has_more)
        return WireAnswer.json(200, expand_list(page, entries, query.texts("expand")))

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
        body = objects.session(entry, self._page_url(entry))
        return WireAnswer.json(200, expand(body, entry, parameters.texts("expand")))

    def _page_url(self, entry: BookEntry) -> str:
        return f"{self._public_base_url}/sandbox/stripe/checkout/{entry.gateway_reference}"

    # --- payment intents ---------------------------------------------------------------------------------------

    async def retrieve_intent(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _intent(call.path_values["id"], books)
        query = Parameters(parse_pairs(call.query))
        return WireAnswer.json(200, expand(objects.payment_intent(entry), entry, query.texts("expand")))

    async def list_intents(self, call: WireCall, books: Books) -> WireAnswer:
        query = Parameters(parse_pairs(call.query))
        entries, has_more = await _page(query, books, paid_only=True)
        data = [objects.payment_intent(entry) for entry in entries]
        page = objects.as_list(data, "/v1/payment_intents", has_more=has_more)
        return WireAnswer.json(200, expand_list(page, entries, query.texts("expand")))

    async def search_intents(self, call: WireCall, books: Books) -> WireAnswer:
        query = Parameters(parse_pairs(call.query))
        matches = parse_query(query.required_text("query"))
        entries = await books.search(EntryFilter(paid_only=True, limit=_SEARCHED))
        found = [entry for entry in entries if matches(objects.payment_intent(entry))][: _limit(query)]
        data = [objects.payment_intent(entry) for entry in found]
        page: Json = {
            "object": "search_result",
            "data": data,
            "has_more": False,
            "next_page": None,
            "url": "/v1/payment_intents/search",
        }
        return WireAnswer.json(200, expand_list(page, found, query.texts("expand")))

    async def capture_intent(self, call: WireCall, books: Books) -> WireAnswer:
        parameters = Parameters(parse_body(call.body))
        parameters.allow_only(_CAPTURE_PARAMETERS)
        entry = await _intent(call.path_values["id"], books, for_update=True)
        if not entry.is_held():
            raise _unexpected_state(entry, "captured", "requires_capture")
        amount_minor = _amount(parameters, "amount_to_capture", entry) or entry.capturable_minor
        if amount_minor > entry.capturable_minor:
            message = "The amount to capture is larger than the amount that can be captured."
            raise errors.refused(message, code="amount_too_large", param="amount_to_capture")
        entry.take(amount_minor, final=parameters.boolean("final_capture") is not False)
        entry.details["intent"]["metadata"] |= parameters.metadata()
        await books.record(entry, "capture", amount_minor)
        if entry.status is EntryStatus.COMPLETED:
            self._announce(entry, books, "payment_intent.succeeded", call)
        return WireAnswer.json(200, expand(objects.payment_intent(entry), entry, parameters.texts("expand")))

    async def cancel_intent(self, call: WireCall, books: Books) -> WireAnswer:
        parameters = Parameters(parse_body(call.body))
        parameters.allow_only(frozenset({"cancellation_reason", "expand"}))
        reason = parameters.choice("cancellation_reason", _CANCEL_REASONS)
        entry = await _intent(call.path_values["id"], books, for_update=True)
        if not entry.is_held():
            raise _unexpected_state(entry, "canceled", "requires_capture")
        released_minor = entry.capturable_minor
        entry.release()
        entry.details |= {"cancellation_reason": reason, "canceled_at": objects.unix(books.now)}
        await books.record(entry, "void", released_minor)
        is_canceled = entry.status is EntryStatus.CANCELED
        self._announce(entry, books, "payment_intent.canceled" if is_canceled else "payment_intent.succeeded", call)
        return WireAnswer.json(200, expand(objects.payment_intent(entry), entry, parameters.texts("expand")))

    # --- refunds -----------------------------------------------------------------------------------------------

    async def create_refund(self, call: WireCall, books: Books) -> WireAnswer:
        parameters = Parameters(parse_body(call.body))
        parameters.allow_only(_REFUND_PARAMETERS)
        reason = parameters.choice("reason", _REFUND_REASONS)
        metadata = parameters.metadata()
        entry = await _refunded_intent(parameters, books)
        amount_minor = _refund_amount(parameters, entry)
        entry.give_back(amount_minor)
        refund = BookRefund(
            gateway=self.name,
            refund_id=books.new_id("re_"),
            gateway_reference=entry.gateway_reference,
            reference=metadata.get("refund_ref"),
            amount_minor=amount_minor,
            status="succeeded",
            reason=reason,
            created_at=books.now,
            metadata=metadata,
            details={"charge": objects.payment_intent(entry)["latest_charge"]},
        )
        await books.add_refund(entry, refund)
        self._announce_refund(entry, refund, books, call)
        return WireAnswer.json(200, expand(objects.refund(entry, refund), entry, parameters.texts("expand")))

    async def retrieve_refund(self, call: WireCall, books: Books) -> WireAnswer:
        refund = await books.find_refund(call.path_values["id"])
        entry = await books.find(refund.gateway_reference) if refund else None
        if refund is None or entry is None:
            raise errors.missing_resource("refund", call.path_values["id"], "id")
        query = Parameters(parse_pairs(call.query))
        return WireAnswer.json(200, expand(objects.refund(entry, refund), entry, query.texts("expand")))

    async def list_refunds(self, call: WireCall, books: Books) -> WireAnswer:
        query = Parameters(parse_pairs(call.query))
        entry = await _intent(query.required_text("payment_intent"), books, param="payment_intent")
        limit = _limit(query)
        refunds = await books.refunds_of(entry)
        after = query.text("starting_after")
        identifiers = [refund.refund_id for refund in refunds]
        start = identifiers.index(after) + 1 if after in identifiers else 0
        shown = refunds[start : start + limit]
        data = [objects.refund(entry, refund) for refund in shown]
        page = objects.as_list(data, "/v1/refunds", has_more=start + limit < len(refunds))
        return WireAnswer.json(200, expand_list(page, [entry] * len(shown), query.texts("expand")))

    async def list_disputes(self, call: WireCall, books: Books) -> WireAnswer:  # noqa: ARG002 - the port's
        """Nobody disputes a payment in the sandbox, and a client may ask."""
        return WireAnswer.json(200, objects.as_list([], "/v1/disputes"))

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
            declined_message=failure["message"] if failure else None,
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

    async def _confirm(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        _add_charge(entry, books, failure=None)
        entry.details["last_payment_error"] = None
        is_held = entry.status is EntryStatus.AUTHORIZED
        await books.record(entry, "authorize" if is_held else "charge", entry.amount_minor)
        intent_event = "payment_intent.amount_capturable_updated" if is_held else "payment_intent.succeeded"
        self._announce(entry, books, intent_event)
        self._announce(entry, books, "checkout.session.completed")

    async def _decline(self, entry: BookEntry, books: Books) -> None:
        """A declined card leaves the session open: the buyer may try another one on the same page."""
        if entry.status is not EntryStatus.OPEN:
            raise IllegalMove(f"a payment that is {entry.status} cannot be declined")
        _add_charge(entry, books, failure=_DECLINE)
        charge_id = entry.details["charges"][-1]["id"]
        entry.details["last_payment_error"] = {**_DECLINE, "charge": charge_id, "type": "card_error"}
        await books.record(entry, "decline", entry.amount_minor)
        self._announce(entry, books, "payment_intent.payment_failed")

    def _announce(self, entry: BookEntry, books: Books, event_type: str, call: WireCall | None = None) -> None:
        event_id = books.new_id("evt_")
        key = call.headers.get("idempotency-key") if call else None

        def render(shown: BookEntry) -> str:
            is_session = event_type.startswith("checkout.")
            data = objects.session(shown, self._page_url(shown)) if is_session else objects.payment_intent(shown)
            return _text(objects.event(event_id, event_type, books.now, data, key))

        books.announce(Announcement(event_id, event_type, entry, render))

    def _announce_refund(self, entry: BookEntry, refund: BookRefund, books: Books, call: WireCall) -> None:
        key = call.headers.get("idempotency-key")
        for event_type in ("refund.created", "charge.refunded", "refund.updated"):
            event_id = books.new_id("evt_")

            def render(shown: BookEntry, event_id: str = event_id, event_type: str = event_type) -> str:
                data = objects.charge(shown) if event_type.startswith("charge.") else objects.refund(shown, refund)
                return _text(objects.event(event_id, event_type, books.now, data, key))

            books.announce(Announcement(event_id, event_type, entry, render))


def _text(event: Json) -> str:
    return WireAnswer.json(200, event).body


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


async def _intent(identifier: str, books: Books, *, for_update: bool = False, param: str = "intent") -> BookEntry:
    entry = await books.find(identifier, for_update=for_update)
    if entry is None or entry.payment_reference != identifier:
        raise errors.missing_resource("payment_intent", identifier, param)
    return entry


async def _refunded_intent(parameters: Parameters, books: Books) -> BookEntry:
    intent, charge = parameters.text("payment_intent"), parameters.text("charge")
    if intent is None and charge is None:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise errors.invalid_parameter(message, param="payment_intent", code="parameter_missing")
    if intent is None:
        raise errors.refused("The sandbox refunds by payment_intent; a charge id is not looked up.", param="charge")
    return await _intent(intent, books, for_update=True, param="payment_intent")


def _refund_amount(parameters: Parameters, entry: BookEntry) -> int:
    if not entry.captured_minor:
        message = f"This PaymentIntent ({entry.payment_reference}) does not have a successful charge to refund."
        raise errors.refused(message, code="payment_intent_unexpected_state", param="payment_intent")
    if not entry.refundable_minor:
        charge = objects.payment_intent(entry)["latest_charge"]
        raise errors.refused(
            f"Charge {charge} has already been refunded.", code="charge_already_refunded", charge=charge
        )
    amount_minor = _amount(parameters, "amount", entry) or entry.refundable_minor
    if amount_minor > entry.refundable_minor:
        asked, left = Money(amount_minor, entry.currency), Money(entry.refundable_minor, entry.currency)
        message = f"Refund amount ({asked}) is greater than unrefunded amount on charge ({left})"
        raise errors.refused(message, param="amount")
    return amount_minor


def _amount(parameters: Parameters, key: str, entry: BookEntry) -> int | None:
    wire_amount = parameters.integer(key)
    if wire_amount is None:
        return None
    if wire_amount < 1:
        message = "Invalid positive integer"
        raise errors.invalid_parameter(message, param=parameters.name(key), code="parameter_invalid_integer")
    return to_books(wire_amount, entry.currency, param=parameters.name(key))


def _unexpected_state(entry: BookEntry, verb: str, allowed: str) -> WireError:
    status = objects.intent_status(entry)
    message = (
        f"This PaymentIntent could not be {verb} because it has a status of {status}. "
        f"Only a PaymentIntent with one of the following statuses may be {verb}: {allowed}."
    )
    intent = objects.payment_intent(entry)
    return errors.refused(message, code="payment_intent_unexpected_state", payment_intent=intent)


def _add_charge(entry: BookEntry, books: Books, *, failure: Mapping[str, str] | None) -> None:
    """The first confirmation, also a declined one, brings the PaymentIntent into being."""
    if entry.payment_reference is None:
        entry.payment_reference, entry.payment_created_at = books.new_id("pi_"), books.now
    charge = {
        "id": books.new_id("ch_"),
        "created": objects.unix(books.now),
        "failure": dict(failure) if failure else None,
    }
    entry.details["charges"] = [*entry.details.get("charges", []), charge]


async def _page(query: Parameters, books: Books, *, paid_only: bool) -> tuple[list[BookEntry], bool]:
    limit = _limit(query)
    created = query.nested("created") or Parameters({}, "created")
    wanted = EntryFilter(
        paid_only=paid_only,
        created_from=_moment(created, "gte", 0) or _moment(created, "gt", 1),
        created_before=_moment(created, "lt", 0) or _moment(created, "lte", 1),
        after=query.text("starting_after"),
        limit=limit + 1,
    )
    found = await books.search(wanted)
    return found[:limit], len(found) > limit


def _moment(created: Parameters, key: str, later: int) -> datetime | None:
    seconds = created.integer(key)
    if seconds is None:
        return None
    if not 0 <= seconds < 2**33:
        raise errors.invalid_parameter("Invalid timestamp", param=created.name(key), code="parameter_invalid_integer")
    return datetime.fromtimestamp(seconds + later, UTC)


def _limit(query: Parameters) -> int:
    limit = query.integer("limit")
    if limit is None:
        return 10
    if not 1 <= limit <= 100:
        raise errors.invalid_parameter(
            "limit must be between 1 and 100", param="limit", code="parameter_invalid_integer"
        )
    return limit


def _checkout_line(item: Mapping[str, Any], currency: str) -> CheckoutLine:
    amount_minor = to_books(item["unit_amount"] * item["quantity"], currency, param="line_items")
    return CheckoutLine(item["name"], item["quantity"], f"{Money(amount_minor, currency).as_major():f}")
