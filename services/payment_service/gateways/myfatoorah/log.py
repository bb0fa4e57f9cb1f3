"""MyFatoorah's log of the webhooks that it sent: the one place where payments of a window and disputes can be read.

It is asked with our token, so what it says is as good as any answer, unlike the webhook itself, whose amounts nobody
signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    object_of,
    optional_identifier,
    parse_json_object,
    text_of,
    whole_number,
)
from services.payment_service.gateways.listing import code_of, said
from services.payment_service.gateways.myfatoorah.amounts import Account
from services.payment_service.gateways.myfatoorah.api import READ, Json, MyFatoorahApi
from services.payment_service.gateways.myfatoorah.reading import number_or_text
from services.payment_service.gateways.myfatoorah.webhooks import ours_of, references_of
from services.payment_service.gateways.port import Listed, ListPage
from shared.errors import GatewayError, GatewayOutcomeUnknown

log = structlog.get_logger()

PAYMENTS, DISPUTES = "PAYMENT_STATUS_CHANGED", "DISPUTE_STATUS_CHANGED"

DISPUTED_WITHIN = timedelta(days=365)
"""How far back a dispute of a payment is looked for; card schemes allow less."""

MOST_PAGES = 20

_MONEY = {"success": FactKind.CAPTURED, "authorize": FactKind.AUTHORIZED}
_DISPUTE_KINDS = {
    "pending": FactKind.DISPUTE_OPENED,
    "resolved": FactKind.DISPUTE_WON,
    "lost": FactKind.DISPUTE_LOST,
}


class WebhookLog:
    def __init__(self, api: MyFatoorahApi, account: Account) -> None:
        self._api = api
        self._account = account

    async def list_window(self, since: datetime, until: datetime, cursor: str | None) -> ListPage:
        page = int(cursor) if cursor is not None and cursor.isascii() and cursor.isdigit() else 1
        items, pages = await self._read(since, until, page, {"EventType": PAYMENTS})
        entries = tuple(listed for item in items for listed in self._listed(item))
        return ListPage(entries, str(page + 1) if page < pages else None)

    async def disputes_of(self, invoice_id: str, now: datetime) -> list[Observation]:
        """All news of disputes, in any order: the facts are a set.

        What could be read, where the log is not ours to read, be it by the token's permissions, or does not answer: the
        invoice was shown to us just now, and what it says of its money must not wait for that.
        """
        found: list[Observation] = []
        filters = {"EventType": DISPUTES, "Key": [invoice_id], "KeyType": "InvoiceId"}
        page, pages = 1, 1
        while page <= min(pages, MOST_PAGES):
            try:
                items, pages = await self._read(now - DISPUTED_WITHIN, now + timedelta(minutes=5), page, filters)
            except GatewayError as error:
                log.warning("disputes_not_read", gateway="myfatoorah", code=code_of(error))
                return found
            for item in items:
                found += said(lambda item=item: tuple(self._dispute(_event_data(item), invoice_id)))  # type: ignore[misc]
            page += 1
        return found

    async def _read(self, since: datetime, until: datetime, page: int, filters: Json) -> tuple[list[Json], int]:
        window = {"Start": _moment(since), "End": _moment(until + timedelta(seconds=1)), "Page": page}
        data = await self._api.call("GetWebhooks", {**window, **filters}, READ)
        try:
            pagination = object_of(data, "Pagination")
            return entries_of(data, "Items"), whole_number(pagination, "PagesCount") if pagination else 1
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("MyFatoorah's webhook log is not understood") from error

    def _listed(self, item: Json) -> Iterator[Listed]:
        """An entry that names no invoice is none of ours, and must not keep the rest of the page from us."""
        try:
            data = _event_data(item)
            references, ours = references_of(data), ours_of(data)
        except UnexpectedShape:
            return
        if references:
            yield Listed(references, ours, said(lambda: tuple(self._money(data))))

    def _money(self, data: Json) -> Iterator[Observation]:
        """Of a payment that may have been captured in part only the invoice itself tells how much: it is asked."""
        transaction, amount = object_of(data, "Transaction"), object_of(data, "Amount")
        user_field = object_of(data, "Invoice").get("UserDefinedField")
        kind = _MONEY.get(str(transaction.get("Status")).lower())
        may_be_part = kind is FactKind.CAPTURED and isinstance(user_field, str) and "hold=" in user_field
        if kind is not None and not may_be_part:
            money = self._account.money(amount, "ValueInBaseCurrency", "BaseCurrency")
            yield Observation(kind, number_or_text(transaction, "PaymentId"), money)

    def _dispute(self, data: Json, invoice_id: str) -> Iterator[Observation]:
        """Only a chargeback takes money: an alert or a request for documents is no dispute yet."""
        dispute, amount = object_of(data, "Dispute"), object_of(data, "Amount")
        if number_or_text(object_of(data, "Invoice"), "Id") != invoice_id:
            return
        kind = optional_identifier(dispute, "Type")
        if kind is not None and kind.upper() != "CHARGEBACK":
            return
        yield Observation(
            _DISPUTE_KINDS.get(text_of(dispute, "Status").strip().lower(), FactKind.DISPUTE_OPENED),
            number_or_text(dispute, "DisputeTransactionId"),
            self._account.money(amount, "ValueInBaseCurrency", "BaseCurrency"),
            reason=optional_identifier(dispute, "ChargeBackType") or "chargeback",
            about=number_or_text(object_of(data, "Transaction"), "PaymentId"),
        )


def _event_data(item: Json) -> dict[str, Any]:
    """Whether the log keeps the whole body or its ``Data`` alone, as text or as JSON, is not documented: all four."""
    value = item.get("Data")
    if isinstance(value, str):
        value = parse_json_object(value)
    if not isinstance(value, dict):
        raise UnexpectedShape("an entry of the log has no data")
    inner = value.get("Data")
    return inner if isinstance(inner, dict) else value


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
