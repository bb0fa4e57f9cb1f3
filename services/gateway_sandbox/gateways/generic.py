"""Our own hosted-checkout gateway: JSON in and out, amounts as decimal numbers in major units.

Keys: ``Idempotency-Key`` on POST, answers kept 24 h. Webhooks: hex HMAC-SHA256 of the raw body in ``X-Signature``.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.domain.models import (
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
    IllegalMove,
    MoreThanThereIs,
    Outcome,
)
from services.gateway_sandbox.domain.signatures import hmac_sha256_hex
from services.gateway_sandbox.gateways.port import (
    Announcement,
    Books,
    CheckoutView,
    EntryFilter,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from shared.clock import to_rfc3339
from shared.errors import InvalidAmount
from shared.money import CURRENCY_EXPONENT, MAX_AMOUNT_MINOR, Money

_DEFAULT_LIFE = timedelta(hours=1)
_LONGEST_LIFE = timedelta(days=7)
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

Json = dict[str, Any]


def _error(status: int, code: str, message: str, *, stored: bool = True) -> WireError:
    return WireError(WireAnswer.json(status, {"error": {"code": code, "message": message}}), stored=stored)


def _invalid(message: str) -> WireError:
    return _error(400, "invalid_request", message, stored=False)


class GenericSandbox:
    """Satisfies SandboxGateway. Without an ``api_key`` any bearer key will do."""

    name = "generic"

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
            WireRoute("GET", "/v1/payments/{id}/refunds", "list", self.list_refunds),
            WireRoute("GET", "/v1/refunds/{id}", "retrieve", self.retrieve_refund),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        scheme, _, key = call.headers.get("authorization", "").partition(" ")
        is_known = not self._api_key or hmac.compare_digest(key.strip().encode(), self._api_key.encode())
        if scheme.lower() != "bearer" or not key.strip() or not is_known:
            raise _error(401, "unauthorized", "A valid bearer API key is required.", stored=False)

    def idempotency_key(self, call: WireCall) -> str | None:
        key = call.headers.get("idempotency-key") if call.method == "POST" else None
        if key and len(key) > 255:
            raise _invalid("an Idempotency-Key has at most 255 characters")
        return key or None

    def no_such_route(self, call: WireCall) -> WireError:
        return _error(404, "not_found", f"There is no {call.method} {call.path}.", stored=False)

    def key_in_use(self) -> WireError:
        message = "A request with this Idempotency-Key is still running; repeat it shortly."
        return _error(409, "idempotency_key_in_use", message, stored=False)

    def key_reused(self, key: str) -> WireError:  # noqa: ARG002 - the port's
        message = "This Idempotency-Key was used with a different request."
        return _error(422, "idempotency_key_reused", message, stored=False)

    def broken(self, status: int) -> WireAnswer:
        return _error(status, "internal_error", "Something went wrong at the gateway.").answer

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        answer = _error(429, "rate_limited", "Too many requests.").answer
        return replace(answer, headers={"Retry-After": str(retry_after_seconds)})

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
        entry = _new_entry(_json_object(call, allowed=_SESSION_FIELDS), books)
        await books.open(entry)
        return WireAnswer.json(201, self._session(entry))

    async def retrieve_session(self, call: WireCall, books: Books) -> WireAnswer:
        return WireAnswer.json(200, self._session(await _entry(call, books)))

    async def list_sessions(self, call: WireCall, books: Books) -> WireAnswer:
        query = dict(call.query)
        entries = await books.search(
            EntryFilter(reference=query.get("reference"), order_id=query.get("order_id"), limit=100)
        )
        return WireAnswer.json(200, {"data": [self._session(entry) for entry in entries]})

    async def expire_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _entry(call, books, for_update=True)
        if entry.status is not EntryStatus.OPEN:
            raise _error(409, "session_not_open", f"The session is {entry.status} and cannot be expired.")
        await self.expire(entry, books)
        return WireAnswer.json(200, self._session(entry))

    def _session(self, entry: BookEntry) -> Json:
        return {
            "payment_id": entry.gateway_reference,
            "reference": entry.reference,
            "order_id": entry.order_id,
            "status": entry.status.value,
            "amount": _major(entry.amount_minor, entry),
            "amount_captured": _major(entry.captured_minor, entry),
            "amount_refunded": _major(entry.refunded_minor, entry),
            "currency": entry.currency,
            "capture": entry.capture.value,
            "description": entry.description,
            "customer_email": entry.customer_email,
            "checkout_url": f"{self._public_base_url}/sandbox/generic/checkout/{entry.gateway_reference}",
            "return_url": entry.success_url,
            "cancel_url": entry.cancel_url,
            "created_at": to_rfc3339(entry.created_at),
            "expires_at": to_rfc3339(entry.expires_at),
            "metadata": entry.metadata,
        }

    # --- money operations --------------------------------------------------------------------------------------

    async def capture(self, call: WireCall, books: Books) -> WireAnswer:
        body = _json_object(call, allowed=frozenset({"amount", "reference", "final"}))
        entry = await _entry(call, books, for_update=True)
        amount_minor = _amount(body, entry.currency) if "amount" in body else entry.capturable_minor
        final = body.get("final", True)
        if not isinstance(final, bool):
            raise _invalid("final must be true or false")
        with _refusals():
            entry.take(amount_minor, final=final)
        reference = _text(body, "reference")
        capture_id = books.new_id("gc_")
        await books.record(entry, "capture", amount_minor, capture_id=capture_id, reference=reference)
        self._announce(entry, books, "completed")
        capture = {"capture_id": capture_id, "reference": reference, "captured": _major(amount_minor, entry)}
        return WireAnswer.json(201, {**self._session(entry), **capture})

    async def void(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _entry(call, books, for_update=True)
        released_minor = entry.capturable_minor
        with _refusals():
            entry.release()
        await books.record(entry, "void", released_minor)
        self._announce(entry, books, entry.status.value)
        return WireAnswer.json(200, self._session(entry))

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = _json_object(call, allowed=frozenset({"amount", "reference", "reason"}))
        entry = await _entry(call, books, for_update=True)
        amount_minor = _amount(body, entry.currency) if "amount" in body else entry.refundable_minor
        with _refusals():
            entry.give_back(amount_minor)
        refund = BookRefund(
            gateway=self.name,
            refund_id=books.new_id("gr_"),
            gateway_reference=entry.gateway_reference,
            reference=_text(body, "reference"),
            amount_minor=amount_minor,
            status="succeeded",
            reason=_text(body, "reason"),
            created_at=books.now,
        )
        await books.add_refund(entry, refund)
        self._announce(entry, books, "refunded", refund)
        return WireAnswer.json(201, _refund(entry, refund))

    async def list_refunds(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _entry(call, books)
        return WireAnswer.json(200, {"data": [_refund(entry, refund) for refund in await books.refunds_of(entry)]})

    async def retrieve_refund(self, call: WireCall, books: Books) -> WireAnswer:
        refund = await books.find_refund(call.path_values["id"])
        entry = await books.find(refund.gateway_reference) if refund else None
        if refund is None or entry is None:
            raise _error(404, "not_found", "There is no such refund.")
        return WireAnswer.json(200, _refund(entry, refund))

    # --- the buyer, time, webhooks -----------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="Generic gateway",
            lines=(),
            total=f"{_major(entry.amount_minor, entry):f}",
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

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        is_held = entry.status is EntryStatus.AUTHORIZED
        await books.record(entry, "authorize" if is_held else "charge", entry.amount_minor)
        self._announce(entry, books, entry.status.value)

    async def _end(self, entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> None:
        if entry.status is status:
            return
        entry.end(status)
        await books.record(entry, operation)
        self._announce(entry, books, status.value)

    def _announce(self, entry: BookEntry, books: Books, status: str, refund: BookRefund | None = None) -> None:
        event_id = books.new_id("evt_")

        def render(shown: BookEntry) -> str:
            return WireAnswer.json(200, _webhook(shown, event_id, status, refund, books.now)).body

        books.announce(Announcement(event_id, f"payment.{status}", entry, render))


def _webhook(entry: BookEntry, event_id: str, status: str, refund: BookRefund | None, now: datetime) -> Json:
    """design.md §3. ``amount`` is the payment's; of a completed one what was captured, of a refund the refund's."""
    amount_minor = entry.captured_minor if status == "completed" else entry.amount_minor
    body: Json = {
        "event_id": event_id,
        "payment_id": entry.gateway_reference,
        "transaction_id": entry.reference,
        "status": status,
        "amount": _major(refund.amount_minor if refund else amount_minor, entry),
        "currency": entry.currency,
        "created_at": to_rfc3339(now),
        "metadata": entry.metadata,
    }
    if entry.order_id is not None:
        body["order_id"] = entry.order_id
    if refund is not None:
        body |= {"refund_id": refund.refund_id, "refund_reference": refund.reference}
    return body


def _refund(entry: BookEntry, refund: BookRefund) -> Json:
    return {
        "refund_id": refund.refund_id,
        "payment_id": entry.gateway_reference,
        "reference": refund.reference,
        "status": refund.status,
        "amount": _major(refund.amount_minor, entry),
        "currency": entry.currency,
        "reason": refund.reason,
        "created_at": to_rfc3339(refund.created_at),
    }


def _major(amount_minor: int, entry: BookEntry) -> Decimal:
    """With all of the currency's digits: 150.00 USD, 12.500 KWD, 500 JPY."""
    return Money(amount_minor, entry.currency).as_major()


