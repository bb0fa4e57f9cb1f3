"""PayU's list of transactions, in windows of an hour: how large one may be is not documented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import groupby

from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.listing import bad_cursor
from services.payment_service.gateways.payu.api import Answer, PayuApi
from services.payment_service.gateways.payu.money_calls import understood
from services.payment_service.gateways.payu.reading import (
    INDIA,
    OUR_REFERENCE,
    PAYU_ID,
    Json,
    is_nothing,
    moment_of,
    row_observations,
    rows_in,
    scalar_text,
)
from services.payment_service.gateways.port import Listed, ListPage

WINDOW = timedelta(hours=1)


async def list_window(api: PayuApi, since: datetime, until: datetime, cursor: str | None) -> ListPage:
    """One hour of it; the cursor is where the next one begins. Times are India's, and both ends count."""
    start = _start_of(cursor, since, until) if cursor is not None else since
    end = min(start + WINDOW, until)
    answer = await api.call("get_transaction_info", _written(start), _written(end + timedelta(seconds=1)))
    entries = understood(lambda: tuple(_listed(_rows(answer))), "list")
    next_cursor = end.astimezone(UTC).isoformat() if end < until else None
    return ListPage(entries, next_cursor)


def _start_of(cursor: str, since: datetime, until: datetime) -> datetime:
    """Raises GatewayRejected for what no page of ours gave."""
    try:
        start = datetime.fromisoformat(cursor)
    except ValueError:
        raise bad_cursor() from None
    if start.tzinfo is None or not since <= start <= until:
        raise bad_cursor()
    return start


def _rows(answer: Answer) -> list[Json]:
    if not answer.is_ok and "Transaction_details" not in answer.body:
        if is_nothing(answer.body):
            return []
        raise UnexpectedShape("PayU gives no list")
    return rows_in(answer.body)


def _listed(rows: list[Json]) -> list[Listed]:
    """One payment may have several rows, one for each action on it.

    Raises UnexpectedShape where one of ours has no id: it would be missing, and nobody would know.
    """
    named = [(_id_of(row), row) for row in rows]
    usable = sorted(((payu_id, row) for payu_id, row in named if payu_id is not None), key=lambda pair: pair[0])
    found = []
    for payu_id, group in groupby(usable, key=lambda pair: pair[0]):
        own = [row for _, row in group]
        ours = _ours(own[0])
        facts = dict.fromkeys(fact for row in own for fact in row_observations(row, payu_id))
        found.append(Listed((payu_id, *ours), ours, tuple(facts), moment_of(own[0])))
    return found


def _id_of(row: Json) -> str | None:
    """None for a row of somebody else's that cannot be used."""
    payu_id = scalar_text(row.get("id"))
    if payu_id is not None and PAYU_ID.fullmatch(payu_id):
        return payu_id
    if _ours(row):
        raise UnexpectedShape("a payment of ours is listed without PayU's id")
    return None


def _ours(row: Json) -> tuple[str, ...]:
    txnid = scalar_text(row.get("txnid"))
    return (txnid,) if txnid is not None and OUR_REFERENCE.fullmatch(txnid) else ()


def _written(moment: datetime) -> str:
    return f"{moment.astimezone(INDIA):%Y-%m-%d %H:%M:%S}"
