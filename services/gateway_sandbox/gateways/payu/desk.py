"""The commands of PayU's API that ask about payments or move money, and what happens in the dashboard."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureStatus,
    DisputeStatus,
    EntryStatus,
    MoreThanThereIs,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_capture, book_dispute, book_refund, paid_out, payouts_of
from services.gateway_sandbox.gateways.payu import objects
from services.gateway_sandbox.gateways.payu.checkout import new_number
from services.gateway_sandbox.gateways.payu.events import Events
from services.gateway_sandbox.gateways.payu.objects import Json
from services.gateway_sandbox.gateways.payu.settlement import TERMS, settlement_body
from services.gateway_sandbox.gateways.payu.wire import INDIA, form_of, paise, refused
from services.gateway_sandbox.gateways.port import Books, EntryFilter, WireAnswer, WireCall, WireError, WireRoute

ADDRESS = "/merchant/postservice.php"
LONGEST_TOKEN = 23
_LOOKED_THROUGH = 1000
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")

Form = Mapping[str, str]


class Desk:
    def __init__(self, key: str, merchant: str, events: Events) -> None:
        self._key = key
        self._merchant = merchant
        self._events = events
        self.routes = (
            _route("verify_payment", "retrieve", self.verify_payment),
            _route("check_payment", "retrieve", self.check_payment),
            _route("check_action_status", "list", self.check_action_status),
            _route("capture_transaction", "capture", self.capture_transaction),
            # Which of the two it is, only the payment's state tells.
            _route("cancel_refund_transaction", "refund", self.cancel_refund_transaction, also=("void",)),
            _route("get_Transaction_Details", "list", self.list_by_date),
            _route("get_transaction_info", "list", self.list_by_time),
            _route("get_settlement_details", "list", self.settlement_details),
        )

    # --- asking --------------------------------------------------------------------------------------------------

    async def verify_payment(self, form: Form, books: Books) -> WireAnswer:
        """Several, joined by pipes; each is there, found or not."""
        details: dict[str, Json] = {}
        found = 0
        wanted = form["var1"].split("|")
        for txnid in wanted:
            entry = await books.find(txnid)
            is_known = entry is not None and entry.gateway_reference == txnid
            found += is_known
            if is_known and entry is not None:
                details[txnid] = objects.verified(entry, books.word(objects.state_of(entry)[0]))
            else:
                details[txnid] = objects.not_found(txnid)
        message = f"{found} out of {len(wanted)} Transactions Fetched Successfully"
        return WireAnswer.json(200, {"status": int(found > 0), "msg": message, "transaction_details": details})

    async def check_payment(self, form: Form, books: Books) -> WireAnswer:
        entry = await _by_payu_id(form["var1"], books)
        shown = objects.verified(entry, books.word(objects.state_of(entry)[0]))
        body = {"status": 1, "msg": "Transaction Fetched Successfully", "transaction_details": shown}
        return WireAnswer.json(200, body)

    async def check_action_status(self, form: Form, books: Books) -> WireAnswer:
        wanted = form["var1"]
        entry = await books.find(wanted)
        actions = await self._actions(entry, books) if entry is not None else []
        if form.get("var2") != "payuid":
            actions = [action for action in actions if action["request_id"] == wanted]
        elif entry is not None and objects.payu_id(entry) != wanted:
            actions = []
        if not actions:
            body: Json = {"status": 0, "msg": "0 out of 1 Transactions Fetched Successfully"}
            return WireAnswer.json(200, {**body, "transaction_details": {wanted: "No action status found"}})
        shown = {each["request_id"]: {**each, "status": books.word(each["status"])} for each in actions}
        body = {"status": 1, "msg": "1 out of 1 Transactions Fetched Successfully"}
        return WireAnswer.json(200, {**body, "transaction_details": {wanted: shown}})

    async def _actions(self, entry: BookEntry, books: Books) -> list[Json]:
        return objects.actions_of(entry, await books.captures_of(entry), await books.refunds_of(entry))

    async def list_by_date(self, form: Form, books: Books) -> WireAnswer:
        return await self._list(form, _DATE, books)

    async def list_by_time(self, form: Form, books: Books) -> WireAnswer:
        return await self._list(form, _TIME, books)

    async def _list(self, form: Form, pattern: re.Pattern[str], books: Books) -> WireAnswer:
        first, last = (_moment(form.get(name, ""), pattern) for name in ("var1", "var2"))
        wanted = EntryFilter(created_from=first, created_before=last, limit=_LOOKED_THROUGH)
        rows = [objects.row(entry, self._key, self._merchant) for entry in await books.search(wanted)]
        body = {"status": 1, "msg": "Transaction Fetched Successfully", "Transaction_details": rows}
        return WireAnswer.json(200, body)

    async def settlement_details(self, form: Form, books: Books) -> WireAnswer:
        """By the day of India on which it was settled, here the day on which it moved; by UTR it is not played."""
        start = _moment(form["var1"], _DATE)
        lines = await books.movements(start, start + timedelta(days=1))
        day = start.date()
        return WireAnswer.json(200, settlement_body(paid_out(lines, payouts_of(lines, TERMS, day)), day))

    # --- money ---------------------------------------------------------------------------------------------------

    async def capture_transaction(self, form: Form, books: Books) -> WireAnswer:
        entry = await _by_payu_id(form["var1"], books, for_update=True)
        token, amount_minor = await self._checked(form, entry, books)
        if "cancel" in entry.details or not entry.is_held():
            raise _not_held(entry)
        if amount_minor > entry.amount_minor:
            raise refused("Amount greater than maximum capturable amount", 303)
        if amount_minor != entry.amount_minor:
            raise refused("Amount mismatch", 117)
        capture = await self._capture(entry, amount_minor, token, books)
        return _queued("Capture Request Queued", entry, capture.capture_id)

    async def cancel_refund_transaction(self, form: Form, books: Books) -> WireAnswer:
        """Lets held money go, and gives captured money back."""
        entry = await _by_payu_id(form["var1"], books, for_update=True)
        token, amount_minor = await self._checked(form, entry, books)
        if entry.is_held():
            if amount_minor != entry.amount_minor:
                raise refused("Amount mismatch", 117)
            return _queued("Cancel Request Queued", entry, await self._let_go(entry, token, "void", books))
        if not entry.captured_minor or objects.is_being_captured(entry):
            raise _wrong_state()
        if amount_minor > entry.refundable_minor:
            raise refused("Refund amount is invalid", 105)
        refund = await self._refund(entry, amount_minor, token, books)
        return _queued("Refund Request Queued", entry, refund.refund_id)

    async def _checked(self, form: Form, entry: BookEntry, books: Books) -> tuple[str, int]:
        """A token is taken once, ever."""
        token, amount_minor = form.get("var2", ""), paise(form.get("var3", ""))
        if not token:
            raise refused("Parameter missing", 124)
        if len(token) > LONGEST_TOKEN:
            raise refused("Token is too long", 255)
        if amount_minor is None:
            raise refused("Amount is invalid", 105)
        if await books.find(_token_alias(token)) is not None:
            raise refused("Token already exists.", 106)
        await books.alias(entry, _token_alias(token))
        return token, amount_minor

    async def _capture(self, entry: BookEntry, amount_minor: int, token: str | None, books: Books) -> BookCapture:
        request_id = new_number("13", 9, books)
        capture = await book_capture(entry, request_id, amount_minor, books, is_final=True, reference=token)
        entry.details["captures_later"] = capture.status == "pending"
        await books.record(entry, "queue_capture" if capture.status == "pending" else "captured")
        return capture

    async def _refund(self, entry: BookEntry, amount_minor: int, token: str | None, books: Books) -> BookRefund:
        refund = await book_refund(entry, new_number("13", 9, books), amount_minor, books, reference=token)
        if refund.status == "succeeded":
            self._events.refund_moved(entry, refund, books)
        return refund

    async def _let_go(self, entry: BookEntry, token: str, operation: str, books: Books) -> str:
        request_id = new_number("13", 9, books)
        if operation == "void":
            entry.release()
        else:
            entry.lapse()
        entry.hold_expires_at = None
        entry.details["cancel"] = {"request_id": request_id, "token": token}
        await books.record(entry, operation, entry.amount_minor, reference=token)
        await books.alias(entry, request_id)
        return request_id

    # --- without a call ------------------------------------------------------------------------------------------

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        await self._let_go(entry, "", "expire_hold", books)

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        if entry.is_held() and amount_minor != entry.amount_minor:
            raise MoreThanThereIs(f"PayU captures the whole {entry.amount_minor} or nothing")
        await self._capture(entry, amount_minor, None, books)

    async def settle_capture(self, entry: BookEntry, capture: BookCapture, status: CaptureStatus, books: Books) -> None:
        """Nobody is told: a shop asks for the state of its captures. One that fails leaves the money held."""
        if not capture.move(status, entry):
            return
        entry.details["captures_later"] = False
        if status == "failed":
            entry.status = EntryStatus.AUTHORIZED
        await books.save_capture(entry, capture, f"capture_{status}")

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        return await self._refund(entry, amount_minor, None, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if refund.move(status, entry):
            await books.save_refund(entry, refund, f"refund_{status}")
            self._events.refund_moved(entry, refund, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        dispute = await book_dispute(entry, new_number("7", 8, books), amount_minor, reason or "10.4", books)
        self._events.dispute_moved(entry, dispute, books)
        return dispute

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        if dispute.close(status, books.now):
            await books.save_dispute(entry, dispute, f"dispute_{status}")
            self._events.dispute_moved(entry, dispute, books)


_Command = Callable[[Form, Books], Awaitable[WireAnswer]]


def _route(command: str, operation: str, answer: _Command, *, also: tuple[str, ...] = ()) -> WireRoute:
    async def handle(call: WireCall, books: Books) -> WireAnswer:
        form = form_of(call)
        if not form.get("var1"):
            raise refused("Parameter missing")
        return await answer(form, books)

    def wants(call: WireCall) -> bool:
        try:
            return form_of(call).get("command") == command
        except WireError:
            return False

    return WireRoute("POST", ADDRESS, operation, handle, wants=wants, also=also)


def refusal(operation: str, code: str | None) -> WireError:
    messages = {"capture": ("Capture failed", "109"), "refund": ("Refund Request Rejected", "103")}
    message, usual = messages.get(operation, ("Invalid transaction status", "111"))
    chosen = code or usual
    return refused(message, int(chosen) if chosen.isdigit() else chosen)


def _not_held(entry: BookEntry) -> WireError:
    is_captured = "cancel" not in entry.details and entry.captured_minor > 0
    return refused("Capture already successful for this transaction", 301) if is_captured else _wrong_state()


def _wrong_state() -> WireError:
    return refused("Invalid transaction status", 111)


def _queued(message: str, entry: BookEntry, request_id: str) -> WireAnswer:
    body = {
        "status": 1,
        "msg": message,
        "request_id": request_id,
        "bank_ref_num": request_id[-6:],
        "mihpayid": objects.payu_id(entry),
        "error_code": 102,
    }
    return WireAnswer.json(200, body)


async def _by_payu_id(payu_id: str, books: Books, *, for_update: bool = False) -> BookEntry:
    entry = await books.find(payu_id, for_update=for_update)
    if entry is None or objects.payu_id(entry) != payu_id:
        raise refused("Transaction Not Found", 116)
    return entry


def _token_alias(token: str) -> str:
    return f"token:{token}"


def _moment(text: str, pattern: re.Pattern[str]) -> datetime:
    try:
        if pattern.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=INDIA)
    except ValueError:
        pass
    raise refused("Invalid date format", 124)
