"""Paytm's envelopes: read strictly, with their checksums, and written with ours.

Of Paytm's result codes only some are documented; where the real one is not known, the code here is one of the
sandbox's own choosing, and clients must not depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from services.gateway_sandbox.domain.json_text import from_json, to_json
from services.gateway_sandbox.gateways.port import WireAnswer, WireCall, WireError
from shared.money import Money
from shared.paytm_checksum import checksum_of, cut_member, envelope, has_checksum, new_salt
from shared.randomness import Randomness

Json = dict[str, Any]

IST = timezone(timedelta(hours=5, minutes=30))

_HEAD = frozenset({"version", "channelId", "requestTimestamp", "clientId", "tokenType", "signature"})
_IDENTIFIER = re.compile(r"[A-Za-z0-9@_.-]{1,50}")
_AMOUNT = re.compile(r"[0-9]{1,10}\.[0-9]{2}")
_WRONG_CHECKSUM = "2005"
_MISSING, _INVALID = "1007", "1001"
_WRONG_ORDER, _WRONG_MERCHANT, _WRONG_AMOUNT = "334", "335", "309"


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a family of calls says no: initiation with F, all others with TXN_FAILURE."""

    status: str

    def __call__(self, code: str, message: str) -> WireError:
        """Unsigned, as answers to what is malformed may be."""
        body = {"resultInfo": {"resultStatus": self.status, "resultCode": code, "resultMsg": message}}
        return WireError(WireAnswer.json(200, {"head": {"version": "v1"}, "body": body}), stored=False)


INITIATION = Refusal("F")
TRANSACTION = Refusal("TXN_FAILURE")


@dataclass(frozen=True, slots=True)
class Wire:
    """One merchant: its id and its keys, of which the first one signs."""

    merchant_id: str
    keys: tuple[bytes, ...]
    randomness: Randomness

    def read(
        self, call: WireCall, refuse: Refusal, *, required: frozenset[str], optional: frozenset[str] = frozenset()
    ) -> Json:
        """The body of a well-formed call of this merchant's, signed over exactly its characters. Raises WireError."""
        body = self._signed_body(call, refuse)
        missing = sorted(name for name in required if body.get(name) in (None, ""))
        if missing:
            raise refuse(_MISSING, f"Missing mandatory element {missing[0]}")
        if unknown := sorted(body.keys() - required - optional):
            raise refuse(_INVALID, f"Unexpected element {unknown[0]}")
        if body["mid"] != self.merchant_id:
            raise refuse(_WRONG_MERCHANT, "Mid is invalid")
        return body

    def answer(self, body: Mapping[str, Any], at: datetime) -> WireAnswer:
        text = to_json(body)
        head = {
            "responseTimestamp": str(int(at.timestamp() * 1000)),
            "version": "v1",
            "signature": self.sign(text),
        }
        return WireAnswer(200, envelope(head, text))

    def sign(self, text: str) -> str:
        return checksum_of(text, self.keys[0], new_salt(self.randomness))

    def _signed_body(self, call: WireCall, refuse: Refusal) -> Json:
        try:
            text, parsed = call.body.decode(), from_json(call.body)
            head, body = parsed["head"], parsed["body"]
            signature = str(head["signature"])
            is_known = not head.keys() - _HEAD and isinstance(body, dict)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise refuse(_MISSING, "The request is not an envelope") from None
        signed = cut_member(text, "body")
        if not is_known or signed is None:
            raise refuse(_INVALID, "The request is not an envelope")
        if not any(has_checksum(signed, key, signature) for key in self.keys):
            raise refuse(_WRONG_CHECKSUM, "Checksum provided is invalid")
        return dict(body)


def order_id_of(body: Json, refuse: Refusal) -> str:
    return identifier_of(body, "orderId", refuse)


def identifier_of(body: Json, name: str, refuse: Refusal) -> str:
    value = body[name]
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise refuse(_WRONG_ORDER, f"{name} is invalid")
    return value


def amount_of(value: Any, refuse: Refusal) -> int:
    """Rupees as text with two decimals; nothing else."""
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or Decimal(value) <= 0:
        raise refuse(_WRONG_AMOUNT, "Invalid amount")
    return Money.from_major(value, "INR").amount_minor


def text_of(body: Json, name: str, refuse: Refusal, *, longest: int = 255) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > longest:
        raise refuse(_INVALID, f"{name} is invalid")
    return value


def object_of(body: Json, name: str, refuse: Refusal, *, known: frozenset[str]) -> Json:
    value = body.get(name, {})
    if not isinstance(value, dict) or value.keys() - known:
        raise refuse(_INVALID, f"{name} is invalid")
    return value


def rupees(amount_minor: int) -> str:
    return f"{Money(amount_minor, 'INR').as_major():f}"


def indian_time(moment: datetime) -> str:
    return f"{moment.astimezone(IST):%Y-%m-%d %H:%M:%S}.0"
