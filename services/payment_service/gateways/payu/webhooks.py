"""PayU's webhooks, translated to a question.

The hash on a payment's webhook leaves out what tells captured from held, and PayU's own id; refunds and disputes carry
no hash at all. So every one of them only says which payment to ask about, and only the fields for that arrive
here (webhook_ingest). PayU's id may be missing: one that looks like a card number is masked on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from services.payment_service.gateways.payu.reading import OUR_REFERENCE, PAYU_ID, scalar_text
from services.payment_service.gateways.port import Delivery, GatewayEvent

MOST_FIELDS = 500

Fields = Mapping[str, Any]


def translate(delivery: Delivery) -> GatewayEvent:
    """Raises UnexpectedShape for what is not documented."""
    fields = _fields(delivery.payload)
    status = _word(fields, "status")
    if _word(fields, "action") == "refund":
        return _question(f"refund.{status}", fields, payu_id="mihpayid", ours="merchantTxnId")
    if _word(fields, "event") == "dispute":
        return _question(f"dispute.{_word(fields, 'cb_status')}", fields, payu_id="txn_id")
    if scalar_text(fields.get("txnid")) is None:
        raise UnexpectedShape("neither a payment nor a refund nor a dispute")
    return _question(f"payment.{status}", fields, payu_id="mihpayid", ours="txnid")


def _fields(payload: str) -> Fields:
    if payload.lstrip().startswith("{"):
        return parse_json_object(payload)
    try:
        pairs = parse_qsl(payload, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise UnexpectedShape("not a form") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise UnexpectedShape("a field appears twice")
    return fields


def _question(event_type: str, fields: Fields, *, payu_id: str, ours: str | None = None) -> GatewayEvent:
    theirs = scalar_text(fields.get(payu_id))
    references = (theirs,) if theirs is not None and PAYU_ID.fullmatch(theirs) else ()
    echoed = scalar_text(fields.get(ours)) if ours is not None else None
    our_references = (echoed,) if echoed is not None and OUR_REFERENCE.fullmatch(echoed) else ()
    if not references and not our_references:
        raise UnexpectedShape("it names no payment")
    return GatewayEvent(event_type[:100], references, our_references, must_ask=True)


def _word(fields: Fields, name: str) -> str:
    return (scalar_text(fields.get(name)) or "").lower()
