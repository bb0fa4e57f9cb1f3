"""Opening an order, and the page that its token opens."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from html import escape
from urllib.parse import parse_qsl, urlsplit

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode, EntryStatus
from services.gateway_sandbox.gateways.paytm.wire import (
    INITIATION,
    Json,
    Wire,
    amount_of,
    object_of,
    order_id_of,
    text_of,
)
from services.gateway_sandbox.gateways.port import Books, WireAnswer, WireCall

TOKEN_LIFE = timedelta(minutes=15)
PAGE_FIELDS = frozenset({"mid", "orderId", "txnToken"})

_REQUIRED = frozenset({"requestType", "mid", "websiteName", "orderId", "callbackUrl", "txnAmount", "userInfo"})
_OPTIONAL = frozenset({"enablePaymentMode", "disablePaymentMode", "extendInfo", "goods", "shippingInfo"})
_USER = frozenset({"custId", "mobile", "email", "firstName", "lastName"})
_EXTENSIONS = frozenset({"udf1", "udf2", "udf3", "mercUnqRef", "comments"})
_INVALID, _DUPLICATE, _WRONG_CURRENCY = "1001", "1005", "312"


class Sessions:
    def __init__(self, wire: Wire, website: str | None) -> None:
        self._wire = wire
        self._website = website

    async def initiate(self, call: WireCall, books: Books) -> WireAnswer:
        """The same order with the same content gets the same token again; with any other content it is a duplicate."""
        body = self._wire.read(call, INITIATION, required=_REQUIRED, optional=_OPTIONAL)
        order_id = order_id_of(body, INITIATION)
        if dict(call.query) != {"mid": self._wire.merchant_id, "orderId": order_id}:
            raise INITIATION(_INVALID, "The address and the body are about different orders")
        earlier = await books.find(order_id, for_update=True)
        if earlier is None:
            earlier = self._new_entry(order_id, body, books)
            await books.open(earlier)
            return self._token(earlier, "0000", "Success", books)
        is_open = earlier.status is EntryStatus.OPEN and earlier.expires_at > books.now
        if earlier.details["content"] != _digest(body) or not is_open:
            raise INITIATION(_DUPLICATE, "Duplicate order id")
        return self._token(earlier, "0002", "Success Idempotent", books)

    def _token(self, entry: BookEntry, code: str, message: str, books: Books) -> WireAnswer:
        result = {"resultStatus": "S", "resultCode": code, "resultMsg": message}
        token = entry.details["txn_token"]
        body = {"resultInfo": result, "txnToken": token, "isPromoCodeValid": False, "authenticated": False}
        return self._wire.answer(body, books.now)

    def _new_entry(self, order_id: str, body: Json, books: Books) -> BookEntry:
        if body["requestType"] != "Payment" or body["websiteName"] != (self._website or body["websiteName"]):
            raise INITIATION(_INVALID, "The request type or the website name is invalid")
        money = object_of(body, "txnAmount", INITIATION, known=frozenset({"value", "currency"}))
        if money.get("currency") != "INR":
            raise INITIATION(_WRONG_CURRENCY, "Invalid currency")
        user = object_of(body, "userInfo", INITIATION, known=_USER)
        customer = {name: text_of(user, name, INITIATION) for name in _USER}
        if not customer["custId"] or not all(value.isascii() for value in customer.values()):
            raise INITIATION(_INVALID, "userInfo is invalid")
        extensions = object_of(body, "extendInfo", INITIATION, known=_EXTENSIONS)
        return BookEntry(
            gateway="paytm",
            gateway_reference=order_id,
            reference=order_id,
            order_id=text_of(extensions, "mercUnqRef", INITIATION) or None,
            amount_minor=amount_of(money.get("value"), INITIATION),
            currency="INR",
            capture=CaptureMode.AUTOMATIC,
            success_url=_web_address(text_of(body, "callbackUrl", INITIATION, longest=2000)),
            cancel_url=None,
            page_token=books.new_id("", 32),
            created_at=books.now,
            expires_at=books.now + TOKEN_LIFE,
            customer_email=customer["email"] or None,
            details={
                "mid": self._wire.merchant_id,
                "cust_id": customer["custId"],
                "txn_token": books.new_id("", 40),
                "content": _digest(body),
            },
        )

    async def show_page(self, call: WireCall, books: Books, page_url: str) -> WireAnswer:
        """The shop's page posts this form in the shopper's browser, which is then shown the hosted page."""
        form = dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))
        order_id, query = form.get("orderId", ""), dict(call.query)
        entry = await books.find(order_id)
        is_whole = form.keys() == PAGE_FIELDS and query == {"mid": form["mid"], "orderId": order_id}
        if entry is None or not is_whole or form["mid"] != self._wire.merchant_id:
            return _page(400, "This payment is not known.")
        if not hmac.compare_digest(form["txnToken"].encode(), entry.details["txn_token"].encode()):
            return _page(400, "This payment's token is not valid.")
        if entry.status is EntryStatus.EXPIRED:
            return _page(400, "This payment's session has expired (1006).")
        return WireAnswer(303, "", {"Location": f"{page_url}/{order_id}"})


def _digest(body: Json) -> str:
    return hashlib.sha256(repr(sorted(body.items())).encode()).hexdigest()


def _web_address(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise INITIATION(_INVALID, "callbackUrl is invalid")
    return url


def _page(status: int, text: str) -> WireAnswer:
    body = f'<!doctype html><html lang="en"><title>Paytm</title><p>{escape(text)}</p></html>'
    policy = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    return WireAnswer(status, body, {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy})
