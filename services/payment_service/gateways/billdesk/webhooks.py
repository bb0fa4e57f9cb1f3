"""BillDesk's notifications, translated from the JSON that webhook_ingest found in their JOSE.

A token holds no time and nothing that is good once, so a captured one can be sent again: what it says stays true, but
a success is asked about all the same, and so is the end of a try, which is the payment's only if no other try lives
(billdesk.md: Webhooks).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.payment_service.domain.models import FactKind
from services.payment_service.gateways.billdesk.reading import Reader
from services.payment_service.gateways.json_reading import identifier_of, object_of, optional_identifier
from services.payment_service.gateways.port import GatewayEvent

Json = Mapping[str, Any]


def translate(body: Json, reader: Reader, received_at: datetime) -> GatewayEvent:
    """Raises UnexpectedShape or InvalidAmount for what is not documented."""
    kind = identifier_of(body, "objectid")
    if kind not in ("transaction", "refund"):
        return GatewayEvent(kind, ignored="object_not_used")
    reader.check_owner(body)
    if kind == "transaction":
        return _transaction_event(body, reader)
    return _refund_event(body, reader, received_at)


def _transaction_event(body: Json, reader: Reader) -> GatewayEvent:
    event_type = f"transaction.{identifier_of(body, 'auth_status')}"
    transaction = identifier_of(body, "transactionid")
    if _is_masked(transaction):
        return GatewayEvent(event_type, (), _ours(body), must_ask=True)
    observed = reader.transaction(body)
    must_ask = observed.kind in (FactKind.CAPTURED, FactKind.DECLINED)
    return GatewayEvent(event_type, (transaction,), _ours(body), (observed,), must_ask=must_ask)


def _refund_event(body: Json, reader: Reader, received_at: datetime) -> GatewayEvent:
    event_type = f"refund.{identifier_of(body, 'refund_status')}"
    transaction = identifier_of(body, "transactionid")
    if _is_masked(transaction) or _is_masked(identifier_of(body, "refundid")):
        return GatewayEvent(event_type, (), _ours(body), must_ask=True)
    return GatewayEvent(event_type, (transaction,), _ours(body), (reader.refund(body, received_at),))


def _ours(body: Json) -> tuple[str, ...]:
    """Our attempt's reference is the orderid; our payment's id went out as additional information."""
    payment = optional_identifier(object_of(body, "additional_info"), "additional_info1")
    found = (identifier_of(body, "orderid"), payment)
    return tuple(dict.fromkeys(each for each in found if each))


def _is_masked(identifier: str) -> bool:
    """An id of digits alone may look like a card number, and is then taken out on its way here (shared/masking.py)."""
    return "[PAN:" in identifier
