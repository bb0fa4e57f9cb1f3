"""Razorpay in the sandbox. Facts: payment_service/gateways/razorpay.md.

Amounts: integers in sub-units. Keys: ``X-Refund-Idempotency``, for refunds alone; links are unique by ``reference_id``.
Webhooks: hex HMAC-SHA256 of the raw body. Requests with fields that are not documented are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from urllib.parse import parse_qsl, urlencode

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
from services.gateway_sandbox.domain.signatures import hmac_sha256_hex
from services.gateway_sandbox.gateways.lacking import WithoutPendingCaptures
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutView,
    EntryFilter,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.razorpay import errors, events, fields, objects, pages, sessions, settlement
from services.gateway_sandbox.gateways.razorpay.money import MoneyCalls, page
from services.gateway_sandbox.gateways.razorpay.objects import Json, Try
from services.gateway_sandbox.gateways.wording import worded
from shared.money import Money

_REFUND = re.compile(r"/v1/payments/[^/]+/refund")
_KEY = re.compile(r"[A-Za-z0-9_-]{10,}")
_BROWSER = "/v1/checkout/"
"""The pages that a shopper's browser opens; they carry no API key."""

_LOOKED_THROUGH = 1000
_LINKS_QUERY = frozenset({"reference_id", "payment_id", "count", "skip", "from", "to"})
_ORDERS_QUERY = frozenset({"receipt", "authorized", "from", "to", "count", "skip", "expand[]"})


