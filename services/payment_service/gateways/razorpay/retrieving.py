"""Everything that Razorpay knows of one session: its link, its orders, their payments, refunds and disputes.

Only what carries our reference counts: a link by its ``reference_id``, an order by its ``receipt``. References of other
kinds may have come with a webhook whose subject is somebody else's payment, and are never followed by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, optional_identifier
from services.payment_service.gateways.port import Snapshot
from services.payment_service.gateways.razorpay.api import Json, RazorpayApi, entries_of, segment
from services.payment_service.gateways.razorpay.reading import (
    dispute_observation,
    money_observations,
    order_id_of,
    was_captured,
)
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, InvalidAmount

_LINK_ENDED = {"expired": FactKind.EXPIRED, "cancelled": FactKind.CANCELED}


@dataclass(slots=True)
class _Found:
    """What was read so far."""

    link: Json | None = None
    orders: list[Json] = field(default_factory=list)
    payments: dict[str, Json] = field(default_factory=dict)

    @property
    def references(self) -> tuple[str, ...]:
        link = [identifier_of(self.link, "id")] if self.link is not None else []
        orders = [order_id_of(order, "id") for order in self.orders]
        of_payments = [order_id_of(payment) for payment in self.payments.values()]
        found = (*link, *orders, *of_payments, *self.payments)
        return tuple(dict.fromkeys(reference for reference in found if reference))


class Retriever:
    def __init__(self, api: RazorpayApi) -> None:
        self._api = api

    async def retrieve(self, references: Sequence[str], *, our_reference: str) -> Snapshot:
        """Raises GatewayObjectNotFound where neither a link nor an order of ours is there."""
        try:
            found = await self._find(references, our_reference)
            return await self._snapshot(found, references)
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("Razorpay's answer is not understood") from error

    async def close_order(self, reference: str, *, our_reference: str) -> Snapshot:
        """Canceled on our side, unless a try is under way or has brought money."""
        try:
            found = await self._find((reference,), our_reference)
            snapshot = await self._snapshot(found, ())
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("Razorpay's answer is not understood") from error
        if any(payment.get("status") != "failed" for payment in found.payments.values()):
            return snapshot
        closed = Observation(FactKind.CANCELED, reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (*snapshot.observations, closed))

    # --- finding ---------------------------------------------------------------------------------------------------

    async def _find(self, references: Sequence[str], our_reference: str) -> _Found:
        links = [reference for reference in references if reference.startswith("plink_")]
        orders = [reference for reference in references if reference.startswith("order_")]
        found = _Found()
        for reference in links:
            found.link = found.link or await self._read("/payment_links", reference, "reference_id", our_reference)
        if found.link is None and not orders:
            listed = await self._api.get("/payment_links", {"reference_id": our_reference})
            found.link = next(
                (e for e in entries_of(listed, ("payment_links",)) if e.get("reference_id") == our_reference), None
            )
        found.orders = await self._find_orders(orders, our_reference)
        if found.link is None and not found.orders:
            raise GatewayObjectNotFound("Razorpay knows no link and no order with our reference")
        await self._read_payments(found)
        return found

    async def _find_orders(self, known: Iterable[str], our_reference: str) -> list[Json]:
        """The order behind a link has the link's reference as its receipt."""
        listed = entries_of(await self._api.get("/orders", {"receipt": our_reference}))
        orders = [order for order in listed if order.get("receipt") == our_reference]
        shown = {order_id_of(order, "id") for order in orders}
        for reference in known:
            if reference not in shown:
                order = await self._read("/orders", reference, "receipt", our_reference)
                orders += [order] if order is not None else []
        return orders

    async def _read(self, path: str, reference: str, key: str, our_reference: str) -> Json | None:
        try:
            body = await self._api.get(f"{path}/{segment(reference)}")
        except GatewayObjectNotFound:
            return None
        return body if body.get(key) == our_reference else None

    async def _read_payments(self, found: _Found) -> None:
        """Every try, the failed ones too. An order says how many there were, so that none is looked for in vain."""
        for order in found.orders:
            if order.get("status") == "created" and order.get("attempts") == 0:
                continue
            path = f"/orders/{segment(order_id_of(order, 'id') or '')}/payments"
            for payment in entries_of(await self._api.get(path)):
                found.payments.setdefault(identifier_of(payment, "id"), payment)
        for paid in _payments_of_link(found.link):
            if paid not in found.payments:
                found.payments[paid] = await self._api.get(f"/payments/{segment(paid)}")

    # --- saying ----------------------------------------------------------------------------------------------------

    async def _snapshot(self, found: _Found, known: Sequence[str]) -> Snapshot:
        observations = _session_observations(found)
        for payment in that_count(list(found.payments.values())):
            refunds = await self._refunds(payment) if payment.get("status") in ("captured", "refunded") else []
            observations += money_observations(payment, refunds)
        disputes = [reference for reference in known if reference.startswith("disp_")]
        for reference in disputes:
            observations += await self._dispute(reference, found)
        return Snapshot(found.references, tuple(observations))

    async def _refunds(self, payment: Json) -> list[Json]:
        """Asked for even where the payment shows none: one that failed leaves no trace on it."""
        return await self._api.collect(f"/payments/{segment(identifier_of(payment, 'id'))}/refunds", {})

    async def _dispute(self, reference: str, found: _Found) -> list[Observation]:
        """There is no list of a payment's disputes, so those that a webhook has named are read again."""
        try:
            dispute = await self._api.get(f"/disputes/{segment(reference)}")
        except GatewayObjectNotFound:
            return []
        return [dispute_observation(dispute)] if dispute.get("payment_id") in found.payments else []


def _payments_of_link(link: Json | None) -> list[str]:
    """``payments`` of a link is null until somebody has paid."""
    payments = (link.get("payments") if link is not None else None) or []
    if not isinstance(payments, list) or not all(isinstance(payment, dict) for payment in payments):
        raise UnexpectedShape("payments is not a list")
    found = (optional_identifier(payment, "payment_id") for payment in payments)
    return [payment for payment in found if payment is not None]


def _session_observations(found: _Found) -> list[Observation]:
    """Whether the page is still open. The order behind a link says nothing that the link does not say better."""
    if found.link is not None:
        reference, status = identifier_of(found.link, "id"), found.link.get("status")
        kind = _LINK_ENDED.get(status) if isinstance(status, str) else None
        if status in ("created", "partially_paid"):
            kind = FactKind.SESSION_OPENED
        return [Observation(kind, reference)] if kind is not None else []
    return [
        Observation(FactKind.SESSION_OPENED, order_id_of(order, "id") or "")
        for order in found.orders
        if order.get("status") in ("created", "attempted")
    ]


def that_count(payments: list[Json]) -> list[Json]:
    """All tries, but where money was taken not the ones that are merely held (fact sheet: Retrieve).

    A second hold beside a captured payment lets go by itself; to report it would make one payment look like two.
    """
    is_taken = any(was_captured(payment) for payment in payments)
    return [payment for payment in payments if not (is_taken and payment.get("status") == "authorized")]
