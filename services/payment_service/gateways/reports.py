"""What adapters share that fetch their gateway's own report of a day: pages put together as one document of the
gateway's own shape, exactly as it wrote its numbers, and bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.port import SettlementReport
from shared.errors import GatewayRejected

MAX_REPORT_BYTES = 50 * 1024 * 1024
"""Of all reports of a day together: they are held in memory, here and where they are asked for."""

JSON_TYPE = "application/json"


class ReportTooLarge(GatewayRejected):
    """The gateway's report of this day is larger than is fetched; get its file in another way and upload it."""

    code = "report_too_large"


class Room:
    """What is left of the space for one day's reports."""

    def __init__(self, most_bytes: int | None = None) -> None:
        self._left = MAX_REPORT_BYTES if most_bytes is None else most_bytes

    def take(self, text: str) -> str:
        self._left -= len(text) if text.isascii() else len(text.encode())
        if self._left < 0:
            raise ReportTooLarge
        return text


class Rows:
    """Rows of several pages, kept as the text that they become."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, rows: Iterable[Any]) -> None:
        """Raises ReportTooLarge, UnexpectedShape."""
        for row in rows:
            self._texts.append(self._room.take(exact_json(row)))

    def text(self) -> str:
        """A JSON array."""
        return f"[{','.join(self._texts)}]"


def json_report(name: str, format_: str, content: str) -> SettlementReport:
    return SettlementReport(name, format_, JSON_TYPE, content)


def exact_json(value: Any) -> str:
    """JSON in which a Decimal stands as the number that it was. Raises UnexpectedShape for text that no UTF-8 holds."""
    text = _written(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UnexpectedShape("a text is no text") from error
    return text


def _written(value: Any) -> str:
    match value:
        case Decimal():
            return f"{value:f}"
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{_written(each)}" for key, each in value.items()) + "}"
        case list():
            return f"[{','.join(map(_written, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def day_in(zone: tzinfo, day: date) -> tuple[datetime, datetime]:
    """From its first moment to the next day's, in UTC."""
    start = datetime.combine(day, time(), zone)
    return start.astimezone(UTC), (start + timedelta(days=1)).astimezone(UTC)
