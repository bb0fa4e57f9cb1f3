"""PayPal's objects as facts: the deepest object first (fact sheet, retrieve).

An order that is COMPLETED says nothing about money; its authorizations, captures and refunds do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
    optional_text,
    text_of,
)
from services.payment_service.gateways.paypal.amounts import from_paypal
from services.payment_service.gateways.port import OutcomeStatus, Snapshot

Json = Mapping[str, Any]

_OPEN = frozenset({"CREATED", "SAVED", "PAYER_ACTION_REQUIRED"})
_MONEY_TAKEN = frozenset({"COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED"})
_HELD = frozenset({"CREATED", "CAPTURED", "PARTIALLY_CAPTURED", "VOIDED"})
_REFUND: Mapping[str, FactKind] = {
    "COMPLETED": FactKind.REFUND_SUCCEEDED,
    "PENDING": FactKind.REFUND_PENDING,
    "FAILED": FactKind.REFUND_FAILED,
    "CANCELLED": FactKind.REFUND_FAILED,
}
_OUTCOME: Mapping[str, OutcomeStatus] = {
    **dict.fromkeys(("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED"), OutcomeStatus.SUCCEEDED),
    **dict.fromkeys(("CREATED", "CAPTURED", "PARTIALLY_CAPTURED", "VOIDED"), OutcomeStatus.SUCCEEDED),
    "PENDING": OutcomeStatus.PENDING,
    **dict.fromkeys(("DECLINED", "FAILED", "CANCELLED", "DENIED"), OutcomeStatus.FAILED),
}

_CAPTURE_LINK = re.compile(r"/v2/payments/captures/([A-Za-z0-9_-]{1,64})$")


@dataclass(frozen=True, slots=True)
class Order:
    """An order with its one purchase unit, and the payments made under it."""

    reference: str
    status: str
    unit: Json
    authorizations: Sequence[Json]
    captures: Sequence[Json]
    refunds: Sequence[Json]
    body: Json

    @property
    def our_reference(self) -> str | None:
        return optional_identifier(self.unit, "custom_id")

    @property
    def takes_at_once(self) -> bool:
        return optional_text(self.body, "intent") != "AUTHORIZE"

    @property
    def has_payments(self) -> bool:
        return bool(self.authorizations or self.captures)

    @property
    def references(self) -> tuple[str, ...]:
        """Ours first: retrieve begins with it. A refund is found by its capture."""
        found = (self.reference, *(identifier_of(each, "id") for each in (*self.authorizations, *self.captures)))
        return tuple(dict.fromkeys(found))


def read_order(body: Json) -> Order:
    """Raises UnexpectedShape. We make orders of one purchase unit only."""
    units = _objects(body, "purchase_units")
    if len(units) != 1:
        raise UnexpectedShape("an order of ours has one purchase unit")
    payments = object_of(units[0], "payments")
    return Order(
        identifier_of(body, "id"),
        identifier_of(body, "status"),
        units[0],
        _objects(payments, "authorizations"),
        _objects(payments, "captures"),
        _objects(payments, "refunds"),
        body,
    )


def snapshot_of_order(order: Order) -> Snapshot:
    return Snapshot(order.references, tuple(_observations_of_order(order)))


def _observations_of_order(order: Order) -> Iterator[Observation]:
    for refund in order.refunds:
        yield observation_of_refund(refund, our_reference=order.our_reference, only_capture=_only_capture(order))
    for capture in order.captures:
        yield from observations_of_capture(capture, takes_at_once=order.takes_at_once)
    for authorization in order.authorizations:
        yield from observations_of_authorization(authorization, _captures_of(authorization, order))
    if not order.has_payments:
        yield from _without_payments(order)


def _without_payments(order: Order) -> Iterator[Observation]:
    at = moment(order.body, "update_time") or moment(order.body, "create_time")
    if order.status in _OPEN:
        yield Observation(FactKind.SESSION_OPENED, order.reference)
    elif order.status == "APPROVED":
        # A second approval, after a declined instrument, is another fact: its time tells them apart.
        when = optional_identifier(order.body, "update_time") or optional_identifier(order.body, "create_time")
        yield Observation(FactKind.APPROVED, order.reference, from_paypal(order.unit), at, when)
    elif order.status == "VOIDED":
        yield Observation(FactKind.CANCELED, order.reference, occurred_at=at, reason="voided")


def observations_of_authorization(authorization: Json, captures: Sequence[Json]) -> Iterator[Observation]:
    """AUTHORIZED tells all that was held, whatever was captured of it since, so that facts only ever grow."""
    reference, status = identifier_of(authorization, "id"), identifier_of(authorization, "status")
    ends_at = moment(authorization, "expiration_time")
    at = moment(authorization, "create_time")
    if status in _HELD:
        held = from_paypal(authorization)
        yield Observation(FactKind.AUTHORIZED, reference, held, at, capture_before=ends_at)
        yield from _end_of_hold(authorization, captures)
    elif status == "PENDING":
        yield Observation(FactKind.PROCESSING, reference, occurred_at=at, reason=reason_of(authorization))
    elif status == "DENIED":
        yield Observation(FactKind.FAILED, reference, occurred_at=at, reason=reason_of(authorization) or "DENIED")


def _end_of_hold(authorization: Json, captures: Sequence[Json]) -> Iterator[Observation]:
    """What is gone of it: a rest that nobody will take any more, or all of it."""
    reference, status = identifier_of(authorization, "id"), identifier_of(authorization, "status")
    at = moment(authorization, "update_time")
    live = [each for each in captures if _outcome_of(each) is not OutcomeStatus.FAILED]
    if status == "VOIDED" and not live:
        ends_at = moment(authorization, "expiration_time")
        lapsed = at is not None and ends_at is not None and at >= ends_at
        yield Observation(FactKind.EXPIRED if lapsed else FactKind.CANCELED, reference, occurred_at=at)
    elif live and not any(_outcome_of(each) is OutcomeStatus.PENDING for each in live):
        taken = sum(from_paypal(each).amount_minor for each in live)
        was_last = status in ("CAPTURED", "VOIDED") or any(each.get("final_capture") is True for each in live)
        if was_last and taken < from_paypal(authorization).amount_minor:
            yield Observation(FactKind.RELEASED, reference, occurred_at=at)


def observations_of_capture(capture: Json, *, takes_at_once: bool) -> Iterator[Observation]:
    """Of a capture that takes held money only success is a fact: its failure is the operation's, the hold stays."""
    reference, status = identifier_of(capture, "id"), identifier_of(capture, "status")
    at = moment(capture, "create_time")
    if status in _MONEY_TAKEN:
        yield Observation(FactKind.CAPTURED, reference, from_paypal(capture), at)
    elif takes_at_once and status == "PENDING":
        yield Observation(FactKind.PROCESSING, reference, occurred_at=at, reason=reason_of(capture))
    elif takes_at_once and status in ("DECLINED", "FAILED"):
        yield Observation(FactKind.FAILED, reference, occurred_at=at, reason=reason_of(capture) or status)


