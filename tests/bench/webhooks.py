"""Signed deliveries of the generic gateway, about a kilobyte each, built before the clock starts."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.load import request_bytes
from tests.e2e.stack import SECRETS

_numbers = itertools.count(1)
_FILLER = "A gateway says more than anybody reads. " * 18


@dataclass(frozen=True)
class About:
    """What a delivery is about: a payment that is there, or one that nobody knows."""

    payment_id: str = "pay_00000000000000000000000000"
    gateway_reference: str = "gp_unknown"
    amount: str = "18.50"


def webhook_bytes(url: str, about: About) -> bytes:
    """Every one is a new event: nothing is answered as a duplicate."""
    document = {
        "event_id": f"evt-bench-{next(_numbers):08d}",
        "payment_id": about.gateway_reference,
        "transaction_id": about.payment_id,
        "status": "completed",
        "amount": float(about.amount),
        "currency": "USD",
        "note": _FILLER,
    }
    body = json.dumps(document).encode()
    signature = hmac.new(SECRETS["WEBHOOK_SECRET"].encode(), body, hashlib.sha256).hexdigest()
    return request_bytes(url, body, {"content-type": "application/json", "x-signature": signature})


def webhook_requests(url: str, abouts: Sequence[About], count: int) -> list[bytes]:
    return [webhook_bytes(url, about) for about in itertools.islice(itertools.cycle(abouts), count)]


def numbered_unknown(count: int) -> Iterator[About]:
    """Payments that nobody knows, each another one."""
    for number in itertools.islice(_numbers, count):
        yield About(f"pay_{number:026d}", f"gp_unknown_{number}")