async def _entry(call: WireCall, books: Books, *, for_update: bool = False) -> BookEntry:
    entry = await books.find(call.path_values["id"], for_update=for_update)
    if entry is None:
        raise _error(404, "not_found", "There is no such payment.")
    return entry


def _json_object(call: WireCall, *, allowed: frozenset[str]) -> Json:
    try:
        body = from_json(call.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise _invalid("the body is not valid JSON") from error
    if not isinstance(body, dict):
        raise _invalid("the body must be a JSON object")
    unknown = sorted(set(body) - allowed)
    if unknown:
        raise _invalid(f"unknown field: {unknown[0]}")
    return body


def _new_entry(body: Json, books: Books) -> BookEntry:
    reference = _required_text(body, "reference")
    currency = _required_text(body, "currency")
    if currency not in CURRENCY_EXPONENT:
        raise _invalid(f"unknown currency {currency!r}")
    capture = body.get("capture", "automatic")
    if capture not in ("automatic", "manual"):
        raise _invalid("capture must be automatic or manual")
    return BookEntry(
        gateway="generic",
        gateway_reference=books.new_id("gp_"),
        reference=reference,
        order_id=_text(body, "order_id"),
        amount_minor=_amount(body, currency),
        currency=currency,
        capture=CaptureMode(capture),
        success_url=_url(body, "return_url"),
        cancel_url=_url(body, "cancel_url"),
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=_expiry(body, books.now),
        customer_email=_text(body, "customer_email"),
        description=_text(body, "description"),
        metadata=_metadata(body),
    )


def _amount(body: Json, currency: str) -> int:
    value = body.get("amount")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _invalid("amount must be a number in major units, for example 150.00")
    try:
        amount_minor = Money.from_major(Decimal(value), currency).amount_minor
    except InvalidAmount as error:
        raise _error(400, "invalid_amount", error.detail, stored=False) from error
    if not 0 < amount_minor <= MAX_AMOUNT_MINOR:
        raise _error(400, "invalid_amount", "the amount must be positive and not huge", stored=False)
    return amount_minor


def _text(body: Json, key: str, *, longest: int = 500) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest:
        raise _invalid(f"{key} must be text of at most {longest} characters")
    return value


def _required_text(body: Json, key: str) -> str:
    value = _text(body, key)
    if not value:
        raise _invalid(f"{key} is required")
    return value


def _url(body: Json, key: str) -> str:
    value = _text(body, key, longest=2000)
    parts = urlsplit(value or "")
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or any(ord(character) < 33 for character in value or "")
    ):
        raise _invalid(f"{key} must be an http or https URL")
    return value or ""


def _expiry(body: Json, now: datetime) -> datetime:
    value = _text(body, "expires_at")
    if value is None:
        return now + _DEFAULT_LIFE
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = now.replace(tzinfo=None)
    if moment.tzinfo is None or not now < moment <= now + _LONGEST_LIFE:
        raise _invalid("expires_at must be an RFC 3339 time within the next 7 days")
    return moment


def _metadata(body: Json) -> dict[str, str]:
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("metadata must be an object of strings")
    return metadata


@contextmanager
def _refusals() -> Iterator[None]:
    """What the books forbid, in this gateway's words."""
    try:
        yield
    except MoreThanThereIs as error:
        raise _error(422, "amount_too_large", error.detail) from error
    except IllegalMove as error:
        raise _error(409, "illegal_state", error.detail) from error
