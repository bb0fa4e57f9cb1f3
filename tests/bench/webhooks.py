"""Signed deliveries of about a kilobyte each, built before the clock starts: the generic gateway's, and Stripe's."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tests.bench.load import request_bytes
from tests.e2e.stack import SECRETS

_numbers = itertools.count(1)
_FILLER = "A gateway says more than anybody reads. " * 18


class Scheme(Enum):
    GENERIC = "generic"
    STRIPE = "stripe"


@dataclass(frozen=True)
class About:
    """What a delivery is about: a payment that is there, or one that nobody knows."""

    payment_id: str = "pay_00000000000000000000000000"
    gateway_reference: str = "gp_unknown"
    amount: str = "18.50"


def reserve(count: int) -> int:
    """The first of ``count`` numbers of events that nobody else in this process gets."""
    first = next(_numbers)
    for _ in itertools.islice(_numbers, count - 1):
        pass
    return first


def generic_body(about: About, number: int) -> bytes:
    document = {
        "event_id": f"evt-bench-{number:010d}",
        "payment_id": about.gateway_reference,
        "transaction_id": about.payment_id,
        "status": "completed",
        "amount": float(about.amount),
        "currency": "USD",
        "note": _FILLER,
    }
    return json.dumps(document).encode()


def stripe_body(about: About, number: int) -> bytes:
    """A type that dj-stripe stores without asking Stripe's API for the object: the cheapest that it can do."""
    document = {
        "id": f"evt_bench{number:010d}",
        "object": "event",
        "api_version": "2026-05-27.dahlia",
        "created": 1_760_000_000,
        "data": {"object": {"object": "balance", "id": about.gateway_reference, "note": _FILLER, "livemode": False}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "balance.available",
    }
    return json.dumps(document).encode()


def signed(url: str, body: bytes, scheme: Scheme, secret: str) -> bytes:
    headers = {"content-type": "application/json"}
    if scheme is Scheme.STRIPE:
        moment = int(time.time())
        signature = hmac.digest(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hex()
        headers["stripe-signature"] = f"t={moment},v1={signature}"
    else:
        headers["x-signature"] = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    return request_bytes(url, body, headers)


def build_requests(
    url: str,
    abouts: Sequence[About],
    count: int,
    *,
    first: int,
    scheme: Scheme = Scheme.GENERIC,
    secret: str = "",
) -> list[bytes]:
    """Every one is a new event: nothing is answered as a duplicate. Without ``abouts`` each is about a payment that
    nobody knows."""
    key = secret or SECRETS["WEBHOOK_SECRET"]
    make = stripe_body if scheme is Scheme.STRIPE else generic_body
    about: Iterator[About] = itertools.cycle(abouts) if abouts else numbered_unknown(first, count)
    return [signed(url, make(next(about), number), scheme, key) for number in range(first, first + count)]


def numbered_unknown(first: int, count: int) -> Iterator[About]:
    """Payments that nobody knows, each another one."""
    for number in range(first, first + count):
        yield About(f"pay_{number:026d}", f"gp_unknown_{number}")
