"""New Pay's wire format over the sandbox's books: what it takes, answers and signs.

Write here what its documentation says, strictly: what it would refuse is refused, so that a wrong call shows at once.
"""

from __future__ import annotations

import csv
import hmac
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from services.gateway_sandbox.domain.json_text import from_json, to_json
from services.gateway_sandbox.domain.models import (
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
    MoreThanThereIs,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.domain.signatures import hmac_sha256_hex
from services.gateway_sandbox.gateways.bookkeeping import book_end, book_refund
from services.gateway_sandbox.gateways.definition import SandboxDefinition, Site
from services.gateway_sandbox.gateways.lacking import WithJsonAnswers, WithoutDisputes, WithoutHolds, WithoutKeys
from services.gateway_sandbox.gateways.port import (
    Announcement,
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
from shared.errors import InvalidAmount
from shared.money import Money
from shared.randomness import Randomness

PAGE = 100
_SESSION = "reference currency description customer_email return_url cancel_url expires_at".split()
_LIST_QUERY = {"reference", "created_from", "created_before", "cursor"}
_ENDS = {
    Outcome.FAIL: EntryStatus.FAILED,
    Outcome.CANCEL: EntryStatus.CANCELED,
    Outcome.EXPIRE: EntryStatus.EXPIRED,
}


class NewPaySandbox(WithoutKeys, WithJsonAnswers, WithoutHolds, WithoutDisputes):
    """Satisfies SandboxGateway."""

    name = "newpay"
    payouts = PayoutTerms(("USD", "EUR"), "np_{day:%Y%m%d}{currency}")

    def __init__(self, site: Site, webhook_secret: str) -> None:
        self._secret_key = site.text("NEWPAY_SECRET_KEY") or ""
        self._webhook_secret = webhook_secret
        self._merchant = site.merchant
        self._page_url = f"{site.public_base_url.rstrip('/')}/sandbox/newpay/checkout"
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/v1/payments", "create_session", self.create_payment),
            WireRoute("GET", "/v1/payments", "list", self.list_payments),
            WireRoute("GET", "/v1/payments/{id}", "retrieve", self.retrieve_payment),
            WireRoute("POST", "/v1/payments/{id}/cancel", "expire_session", self.cancel_payment),
            WireRoute("POST", "/v1/payments/{id}/refunds", "refund", self.refund),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        given = call.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._secret_key}".encode()):
            raise refused(401, "unauthorized")

    def no_such_route(self, call: WireCall) -> WireError:
        return refused(404, "not_found", f"there is no {call.method} {call.path}")

    def broken(self, status: int) -> WireAnswer:
        return refused(status, "internal_error").answer

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        return replace(refused(429, "rate_limited").answer, headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return refused(422, code or "refused", f"the {operation} was refused")

    # --- its calls ---------------------------------------------------------------------------------------------

    async def create_payment(self, call: WireCall, books: Books) -> WireAnswer:
        """The same reference opens no second page: it gives the one that is there."""
        body = body_of(call, **dict.fromkeys(_SESSION, str), amount=int)
        entry = next(iter(await books.search(EntryFilter(reference=body["reference"]))), None)
        if entry is None:
            entry = self._new_entry(body, books)
            await books.open(entry)
        elif (entry.amount_minor, entry.currency) != (body["amount"], body["currency"]):
            raise refused(409, "reference_reused")
        return await self._answer(entry, books)

    async def retrieve_payment(self, call: WireCall, books: Books) -> WireAnswer:
        return await self._answer(await entry_of(call, books), books)

    async def list_payments(self, call: WireCall, books: Books) -> WireAnswer:
        """Newest first, in pages."""
        query = dict(call.query)
        if not _LIST_QUERY.issuperset(query) or ("cursor" in query and await books.find(query["cursor"]) is None):
            raise refused(400, "invalid_request", "a parameter that is unknown, or a cursor that was not given")
        wanted = EntryFilter(
            reference=query.get("reference"),
            created_from=moment_of(query, "created_from") if "created_from" in query else None,
            created_before=moment_of(query, "created_before") if "created_before" in query else None,
            after=query.get("cursor"),
            limit=PAGE + 1,
        )
        found = await books.search(wanted)
        payments = [self._payment(entry, await books.refunds_of(entry)) for entry in found[:PAGE]]
        cursor = found[PAGE - 1].gateway_reference if len(found) > PAGE else None
        return WireAnswer.json(200, worded({"payments": payments, "next_cursor": cursor}, books, "status"))

    async def cancel_payment(self, call: WireCall, books: Books) -> WireAnswer:
        body_of(call)
        entry = await entry_of(call, books, for_update=True)
        if entry.status is not EntryStatus.OPEN:
            raise refused(409, "not_open")
        await self._end(entry, Outcome.CANCEL, books)
        return await self._answer(entry, books)

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        """The same reference on the same payment makes no second refund."""
        body = body_of(call, reference=str, amount=int)
        entry = await entry_of(call, books, for_update=True)
        made = await books.refunds_of(entry)
        refund = next((each for each in made if each.reference == body["reference"]), None)
        if refund is None:
            with refusals():
                refund = await self._refund(entry, body["amount"], body["reference"], books)
        elif refund.amount_minor != body["amount"]:
            raise refused(409, "reference_reused")
        return WireAnswer.json(201, self._refund_json(entry, refund))

    def _new_entry(self, body: Mapping[str, Any], books: Books) -> BookEntry:
        with refusals():
            amount = Money(body["amount"], body["currency"])
        expires_at = moment_of(body, "expires_at")
        urls = (body["return_url"], body["cancel_url"])
        is_usable = amount.amount_minor > 0 and expires_at > books.now and body["reference"]
        if not is_usable or not all(url.startswith(("https://", "http://")) for url in urls):
            raise refused(400, "invalid_request", "a field has a value that cannot be used")
        return BookEntry(
            gateway=self.name,
            gateway_reference=books.new_id("pay_"),
            reference=body["reference"],
            order_id=None,
            amount_minor=amount.amount_minor,
            currency=amount.currency,
            capture=CaptureMode.AUTOMATIC,
            success_url=body["return_url"],
            cancel_url=body["cancel_url"],
            page_token=books.new_id("", 32),
            created_at=books.now,
            expires_at=expires_at,
            customer_email=body["customer_email"],
            description=body["description"],
        )

    # --- what it writes ----------------------------------------------------------------------------------------

    async def _answer(self, entry: BookEntry, books: Books) -> WireAnswer:
        payment = self._payment(entry, await books.refunds_of(entry))
        return WireAnswer.json(200, worded(payment, books, "status"))

    def _payment(self, entry: BookEntry, refunds: Sequence[BookRefund]) -> dict[str, Any]:
        return {
            "id": entry.gateway_reference,
            "reference": entry.reference,
            "status": "paid" if entry.status is EntryStatus.COMPLETED else entry.status.value,
            "failure_code": "declined" if entry.status is EntryStatus.FAILED else None,
            "amount": entry.amount_minor,
            "currency": entry.currency,
            "refunds": [self._refund_json(entry, refund) for refund in refunds],
            "page_url": f"{self._page_url}/{entry.gateway_reference}",
            "created_at": to_rfc3339(entry.created_at),
            "expires_at": to_rfc3339(entry.expires_at),
        }

    def _refund_json(self, entry: BookEntry, refund: BookRefund) -> dict[str, Any]:
        return {
            "id": refund.refund_id,
            "reference": refund.reference,
            "status": refund.status,
            "failure_code": "account_closed" if refund.status == "failed" else None,
            "amount": refund.amount_minor,
            "currency": entry.currency,
        }

    async def _announce(self, event_type: str, entry: BookEntry, books: Books) -> None:
        """Written from the entry that ``render`` is given: under a fault it has another amount."""
        event_id, refunds = books.new_id("evt_"), await books.refunds_of(entry)

        def render(shown: BookEntry) -> str:
            return to_json({"event_id": event_id, "type": event_type, "payment": self._payment(shown, refunds)})

        books.announce(Announcement(event_id, event_type, entry, render))

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's
        return {"NewPay-Signature": hmac_sha256_hex(self._webhook_secret, body)}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow("payout kind id payment_id reference at currency amount fee tax net".split())
        for line in lines:
            entry, gross = line.entry, line.written(line.gross_minor)
            amounts = (gross, line.fee_minor, line.tax_minor, line.net_minor)
            names = (line.object_id, entry.gateway_reference, line.reference or entry.reference)
            writer.writerow((line.payout.reference, line.kind, *names, to_rfc3339(line.at), entry.currency, *amounts))
        return SettlementFile(f"settlement-{day:%Y-%m-%d}.csv", "text/csv", text.getvalue().encode())

    # --- the buyer, the dashboard, time ------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="New Pay",
            lines=(),
            total=f"{Money(entry.amount_minor, entry.currency).as_major():f}",
            currency=entry.currency,
            is_manual_capture=False,
            cancel_explanation="Ends the payment as canceled, sends the webhook and goes back to the shop.",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> str | None:
        if outcome is not Outcome.SUCCEED:
            await self._end(entry, outcome, books)
            return {Outcome.CANCEL: entry.cancel_url, Outcome.FAIL: entry.success_url}.get(outcome)
        if entry.status is not EntryStatus.COMPLETED:
            entry.pay(late=late)
            await books.record(entry, "charge", entry.amount_minor)
            await self._announce("payment.paid", entry, books)
        return entry.success_url

    async def expire(self, entry: BookEntry, books: Books) -> None:
        await self._end(entry, Outcome.EXPIRE, books)

    async def _end(self, entry: BookEntry, outcome: Outcome, books: Books) -> None:
        if await book_end(entry, _ENDS[outcome], outcome.value, books):
            await self._announce(f"payment.{entry.status.value}", entry, books)

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._refund(entry, amount_minor, None, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if refund.move(status, entry):
            await books.save_refund(entry, refund, f"refund_{status}")
            await self._announce(f"refund.{status}", entry, books)

    async def _refund(self, entry: BookEntry, amount_minor: int, reference: str | None, books: Books) -> BookRefund:
        refund = await book_refund(entry, books.new_id("ref_"), amount_minor, books, reference=reference)
        await self._announce(f"refund.{refund.status}", entry, books)
        return refund


def refused(status: int, code: str, message: str = "") -> WireError:
    return WireError(WireAnswer.json(status, {"error": code, "message": message}))


@contextmanager
def refusals() -> Iterator[None]:
    """What money and the books forbid, in this gateway's words."""
    try:
        yield
    except InvalidAmount as error:
        raise refused(400, "invalid_amount", error.detail) from error
    except MoreThanThereIs as error:
        raise refused(422, "amount_too_large", error.detail) from error


async def entry_of(call: WireCall, books: Books, *, for_update: bool = False) -> BookEntry:
    entry = await books.find(call.path_values["id"], for_update=for_update)
    if entry is None or entry.gateway_reference != call.path_values["id"]:
        raise refused(404, "not_found")
    return entry


def body_of(call: WireCall, **kinds: type) -> dict[str, Any]:
    """A JSON object with exactly these fields, each of its kind."""
    try:
        body = from_json(call.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or {key: type(value) for key, value in body.items()} != kinds:
        raise refused(400, "invalid_request", f"the body must be a JSON object of {', '.join(kinds) or 'nothing'}")
    return body


def moment_of(source: Mapping[str, Any], key: str) -> datetime:
    try:
        moment = datetime.fromisoformat(source[key])
    except ValueError as error:
        raise refused(400, "invalid_request", f"{key} must be an RFC 3339 time") from error
    if moment.tzinfo is None:
        raise refused(400, "invalid_request", f"{key} must have a zone")
    return moment


def _build(site: Site) -> NewPaySandbox | None:
    secrets = site.secrets("NEWPAY_WEBHOOK_SECRET")
    return NewPaySandbox(site, secrets[0]) if secrets else None


def _secrets(randomness: Randomness) -> Mapping[str, str]:
    """What a development installation needs, in the look that the gateway gives it."""
    return {
        "NEWPAY_SECRET_KEY": f"sk_test_{randomness.token_bytes(16).hex()}",
        "NEWPAY_WEBHOOK_SECRET": randomness.token_bytes(24).hex(),
    }


DEFINITION = SandboxDefinition(
    name="newpay",
    build=_build,
    variables=("NEWPAY_SECRET_KEY", "NEWPAY_WEBHOOK_SECRET"),
    secrets=_secrets,
    addresses=lambda address: {"NEWPAY_API_BASE": address},
)
