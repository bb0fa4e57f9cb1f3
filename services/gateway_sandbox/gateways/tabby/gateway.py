"""Tabby in the sandbox. Facts: payment_service/gateways/tabby.md.

Amounts: text in major units. Keys: ``reference_id`` of captures and refunds, per payment. Webhooks: a static secret in
a header. Requests with fields that are not documented are refused.
"""

from __future__ import annotations

import csv
import hmac
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from services.gateway_sandbox.domain.models import (
    BookDispute,
    BookEntry,
    BookRefund,
    DisputeStatus,
    EntryStatus,
    IllegalMove,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_dispute, book_end, refusals
from services.gateway_sandbox.gateways.lacking import WithJsonAnswers, WithoutKeys, WithoutPendingCaptures
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutLine,
    CheckoutView,
    Departure,
    EntryFilter,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.tabby import errors, fields, money, objects, sessions
from shared.money import Money

HOLD_LIFE = timedelta(days=21)

_LIST_PAGE = 20
_CAPTURE_FIELDS = frozenset("amount reference_id tax_amount shipping_amount discount_amount created_at items".split())
_REFUND_FIELDS = frozenset({"amount", "reference_id", "reason", "items"})
_LIST_QUERY = frozenset({"created_at__gte", "created_at__lte", "limit", "offset", "status"})
_DISPUTES_QUERY = frozenset({"statuses", "created_at_gte", "created_at_lte", "page_token"})
_LISTED_WITHOUT_STATUS = ("AUTHORIZED", "CLOSED")
_STATEMENT = "statement_date payment_id order_reference type gross fee fee_vat net currency".split()
_STATEMENT += ["reference", "statement_reference"]


class TabbySandbox(WithoutKeys, WithJsonAnswers, WithoutPendingCaptures):
    """Satisfies SandboxGateway. Without a ``secret_key`` any test key will do."""

    name = "tabby"
    payouts = PayoutTerms(("AED", "SAR"), "TB-{day:%Y%m%d}-{currency}")

    def __init__(
        self,
        *,
        secret_key: str | None,
        merchant_code: str | None,
        webhook_header: str,
        webhook_secrets: Sequence[str],
        public_base_url: str,
        merchant: str,
    ) -> None:
        self._secret_key = secret_key
        self._merchant_code = merchant_code
        self._webhook_header = webhook_header
        self._webhook_secret = webhook_secrets[0]
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/api/v2/checkout", "create_session", self.create_session),
            WireRoute("GET", "/api/v2/checkout/{id}", "retrieve", self.retrieve_session),
            WireRoute("GET", "/api/v2/payments", "list", self.list_payments),
            WireRoute("GET", "/api/v2/payments/{id}", "retrieve", self.retrieve_payment),
            WireRoute("POST", "/api/v2/payments/{id}/captures", "capture", self.capture),
            WireRoute("POST", "/api/v2/payments/{id}/close", "void", self.close),
            WireRoute("POST", "/api/v2/payments/{id}/refunds", "refund", self.refund),
            WireRoute("GET", "/api/v1/disputes", "list", self.list_disputes),
            WireRoute("GET", "/api/v1/disputes/{id}", "retrieve", self.retrieve_dispute),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        scheme, _, key = call.headers.get("authorization", "").partition(" ")
        expected = self._secret_key or key
        if scheme != "Bearer" or not key.startswith("sk_"):
            raise errors.not_authorized()
        if not hmac.compare_digest(key.encode(), expected.encode()):
            raise errors.not_authorized()

    def no_such_route(self, call: WireCall) -> WireError:  # noqa: ARG002 - the port's
        return errors.not_found()

    def broken(self, status: int) -> WireAnswer:
        return errors.server_error(status)

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        answer = errors.too_many_requests()
        return replace(answer, headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        if operation == "refund" and code in (None, "conflict"):
            return errors.conflict()
        return errors.refused(code or "bad_data")

    # --- sessions ----------------------------------------------------------------------------------------------

    async def create_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = sessions.new_entry(fields.json_body(call, sessions.SESSION_FIELDS), self._merchant_code, books)
        is_refused = entry.details["buyer"]["phone"] in sessions.REFUSED_PHONES
        if is_refused:
            entry.status = EntryStatus.FAILED
        await books.open(entry)
        await books.alias(entry, entry.details["session_id"])
        rejection = "not_available" if is_refused else None
        shown = objects.session(entry, self._page_url(entry), books.word, rejection=rejection)
        return WireAnswer.json(200, shown)

    async def retrieve_session(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await books.find(call.path_values["id"])
        if entry is None or entry.details["session_id"] != call.path_values["id"]:
            raise errors.not_found()
        return WireAnswer.json(200, objects.session(entry, self._page_url(entry), books.word))

    def _page_url(self, entry: BookEntry) -> str:
        return f"{self._public_base_url}/sandbox/tabby/checkout/{entry.gateway_reference}"

    # --- payments ----------------------------------------------------------------------------------------------

    async def retrieve_payment(self, call: WireCall, books: Books) -> WireAnswer:
        return await self._payment(await _entry_of(call, books), books)

    async def list_payments(self, call: WireCall, books: Books) -> WireAnswer:
        """Newest first, by creation, and without a status only those that brought money."""
        query = _query(call, _LIST_QUERY)
        limit = fields.whole_number(query, "limit", default=_LIST_PAGE, most=_LIST_PAGE)
        offset = fields.whole_number(query, "offset", default=0, most=10**9)
        last = fields.day(query, "created_at__lte")
        wanted = EntryFilter(
            created_from=fields.day(query, "created_at__gte"),
            created_before=last + timedelta(microseconds=1) if last else None,
        )
        statuses = (query["status"].upper(),) if "status" in query else _LISTED_WITHOUT_STATUS
        found = [entry for entry in await books.search(wanted) if objects.status_of(entry) in statuses]
        shown = [
            objects.payment(entry, await objects.records_of(entry, books), books.word)
            for entry in found[offset : offset + limit]
        ]
        pagination = {"limit": limit, "offset": offset, "total_count": len(found)}
        return WireAnswer.json(200, {"payments": shown or None, "pagination": pagination})

    async def capture(self, call: WireCall, books: Books) -> WireAnswer:
        body = fields.json_body(call, _CAPTURE_FIELDS)
        entry = await _entry_of(call, books, for_update=True)
        amount_minor, reference = fields.amount_of(body, entry.currency), fields.text(body, "reference_id")
        if any(capture.reference == reference for capture in await books.captures_of(entry)):
            return await self._payment(entry, books)
        if not entry.is_held():
            raise errors.bad_data("could not capture not authorized payments")
        with refusals(errors.bad_data):
            await money.capture(entry, amount_minor, reference, books)
        return await self._payment(entry, books)

    async def close(self, call: WireCall, books: Books) -> WireAnswer:
        if call.body:
            raise errors.bad_data("close takes no body")
        entry = await _entry_of(call, books, for_update=True)
        if not entry.is_held():
            raise errors.bad_data("already closed" if objects.status_of(entry) == "CLOSED" else "could not close")
        with refusals(errors.bad_data):
            await money.close(entry, books)
        return await self._payment(entry, books)

    async def refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = fields.json_body(call, _REFUND_FIELDS)
        entry = await _entry_of(call, books, for_update=True)
        amount_minor, reference = fields.amount_of(body, entry.currency), fields.text(body, "reference_id")
        reason = fields.optional_text(body, "reason")
        if any(refund.reference == reference for refund in await books.refunds_of(entry)):
            return await self._payment(entry, books)
        if any(dispute.status == "open" for dispute in await books.disputes_of(entry)):
            raise errors.conflict()
        with refusals(errors.bad_data):
            await money.refund(entry, amount_minor, reference, reason, books)
        return await self._payment(entry, books)

    async def _payment(self, entry: BookEntry, books: Books) -> WireAnswer:
        return WireAnswer.json(200, objects.payment(entry, await objects.records_of(entry, books), books.word))

    # --- disputes ----------------------------------------------------------------------------------------------

    async def list_disputes(self, call: WireCall, books: Books) -> WireAnswer:
        query = _query(call, _DISPUTES_QUERY)
        since = fields.moment(query, "created_at_gte") if "created_at_gte" in query else None
        entries = await books.search(EntryFilter())
        found = [(entry, dispute) for entry in entries for dispute in await books.disputes_of(entry)]
        shown = [objects.dispute(entry, each) for entry, each in found if since is None or each.created_at >= since]
        return WireAnswer.json(200, {"disputes": shown, "next_page_token": ""})

    async def retrieve_dispute(self, call: WireCall, books: Books) -> WireAnswer:
        dispute = await books.find_dispute(call.path_values["id"])
        entry = await books.find(dispute.gateway_reference) if dispute else None
        if dispute is None or entry is None:
            raise errors.not_found()
        return WireAnswer.json(200, objects.dispute(entry, dispute))

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        dispute = await book_dispute(entry, sessions.new_uuid(books), amount_minor, reason or "not_delivered", books)
        money.announce_dispute(entry, dispute, books)
        return dispute

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        if dispute.close(status, books.now):
            await books.save_dispute(entry, dispute, f"dispute_{status}")
            money.announce_dispute(entry, dispute, books)

    # --- what happens without a call ---------------------------------------------------------------------------

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await money.capture(entry, amount_minor, None, books, is_final=True)

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        """A hold does not lapse here: Tabby captures what is left of it."""
        if not entry.is_held():
            raise IllegalMove("nothing is held")
        await money.capture(entry, entry.capturable_minor, None, books, is_final=True)

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await money.refund(entry, amount_minor, None, "dashboard", books)

    async def settle_refund(
        self,
        entry: BookEntry,  # noqa: ARG002 - the port's
        refund: BookRefund,  # noqa: ARG002
        status: RefundStatus,  # noqa: ARG002
        books: Books,  # noqa: ARG002
    ) -> None:
        raise IllegalMove("a refund is done at once, and cannot be undone")

    # --- the buyer, time, webhooks -----------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        lines = [_line(item, entry) for item in entry.details["items"]]
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="Tabby",
            lines=lines,
            total=objects.major(entry.amount_minor, entry),
            currency=entry.currency,
            is_manual_capture=True,
            cancel_explanation="Ends the payment as expired, sends the webhook and goes back to the shop.",
            instrument=("Four payments", "No interest, no fees"),
            decline_label="Be rejected",
            pay_explanation="Tabby lends the whole amount and holds it until the shop captures it.",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> Departure | None:
        """Who pays, is rejected or leaves goes back to an address of the shop's, with the payment's id."""
        match outcome:
            case Outcome.SUCCEED:
                if not entry.is_held() and entry.status is not EntryStatus.COMPLETED:
                    await self._authorize(entry, books, late=late)
                return _way_back(entry, entry.success_url)
            case Outcome.FAIL:
                await self._end(entry, EntryStatus.FAILED, "decline", books)
                return _way_back(entry, entry.details["failure_url"])
            case Outcome.CANCEL:
                await self._end(entry, EntryStatus.CANCELED, "cancel", books)
                return _way_back(entry, entry.cancel_url or entry.success_url)
            case Outcome.EXPIRE:
                await self._end(entry, EntryStatus.EXPIRED, "expire", books)
        return None

    async def expire(self, entry: BookEntry, books: Books) -> None:
        await self._end(entry, EntryStatus.EXPIRED, "expire", books)

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's
        return {self._webhook_header: self._webhook_secret}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        """The columns are ours: no documentation names Tabby's."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_STATEMENT)
        writer.writerows(_statement_row(line, day) for line in lines)
        return SettlementFile(f"tabby-statement-{day:%Y-%m-%d}.csv", "text/csv", text.getvalue().encode())

    async def _authorize(self, entry: BookEntry, books: Books, *, late: bool) -> None:
        entry.pay(late=late)
        entry.payment_reference, entry.payment_created_at = entry.gateway_reference, books.now
        entry.hold_expires_at = books.now + HOLD_LIFE
        await books.record(entry, "authorize", entry.amount_minor)
        await money.announce(entry, "authorize", books)

    async def _end(self, entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> None:
        if await book_end(entry, status, operation, books):
            await money.announce(entry, "reject" if status is EntryStatus.FAILED else "expire", books)


async def _entry_of(call: WireCall, books: Books, *, for_update: bool = False) -> BookEntry:
    identifier = call.path_values["id"]
    entry = await books.find(identifier, for_update=for_update)
    if entry is None or entry.gateway_reference != identifier:
        raise errors.not_found()
    return entry


def _query(call: WireCall, allowed: frozenset[str]) -> dict[str, str]:
    query = dict(call.query)
    unknown = sorted(set(query) - allowed)
    if unknown:
        raise errors.bad_data(f"{unknown[0]} is unknown")
    return query


def _line(item: Mapping[str, object], entry: BookEntry) -> CheckoutLine:
    quantity, price = int(str(item["quantity"])), Money.from_major(str(item["unit_price"]), entry.currency)
    return CheckoutLine(str(item["title"]), quantity, f"{(price * quantity).as_major():f}")


def _way_back(entry: BookEntry, url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'payment_id': entry.gateway_reference})}"


def _statement_row(line: SettlementLine, day: date) -> list[str]:
    kind = "adjustment" if line.kind == "dispute" else line.kind
    amounts = (line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor)
    gross, *rest = (objects.major(each, line.entry) for each in amounts)
    payment, order = line.entry.gateway_reference, line.entry.reference or ""
    last = [line.entry.currency, line.object_id, line.payout.reference]
    return [f"{day:%Y-%m-%d}", payment, order, kind, line.written(gross), *rest, *last]
