"""What adapters share that list the payments of a window of time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from services.payment_service.gateways.json_reading import UnexpectedShape
from shared.errors import GatewayRejected, InvalidAmount, PayrailError

Said = TypeVar("Said")

_NUMBER = re.compile(r"[0-9]{1,15}")


def whole_seconds(since: datetime, until: datetime) -> tuple[int, int]:
    """A window for gateways that count in seconds: rounded outwards, so that it contains more and never less."""
    return math.floor(since.timestamp()), math.ceil(until.timestamp())


def said(read: Callable[[], tuple[Said, ...]]) -> tuple[Said, ...]:
    """What an entry says, or nothing where it cannot be understood.

    An account is not ours alone: a payment that somebody else made, with ideas of its own about notes or currencies,
    must not keep the rest of the list from us. One of ours that says nothing is asked about.
    """
    try:
        return read()
    except (UnexpectedShape, InvalidAmount):
        return ()


def bad_cursor() -> GatewayRejected:
    """For a cursor that no page of ours gave: that is our mistake, so the gateway is not even asked."""
    return GatewayRejected("there is no such page", gateway_code="bad_cursor")


def code_of(error: Exception) -> str:
    """For a log that says why something beside the money could not be read: no word of the answer but its code."""
    if isinstance(error, GatewayRejected) and error.gateway_code is not None:
        return error.gateway_code
    return error.code if isinstance(error, PayrailError) else "not_understood"


def number_in(cursor: str) -> int:
    """Of a cursor that counts. Raises GatewayRejected."""
    if not _NUMBER.fullmatch(cursor):
        raise bad_cursor()
    return int(cursor)
