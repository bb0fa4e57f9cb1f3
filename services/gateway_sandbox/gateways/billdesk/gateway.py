"""BillDesk in the sandbox. Facts: payment_service/gateways/billdesk.md.

Amounts: decimal strings in rupees. Keys: none; trace ids, order ids and refund references are good once. Webhooks: the
transaction or refund as JOSE, the whole body. Requests with fields that are not documented are refused.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from urllib.parse import parse_qsl

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.domain.models import (
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
    IllegalMove,
    MoreThanThereIs,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.billdesk import objects, wire
from services.gateway_sandbox.gateways.billdesk.envelope import Envelope, Unsealed
from services.gateway_sandbox.gateways.billdesk.objects import Transaction
from services.gateway_sandbox.gateways.billdesk.wire import Json
from services.gateway_sandbox.gateways.bookkeeping import book_refund
from services.gateway_sandbox.gateways.lacking import WithoutDisputes, WithoutHolds, WithoutKeys
from services.gateway_sandbox.gateways.port import (
    Announcement,
    Books,
    CheckoutView,
    EntryFilter,
    FormPost,
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

_PAGE = "/web/v1_2/embeddedsdk"
_ORDER_LIFE = timedelta(minutes=30)
_TRACES_KEPT = 10_000
_LETTERS = 13


class BillDeskSandbox(WithoutKeys, WithoutHolds, WithoutDisputes):
    """Satisfies SandboxGateway. Without a ``merchant_id`` any will do."""

    name = "billdesk"
    payouts = PayoutTerms(("INR",), "UTR{day:%Y%m%d}")

    def __init__(self, *, merchant_id: str | None, envelope: Envelope, public_base_url: str, merchant: str) -> None:
        self._merchant_id = merchant_id
        self._envelope = envelope
        self._public_base_url = public_base_url.rstrip("/")
        self._merchant = merchant
        self._traces: OrderedDict[str, None] = OrderedDict()
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", "/payments/{version}/orders/create", "create_session", self.create_order),
            WireRoute("POST", "/payments/{version}/transactions/get", "retrieve", self.get_transaction),
            WireRoute("POST", "/payments/{version}/refunds/create", "refund", self.create_refund),
            WireRoute("POST", "/payments/{version}/refunds/get", "list", self.get_refund),
            WireRoute("POST", _PAGE, "checkout", self.open_page),
        )

    # --- what every call meets ---------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        if call.path == _PAGE:
            return
        trace_id = wire.check_headers(call)
        try:
            self._envelope.open(call.body)
        except Unsealed:
            raise wire.unauthorized() from None
        if trace_id in self._traces:
            raise wire.duplicate("BD-Traceid has been used before")
        self._traces[trace_id] = None
        if len(self._traces) > _TRACES_KEPT:
            self._traces.popitem(last=False)

    def no_such_route(self, call: WireCall) -> WireError:
        return wire.refused(405, "not_found_error", "SBXNF0002", f"There is no {call.method} {call.path}")

    def broken(self, status: int) -> WireAnswer:
        return wire.refused(status, "api_processing_error", "SBXPE0001", "Something went wrong").answer

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        answer = wire.refused(429, "rate_limit_error", "SBXRL0001", "Too many requests").answer
        return replace(answer, headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return wire.invalid(f"The {operation} is not allowed", code or "RFIDE0001")

    def finish(
        self,
        call: WireCall,
        answer: WireAnswer,
        request_id: str,  # noqa: ARG002 - the port's
        *,
        replayed: bool,  # noqa: ARG002
    ) -> WireAnswer:
        """Errors are sealed too, but for those of nobody known and those of a broken house."""
        if call.path == _PAGE:
            return answer
        is_sealed = bool(answer.body) and answer.status < 500 and answer.status not in (401, 429)
        headers = {
            "Content-Type": "application/jose" if is_sealed else "application/json",
            "BD-Traceid": call.headers.get("bd-traceid", "none"),
        }
        body = self._envelope.close(answer.body) if is_sealed else answer.body
        return replace(answer, body=body, headers={**headers, **answer.headers})

    def _body(self, call: WireCall, books: Books) -> Json:
        """Opened, of this merchant, and of about now. Raises WireError."""
        if call.path_values["version"] not in ("ve1_2", "v1_2"):
            raise self.no_such_route(call)
        wire.check_stamp(call, books.now)
        body = wire.json_of(self._envelope.open(call.body))
        if wire.text_of(body, "mercid") != (self._merchant_id or body["mercid"]):
            raise wire.unauthorized()
        return body

    # --- orders ------------------------------------------------------------------------------------------------

    async def create_order(self, call: WireCall, books: Books) -> WireAnswer:
        body = self._body(call, books)
        wire.check_order(body, books.now)
        amount_minor = wire.amount_of(body, "amount")
        if await books.search(EntryFilter(reference=body["orderid"], limit=1)):
            raise wire.duplicate("Transaction already exists with given mercid and orderid")
        entry = BookEntry(
            gateway=self.name,
            gateway_reference=books.new_id("OA", _LETTERS).upper(),
            reference=body["orderid"],
            order_id=None,
            amount_minor=amount_minor,
            currency="INR",
            capture=CaptureMode.AUTOMATIC,
            success_url=body["ru"],
            cancel_url=body["ru"],
            page_token=books.new_id("", 32),
            created_at=books.now,
            expires_at=books.now + _ORDER_LIFE,
            metadata=dict(body.get("additional_info", {})),
            details={name: body[name] for name in ("mercid", "itemcode", "order_date")}
            | {"rdata": books.new_id("", 48), "transactions": []},
        )
        await books.open(entry)
        return WireAnswer.json(200, objects.order(entry, f"{self._public_base_url}/sandbox/{self.name}"))

    async def open_page(self, call: WireCall, books: Books) -> WireAnswer:
        """The shop's page posts this form in the buyer's browser, which is then shown the hosted page."""
        form = dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))
        entry = await books.find(form.get("bdorderid", ""))
        if entry is None or entry.gateway_reference != form["bdorderid"]:
            raise wire.unknown("There is no such order")
        is_ours = form.get("merchantid") == entry.details["mercid"]
        if not is_ours or not hmac.compare_digest(form.get("rdata", "").encode(), entry.details["rdata"].encode()):
            raise wire.unauthorized()
        address = f"{self._public_base_url}/sandbox/{self.name}/checkout/{entry.gateway_reference}"
        return WireAnswer(303, "", {"Location": address})

    # --- transactions ------------------------------------------------------------------------------------------

    async def get_transaction(self, call: WireCall, books: Books) -> WireAnswer:
        body = self._body(call, books)
        by, value = wire.check_question(body, "orderid", "transactionid")
        if by == "orderid":
            found = await books.search(EntryFilter(reference=value, limit=1))
            entry = found[0] if found else None
            which = objects.last_of(entry) if entry is not None else None
        else:
            entry = await books.find(value)
            which = objects.find_try(entry, value) if entry is not None else None
        if entry is None or which is None:
            raise wire.unknown("There is no such transaction")
        answer = objects.transaction(entry, which)
        if body.get("refund_details") == "true" and which["status"] == objects.SUCCESS:
            answer["refund_details"] = [objects.refund(entry, each) for each in await books.refunds_of(entry)]
        return WireAnswer.json(200, worded(answer, books, "auth_status", "refund_status"))

    # --- refunds -----------------------------------------------------------------------------------------------

    async def create_refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = self._body(call, books)
        wire.check_refund(body)
        entry = await books.find(body["transactionid"], for_update=True)
        which = objects.find_try(entry, body["transactionid"]) if entry is not None else None
        if entry is None or which is None or which["status"] != objects.SUCCESS:
            raise wire.unknown("There is no such transaction")
        if any(each.reference == body["merc_refund_ref_no"] for each in await books.refunds_of(entry)):
            raise wire.duplicate("Refund already exists with given merc_refund_ref_no")
        shown = objects.transaction(entry, which)
        for ours, theirs in (
            ("orderid", "orderid"),
            ("transaction_date", "transaction_date"),
            ("txn_amount", "amount"),
        ):
            if body[ours] != shown[theirs]:
                raise wire.invalid(f"{ours} is not that of the transaction")
        amount_minor = wire.amount_of(body, "refund_amount")
        try:
            refund = await self._refund(entry, amount_minor, books, reference=body["merc_refund_ref_no"])
        except MoreThanThereIs:
            raise wire.invalid("refund_amount is more than what is left") from None
        return WireAnswer.json(200, worded(objects.refund(entry, refund), books, "refund_status"))

    async def get_refund(self, call: WireCall, books: Books) -> WireAnswer:
        body = self._body(call, books)
        by, value = wire.check_question(body, "refundid", "merc_refund_ref_no")
        if by == "refundid":
            record = await books.find_refund(value)
            entry = await books.find(record.gateway_reference) if record is not None else None
        else:
            entry, record = await self._refund_by_reference(value, books)
        if entry is None or record is None:
            raise wire.unknown("There is no such refund")
        return WireAnswer.json(200, worded(objects.refund(entry, record), books, "refund_status"))

    async def _refund_by_reference(self, reference: str, books: Books) -> tuple[BookEntry | None, BookRefund | None]:
        entry = await books.find(_alias_of(reference))
        refunds = await books.refunds_of(entry) if entry is not None else []
        return entry, next((each for each in refunds if each.reference == reference), None)

    async def _refund(
        self, entry: BookEntry, amount_minor: int, books: Books, *, reference: str | None = None
    ) -> BookRefund:
        """What is wholly refunded before it is settled is called cancelled. Raises MoreThanThereIs."""
        which = next(each for each in entry.details["transactions"] if each["status"] == objects.SUCCESS)
        is_whole = amount_minor == entry.amount_minor
        refund = await book_refund(
            entry,
            books.new_id("RF", _LETTERS).upper(),
            amount_minor,
            books,
            reference=reference,
            details={
                "transactionid": which["id"],
                "transaction_date": which["at"],
                "code": objects.FULL_BEFORE_SETTLEMENT if is_whole else objects.REFUNDED,
            },
        )
        if reference is not None:
            await books.alias(entry, _alias_of(reference))
        self._announce_refund(entry, refund, books)
        return refund

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        if not entry.captured_minor:
            raise IllegalMove("only a paid transaction is refunded")
        return await self._refund(entry, amount_minor, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if not refund.move(status, entry):
            return
        await books.save_refund(entry, refund, f"refund_{status}")
        self._announce_refund(entry, refund, books)

    # --- the buyer ---------------------------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="BillDesk",
            lines=(),
            total=f"{Money(entry.amount_minor, entry.currency).as_major():f}",
            currency=entry.currency,
            is_manual_capture=False,
            cancel_explanation="Ends the payment as cancelled by you and goes back to the shop without a token.",
            instrument=("Test Bank", "Net banking"),
            decline_label="Decline at the bank",
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> FormPost | None:
        match outcome:
            case Outcome.SUCCEED:
                if entry.status is not EntryStatus.COMPLETED:
                    entry.pay(late=late)
                    await self._try(entry, objects.SUCCESS, "charge", books)
            case Outcome.FAIL:
                await self._end(entry, EntryStatus.FAILED, objects.FAILED, "decline", books)
            case Outcome.CANCEL:
                await self._end(entry, EntryStatus.CANCELED, objects.CANCELED, "cancel", books)
            case Outcome.EXPIRE:
                await self.expire(entry, books)
                return None
        return self._way_back(entry)

    async def expire(self, entry: BookEntry, books: Books) -> None:
        """Nobody began: there is no transaction, and nobody is told."""
        if entry.status is not EntryStatus.EXPIRED:
            entry.end(EntryStatus.EXPIRED)
            await books.record(entry, "expire")

    async def _end(self, entry: BookEntry, status: EntryStatus, code: str, operation: str, books: Books) -> None:
        if entry.status is not status:
            entry.end(status)
            await self._try(entry, code, operation, books)

    async def _try(self, entry: BookEntry, code: str, operation: str, books: Books) -> None:
        which: Transaction = {
            "id": books.new_id("X", _LETTERS).upper(),
            "at": objects.stamp(books.now),
            "status": code,
        }
        entry.details["transactions"] = [*entry.details["transactions"], which]
        entry.payment_reference, entry.payment_created_at = which["id"], books.now
        await books.record(entry, operation, entry.amount_minor if code == objects.SUCCESS else None)
        await books.alias(entry, which["id"])
        self._announce(entry, books, f"transaction.{code}", lambda shown: objects.transaction(shown, which))

    def _way_back(self, entry: BookEntry) -> FormPost:
        """With the transaction as JOSE; who cancelled comes back without it."""
        which = objects.last_of(entry)
        values = {"orderid": entry.reference or "", "terminal_state": "Y"}
        if which is not None and which["status"] != objects.CANCELED:
            values["transaction_response"] = self._envelope.close(to_json(objects.transaction(entry, which)))
        return FormPost(entry.success_url, values)

    # --- telling the shop --------------------------------------------------------------------------------------

    def _announce_refund(self, entry: BookEntry, refund: BookRefund, books: Books) -> None:
        told = replace(refund)
        code = objects.refund(entry, told)["refund_status"]
        self._announce(entry, books, f"refund.{code}", lambda shown: objects.refund(shown, told))

    def _announce(self, entry: BookEntry, books: Books, event_type: str, body: objects.Writer) -> None:
        def render(shown: BookEntry) -> str:
            return self._envelope.close(to_json(body(shown)))

        books.announce(Announcement(books.new_id("", 14), event_type, entry, render))

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:  # noqa: ARG002 - the port's
        """The body is signed itself; no header is."""
        return {"Content-Type": "application/jose"}

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return objects.settlement(lines, day)


def _alias_of(reference: str) -> str:
    """By which the books find the payment of a refund that only our reference names."""
    return f"merc_refund_ref_no:{reference}"
