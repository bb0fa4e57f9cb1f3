"""MyFatoorah's webhooks, in the version that the account is set to, and how they are signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from services.gateway_sandbox.domain.models import BookDispute, BookEntry, BookRefund
from services.gateway_sandbox.gateways.myfatoorah import objects
from services.gateway_sandbox.gateways.myfatoorah.objects import Attempt, Json
from services.gateway_sandbox.gateways.port import Announcement, Books, WireAnswer
from shared.clock import to_rfc3339

COUNTRY = "KWT"

NAMES = {1: "PAYMENT_STATUS_CHANGED", 2: "REFUND_STATUS_CHANGED", 6: "DISPUTE_STATUS_CHANGED"}
_V1_NAMES = {1: "TransactionsStatusChanged", 2: "RefundStatusChanged"}

_SIGNED: Mapping[int, str] = {
    1: "Invoice.Id,Invoice.Status,Transaction.Status,Transaction.PaymentId,Invoice.ExternalIdentifier",
    2: "Refund.Id,Refund.Status,Amount.ValueInBaseCurrency,ReferencedInvoice.Id",
    6: "Dispute.DisputeTransactionId,Dispute.Status,Invoice.Id,Invoice.Status,Transaction.Status,"
    "Transaction.PaymentId,Invoice.ExternalIdentifier",
}


class Announcer:
    """``version`` 1 knows no disputes; those are told in version 2 whatever the account is set to."""

    def __init__(self, version: int, zone: timezone) -> None:
        self._version = version
        self._zone = zone

    def payment(self, entry: BookEntry, attempt: Attempt, books: Books) -> None:
        def data(shown: BookEntry) -> Json:
            if self._version == 1:
                return objects.payment_event_v1(shown, attempt, self._zone)
            return objects.payment_event(shown, attempt)

        self._announce(entry, 1, data, books)

    def refund(self, entry: BookEntry, record: BookRefund, books: Books) -> None:
        def data(shown: BookEntry) -> Json:
            if self._version == 1:
                return objects.refund_event_v1(shown, record, self._zone)
            return objects.refund_event(shown, record)

        self._announce(entry, 2, data, books)

    def dispute(self, entry: BookEntry, record: BookDispute, attempt: Attempt, books: Books) -> None:
        self._announce(entry, 6, lambda shown: objects.dispute_event(shown, record, attempt), books)

    def _announce(self, entry: BookEntry, code: int, data: Callable[[BookEntry], Json], books: Books) -> None:
        reference, at = f"WH-{books.new_id('', 12)}", books.now
        body = self._version_1 if self._version == 1 and code in _V1_NAMES else version_2

        def render(shown: BookEntry) -> str:
            return WireAnswer.json(200, body(code, data(shown), at, reference)).body

        books.announce(Announcement(reference, NAMES[code], entry, render))

    def _version_1(self, code: int, data: Json, at: datetime, _reference: str) -> Json:
        moment = f"{at.astimezone(self._zone):%d%m%Y%H%M%S}"
        return {
            "EventType": code,
            "Event": _V1_NAMES[code],
            "DateTime": moment,
            "CountryIsoCode": COUNTRY,
            "Data": data,
        }


def version_2(code: int, data: Json, at: datetime, reference: str) -> Json:
    event = {
        "Code": code,
        "Name": NAMES[code],
        "CountryIsoCode": COUNTRY,
        "CreationDate": to_rfc3339(at),
        "Reference": reference,
    }
    return {"Event": event, "Data": data}


def signature(secret: str, body: bytes) -> str:
    digest = hmac.new(secret.encode(), string_to_sign(body).encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def string_to_sign(body: bytes) -> str:
    """Of the decoded values, with numbers as they were written."""
    parsed: dict[str, Any] = json.loads(body, parse_float=str, parse_int=str)
    data = parsed["Data"]
    if "EventType" in parsed:
        left_out = {"2": "GatewayReference", "4": "KycFeedback"}.get(parsed["EventType"])
        pairs = [(key, data[key]) for key in sorted(data, key=str.lower) if key != left_out]
    else:
        pairs = [(name, _value(data, name)) for name in _SIGNED[int(parsed["Event"]["Code"])].split(",")]
    return ",".join(f"{name}={'' if value is None else value}" for name, value in pairs)


def _value(data: Any, name: str) -> Any:
    for step in name.split("."):
        data = data.get(step) if isinstance(data, dict) else None
    return data