def observation_of_refund(refund: Json, *, our_reference: str | None, only_capture: str | None = None) -> Observation:
    """``our_reference``: the order's; a refund from the dashboard may carry it along, and it names no operation."""
    status = identifier_of(refund, "status")
    if status not in _REFUND:
        raise UnexpectedShape("unknown status of a refund")
    kind = _REFUND[status]
    echoed = optional_identifier(refund, "custom_id")
    return Observation(
        kind,
        identifier_of(refund, "id"),
        from_paypal(refund),
        moment(refund, "create_time"),
        (reason_of(refund) or status) if kind is FactKind.REFUND_FAILED else None,
        about=capture_of_refund(refund) or only_capture,
        operation=echoed if echoed != our_reference else None,
    )


def capture_of_refund(refund: Json) -> str | None:
    """The capture that it takes from: PayPal says so in a link (``rel=up``)."""
    for link in _objects(refund, "links"):
        found = _CAPTURE_LINK.search(optional_text(link, "href") or "") if link.get("rel") == "up" else None
        if found:
            return found.group(1)
    return related(refund, "capture_id")


def related(source: Json, name: str) -> str | None:
    """``supplementary_data.related_ids``: the ids of the objects above it."""
    return optional_identifier(object_of(object_of(source, "supplementary_data"), "related_ids"), name)


def reason_of(source: Json) -> str | None:
    return optional_identifier(object_of(source, "status_details"), "reason")


def outcome_of(source: Json) -> OutcomeStatus:
    """Raises UnexpectedShape: a status that we do not know is neither success nor failure."""
    outcome = _outcome_of(source)
    if outcome is None:
        raise UnexpectedShape("unknown status")
    return outcome


def carries(source: Json, reference: str) -> bool:
    """Whether it was made by the operation with this reference of ours."""
    return reference in (source.get("custom_id"), source.get("invoice_id"))


def moment(source: Json, key: str) -> datetime | None:
    """RFC 3339; a time that cannot be read is no time."""
    text = optional_text(source, key)
    try:
        found = datetime.fromisoformat(text) if text else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _outcome_of(source: Json) -> OutcomeStatus | None:
    return _OUTCOME.get(text_of(source, "status"))


def _only_capture(order: Order) -> str | None:
    return identifier_of(order.captures[0], "id") if len(order.captures) == 1 else None


def _captures_of(authorization: Json, order: Order) -> Sequence[Json]:
    """Those that name it, and those that name none: an order of ours has one authorization."""
    reference = identifier_of(authorization, "id")
    return [each for each in order.captures if related(each, "authorization_id") in (reference, None)]


def _objects(source: Json, key: str) -> Sequence[Json]:
    found = source.get(key)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UnexpectedShape(f"{key} is not a list of objects")
    return found
