"""What CCAvenue posts to us, opened by webhook_ingest: a form that names an order and is believed in nothing else.

Its encryption carries no checksum, so every event only causes a question (fact sheet: Callbacks).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from services.payment_service.gateways.ccavenue.reading import id_of
from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.port import Delivery, GatewayEvent

MOST_FIELDS = 200


def translate(delivery: Delivery) -> GatewayEvent:
    """Raises UnexpectedShape."""
    form = _form(delivery)
    order, tracking = _first(form, "order_id", "order_no"), _first(form, "tracking_id", "reference_no")
    if order is None and tracking is None:
        if form.get("current_status"):  # a way to pay has gone, or has come back: nobody's payment
            return GatewayEvent("payment_option", ignored="event_type_not_used")
        raise UnexpectedShape("the event names no order")
    ours = tuple(dict.fromkeys(each for each in (order, _first(form, "merchant_param1")) if each))
    return GatewayEvent(_event_type(form), (tracking,) if tracking else (), ours, must_ask=True)


def _event_type(form: Mapping[str, str]) -> str:
    if form.get("order_status"):
        return "order_status"
    return "risk_status" if form.get("risk_status") else "unknown"


def _first(form: Mapping[str, str], *names: str) -> str | None:
    return next((id_of(form, name) for name in names if form.get(name)), None)


def _form(delivery: Delivery) -> dict[str, str]:
    if "x-www-form-urlencoded" not in delivery.content_type.lower():
        raise UnexpectedShape("not a form")
    try:
        pairs = parse_qsl(
            delivery.payload, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise UnexpectedShape("not a form") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise UnexpectedShape("a name comes twice")
    return form