class RazorpaySandbox(WithoutPendingCaptures):
    """Satisfies SandboxGateway. Without ``key_id`` and ``key_secret`` any test key will do."""

    name = "razorpay"
    payouts = settlement.TERMS

    def __init__(
        self,
        *,
        key_id: str | None,
        key_secret: str | None,
        webhook_secrets: Sequence[str],
        public_base_url: str,
        merchant: str,
    ) -> None:
        self._key_id = key_id
        self._key_secret = key_secret
        self._webhook_secret = webhook_secrets[0]
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self._money = MoneyCalls(self._page_url)
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/v1/payment_links", "create_session", self.create_link),
            WireRoute("GET", "/v1/payment_links", "list", self.list_links),
            WireRoute("GET", "/v1/payment_links/{id}", "retrieve", self.retrieve_link),
            WireRoute("POST", "/v1/payment_links/{id}/cancel", "expire_session", self.cancel_link),
            WireRoute("POST", "/v1/orders", "create_session", self.create_order),
            WireRoute("GET", "/v1/orders", "list", self.list_orders),
            WireRoute("GET", "/v1/orders/{id}", "retrieve", self.retrieve_order),
            WireRoute("GET", "/v1/orders/{id}/payments", "list", self.list_payments_of_order),
            *self._money.routes,
            WireRoute("GET", "/v1/settlements", "list", settlement.list_settlements),
            WireRoute("GET", "/v1/settlements/recon/combined", "list", settlement.list_recon),
            WireRoute("POST", f"{_BROWSER}embedded", "checkout", self.open_checkout),
            WireRoute("GET", _BROWSER + "return/{id}", "checkout", self.return_to_shop),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        if call.path.startswith(_BROWSER):
            return
        key_id, key_secret = _basic(call.headers.get("authorization", ""))
        is_known = hmac.compare_digest(key_id.encode(), (self._key_id or key_id).encode()) and hmac.compare_digest(
            key_secret.encode(), (self._key_secret or key_secret).encode()
        )
        if not key_id.startswith("rzp_test_") or not key_secret or not is_known:
            raise errors.not_authenticated()

    def idempotency_key(self, call: WireCall) -> str | None:
        key = call.headers.get("x-refund-idempotency")
        if key is None or call.method != "POST" or not _REFUND.fullmatch(call.path):
            return None
        if not _KEY.fullmatch(key):
            raise errors.invalid("The idempotency key must be at least 10 letters, digits, hyphens or underscores.")
        return key

    def no_such_route(self, call: WireCall) -> WireError:  # noqa: ARG002 - the port's
        return errors.no_such_url()

    def key_in_use(self) -> WireError:
        return errors.key_in_use()

    def key_reused(self, key: str) -> WireError:  # noqa: ARG002 - the port's
        return errors.key_reused()

    def broken(self, status: int) -> WireAnswer:
        return errors.server_error(status)

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        return replace(errors.too_many_requests(), headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return self._money.refusal(operation, code)

    def finish(
        self,
        call: WireCall,  # noqa: ARG002 - the port's
        answer: WireAnswer,
        request_id: str,
        *,
        replayed: bool,  # noqa: ARG002 - the port's: Razorpay does not say
    ) -> WireAnswer:
        return replace(answer, headers={"Content-Type": "application/json", "Request-Id": request_id, **answer.headers})

    # --- payment links -----------------------------------------------------------------------------------------

    async def create_link(self, call: WireCall, books: Books) -> WireAnswer:
        entry = sessions.new_link(fields.json_body(call, sessions.LINK_FIELDS), books)
        if entry.reference and await self._links_of(entry.reference, books):
            raise errors.refused(f"payment link creation with reference_id ({entry.reference}) already attempted")
        await books.open(entry)
        await books.alias(entry, entry.details["order_id"])
        return WireAnswer.json(200, objects.payment_link(entry, self._page_url(entry)))

    async def retrieve_link(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _session(call, books, "plink_")
        return WireAnswer.json(200, worded(objects.payment_link(entry, self._page_url(entry)), books, "status"))

    async def list_links(self, call: WireCall, books: Books) -> WireAnswer:
        """Under a name of its own, not ``items`` as in every other list."""
        query = dict(call.query)
        fields.only(query, _LINKS_QUERY)
        if "payment_id" in query:
            entry = await books.find(query["payment_id"])
            links = [entry] if entry is not None and objects.is_link(entry) else []
        else:
            links = await self._links_of(query.get("reference_id"), books)
        shown = [objects.payment_link(entry, self._page_url(entry)) for entry in links]
        items = page(shown, call, _LINKS_QUERY)["items"]
        return WireAnswer.json(200, {"payment_links": worded(items, books, "status")})

    async def cancel_link(self, call: WireCall, books: Books) -> WireAnswer:
        fields.json_body(call, frozenset())
        entry = await _session(call, books, "plink_", for_update=True)
        if objects.link_status(entry) != "created":
            raise errors.refused(f"Payment link in {objects.link_status(entry)} state can't be cancelled")
        await self._end_link(entry, EntryStatus.CANCELED, books)
        return WireAnswer.json(200, objects.payment_link(entry, self._page_url(entry)))

    async def _links_of(self, reference: str | None, books: Books) -> list[BookEntry]:
        entries = await books.search(EntryFilter(reference=reference, limit=_LOOKED_THROUGH))
        return [entry for entry in entries if objects.is_link(entry)]

    async def _end_link(self, entry: BookEntry, status: EntryStatus, books: Books) -> None:
        entry.end(status)
        ended = objects.link_status(entry)
        entry.details |= {"link_ended": ended, f"{ended}_at": objects.unix(books.now)}
        await books.record(entry, "expire" if status is EntryStatus.EXPIRED else "cancel")
        events.link_ended(entry, self._page_url(entry), books)

    # --- orders ------------------------------------------------------------------------------------------------

    async def create_order(self, call: WireCall, books: Books) -> WireAnswer:
        entry = sessions.new_order(fields.json_body(call, sessions.ORDER_FIELDS), books)
        await books.open(entry)
        return WireAnswer.json(200, objects.order(entry))

    async def retrieve_order(self, call: WireCall, books: Books) -> WireAnswer:
        return WireAnswer.json(200, worded(objects.order(await _session(call, books, "order_")), books, "status"))

    async def list_orders(self, call: WireCall, books: Books) -> WireAnswer:
        """The orders behind links too: they carry the link's reference as their receipt."""
        query = dict(call.query)
        entries = await books.search(EntryFilter(reference=query.get("receipt"), limit=_LOOKED_THROUGH))
        if "authorized" in query:
            wants = query["authorized"] == "1"
            entries = [entry for entry in entries if (objects.good_try(entry) is not None) is wants]
        orders = [objects.order(entry) for entry in entries]
        if "expand[]" in query:
            if [value for name, value in call.query if name == "expand[]"] != ["payments"]:
                raise errors.invalid("The selected expand is invalid.", field="expand")
            for body, entry in zip(orders, entries, strict=True):
                body["payments"] = _payments_of(entry)
        return WireAnswer.json(200, worded(page(orders, call, _ORDERS_QUERY), books, "status"))

    async def list_payments_of_order(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _session(call, books, "order_")
        return WireAnswer.json(200, worded(_payments_of(entry), books, "status"))

    # --- the hosted checkout -----------------------------------------------------------------------------------

    async def open_checkout(self, call: WireCall, books: Books) -> WireAnswer:
        """The shop's page posts this form in the shopper's browser, which is then shown the hosted page."""
        form = dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))
        missing = next((name for name in sessions.CHECKOUT_REQUIRED if name not in form), None)
        if missing is not None:
            raise errors.required(missing)
        if not form["key_id"].startswith("rzp_test_") or form["key_id"] != (self._key_id or form["key_id"]):
            raise errors.not_authenticated()
        entry = await books.find(form["order_id"], for_update=True)
        if entry is None or entry.gateway_reference != form["order_id"]:
            raise errors.no_such_id()
        sessions.open_checkout(form, entry)
        await books.record(entry, "open_checkout")
        return WireAnswer(303, "", {"Location": self._page_url(entry)})

    async def return_to_shop(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await _session(call, books, "order_")
        if not hmac.compare_digest(dict(call.query).get("token", "").encode(), entry.page_token.encode()):
            raise errors.not_authenticated()
        return pages.posting_page(entry.success_url, pages.callback_fields(entry, self._key_secret or ""))

    def checkout(self, entry: BookEntry) -> CheckoutView:
        declined = objects.tries_of(entry) and objects.good_try(entry) is None
        is_link = objects.is_link(entry)
        cancel = "A payment link has no way back but paying." if is_link else "Goes back to the shop."
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="Razorpay",
            lines=(),
            total=f"{Money(entry.amount_minor, entry.currency).as_major():f}",
            currency=entry.currency,
            is_manual_capture=entry.capture is CaptureMode.MANUAL,
            cancel_explanation=f"{cancel} Nothing changes and no webhook is sent.",
            declined_message="The bank declined the payment. Try again or use another card." if declined else None,
            has_way_back=not is_link,
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> str | None:
        match outcome:
            case Outcome.SUCCEED:
                if objects.good_try(entry) is None:
                    await self._pay(entry, books, late=late)
                return self._way_back(entry)
            case Outcome.FAIL:
                await self._decline(entry, books)
                return None if objects.is_link(entry) else self._way_back(entry)
            case Outcome.CANCEL:
                return entry.cancel_url
            case Outcome.EXPIRE:
                if not objects.is_link(entry):
                    raise IllegalMove("an order does not expire")
                await self.expire(entry, books)
        return None

    async def expire(self, entry: BookEntry, books: Books) -> None:
        if entry.status is EntryStatus.EXPIRED:
            return
        if objects.is_link(entry):
            await self._end_link(entry, EntryStatus.EXPIRED, books)
        else:  # its ten years are over, which no client sees
            entry.end(EntryStatus.EXPIRED)
            await books.record(entry, "expire")

    async def _pay(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        """``late``: the bank answers after all, and the try that had failed turns authorized."""
        entry.pay(late=late)
        tries = list(objects.tries_of(entry))
        failed = next((each for each in reversed(tries) if each["failure"] is not None), None) if late else None
        paid: Try = {**failed, "failure": None} if failed else _new_try(books, None)
        entry.details["payments"] = [*(each for each in tries if each is not failed), paid]
        await self._note_try(entry, paid, books)
        if entry.is_held():
            minutes = entry.details.get("hold_minutes", sessions.DEFAULT_HOLD_MINUTES)
            entry.hold_expires_at = books.now + timedelta(minutes=minutes)
        await books.record(entry, "authorize" if entry.is_held() else "charge", entry.amount_minor)
        events.payment_moved(entry, paid, "payment.authorized", books, status="authorized")
        if entry.captured_minor:
            events.taken(entry, paid, self._page_url(entry), books)

    async def _decline(self, entry: BookEntry, books: Books) -> None:
        if not entry.is_payable():
            raise IllegalMove(f"a payment that is {entry.status} cannot be declined")
        failed = _new_try(books, objects.DECLINE)
        entry.details["payments"] = [*objects.tries_of(entry), failed]
        await self._note_try(entry, failed, books)
        await books.record(entry, "decline")
        events.payment_moved(entry, failed, "payment.failed", books)

    async def _note_try(self, entry: BookEntry, which: Try, books: Books) -> None:
        entry.payment_reference, entry.payment_created_at = which["id"], books.now
        await books.alias(entry, which["id"])

    def _way_back(self, entry: BookEntry) -> str | None:
        paid = objects.good_try(entry)
        if objects.is_link(entry):
            return pages.after_link(entry, paid, self._key_secret or "") if paid is not None else None
        if not entry.success_url:
            return None
        query = urlencode({"token": entry.page_token})
        return f"{self._public_base_url}/sandbox/razorpay{_BROWSER}return/{entry.gateway_reference}?{query}"

    def _page_url(self, entry: BookEntry) -> str:
        return f"{self._public_base_url}/sandbox/razorpay/checkout/{entry.gateway_reference}"

    # --- money without a call, and webhooks --------------------------------------------------------------------

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        await self._money.expire_hold(entry, books)

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._money.capture_in_dashboard(entry, amount_minor, books)

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return settlement.settlement_file(lines, day)

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._money.refund_in_dashboard(entry, amount_minor, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        await self._money.settle_refund(entry, refund, status, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        return await self._money.open_dispute(entry, amount_minor, reason, books)

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        await self._money.close_dispute(entry, dispute, status, books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's: no time is signed
        """The event's id is the same on every retry, because the body is; it is not part of what is signed."""
        return {
            "X-Razorpay-Signature": hmac_sha256_hex(self._webhook_secret, body),
            "X-Razorpay-Event-Id": hashlib.sha256(body).hexdigest()[:14],
        }


def _payments_of(entry: BookEntry) -> Json:
    """Every try, newest first."""
    return objects.collection([objects.payment(entry, which) for which in reversed(objects.tries_of(entry))])


def _new_try(books: Books, failure: Mapping[str, str] | None) -> Try:
    return {"id": books.new_id("pay_", 14), "created_at": objects.unix(books.now), "failure": failure}


async def _session(call: WireCall, books: Books, prefix: str, *, for_update: bool = False) -> BookEntry:
    """By the id of a link or of an order; a link is found by the id of the order behind it too."""
    identifier = call.path_values["id"]
    entry = await books.find(identifier, for_update=for_update) if identifier.startswith(prefix) else None
    if entry is None:
        raise errors.no_such_id()
    return entry


def _basic(header: str) -> tuple[str, str]:
    """The word has to be spelled exactly so. Nothing where it is anything else."""
    scheme, _, token = header.partition(" ")
    if scheme != "Basic":
        return "", ""
    try:
        key_id, _, key_secret = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return key_id, key_secret
