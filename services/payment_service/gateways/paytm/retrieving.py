"""Everything that Paytm knows of one order: its status, and the refunds that took from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.paytm.api import READ, Json, PaytmApi
from services.payment_service.gateways.paytm.passbook import Passbook, Window
from services.payment_service.gateways.paytm.reading import money_of, order_observation
from services.payment_service.gateways.paytm.refunds import Refunds
from services.payment_service.gateways.port import Snapshot
from shared.clock import Clock
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, InvalidAmount
from shared.ids import time_of_reference

log = structlog.get_logger()

ABANDONED_AFTER = timedelta(hours=24)
"""From when on an order without a record has expired. Its token lives for 15 minutes, but may have been fetched, and
fetched again, long after the order got its reference."""

MOST_REFUNDS = 20
"""More refunds of one order than this are not asked about one by one; the newest are."""

_LOOK_BACK = timedelta(days=30)
_TAKES = frozenset({FactKind.REFUND_PENDING, FactKind.REFUND_SUCCEEDED})


class Retriever:
    """``passbook`` None: not switched on. Then a refund that somebody makes in the dashboard is known by its webhook
    alone."""

    def __init__(self, api: PaytmApi, refunds: Refunds, passbook: Passbook | None, clock: Clock) -> None:
        self._api = api
        self._refunds = refunds
        self._passbook = passbook
        self._clock = clock

    async def retrieve(self, references: Sequence[str], *, our_reference: str) -> Snapshot:
        """Raises GatewayObjectNotFound for an order that nobody has tried to pay and that we do not know to be open."""
        try:
            return await self._asked(references, our_reference)
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("Paytm's answer is not understood") from error

    async def told_of(self, order_id: str) -> Snapshot:
        """For lists: an order that Paytm does not speak of, or not so that it can be understood, may be somebody
        else's, and must not keep the others from us. One of ours that says nothing is asked about by itself."""
        try:
            return await self._asked((order_id,), order_id)
        except (UnexpectedShape, InvalidAmount, GatewayRejected):
            return Snapshot((order_id,), ())

    async def _asked(self, references: Sequence[str], our_reference: str) -> Snapshot:
        """As ``retrieve``, but what cannot be understood raises UnexpectedShape, InvalidAmount."""
        merchant_id = self._api.merchant_id
        said = await self._api.call("/v3/order/status", {"mid": merchant_id, "orderId": our_reference}, READ)
        if said.means_absence:
            return self._without_record(references, our_reference)
        order = order_observation(said, merchant_id=merchant_id, order_id=our_reference)
        if order.kind is not FactKind.CAPTURED:
            return Snapshot(tuple(dict.fromkeys((our_reference, order.object_reference))), (order,))
        known = [name for name in references if name not in (our_reference, order.object_reference)]
        refunds = await self._refunds_of(our_reference, order, said.body, known)
        names = (refund.object_reference for refund in refunds)
        return Snapshot((our_reference, order.object_reference, *names), (order, *refunds))

    def _without_record(self, references: Sequence[str], our_reference: str) -> Snapshot:
        """Paytm says the same of an order that is not paid yet and of one that it never heard of."""
        if our_reference not in references:
            raise GatewayObjectNotFound("Paytm has no record of this order", gateway_code="331")
        made_at = time_of_reference(our_reference)
        is_over = made_at is not None and made_at + ABANDONED_AFTER <= self._clock.now()
        kind = FactKind.EXPIRED if is_over else FactKind.SESSION_OPENED
        return Snapshot((our_reference,), (Observation(kind, our_reference),))

    async def _refunds_of(
        self, order_id: str, order: Observation, body: Json, known: Sequence[str]
    ) -> list[Observation]:
        """Those that we know of by name; and where more was given back than these, those in the passbook."""
        found = await self._ask(order_id, order, known)
        if self._passbook is None or not _gives_back_more(body, found):
            return found
        now = self._clock.now()
        window = Window(max(order.occurred_at or now - _LOOK_BACK, now - _LOOK_BACK), now)
        try:
            listed = await self._passbook.refunds_of(order_id, window)
        except GatewayRejected:  # what the order itself says is no less true for it
            return found
        strangers = [name for name in listed if name not in {each.object_reference for each in found}]
        return found + await self._ask(order_id, order, strangers)

    async def _ask(self, order_id: str, order: Observation, names: Sequence[str]) -> list[Observation]:
        """Of what cannot be asked about, or be understood, nothing is said; the payment is told all the same. What
        became of a refund of ours is then left to its own question."""
        found = []
        for name in tuple(dict.fromkeys(names))[-MOST_REFUNDS:]:
            try:
                refund = await self._refunds.observe(order_id, name, order.object_reference)
            except (GatewayRejected, UnexpectedShape, InvalidAmount) as error:
                log.warning("refund_not_told", gateway="paytm", order=order_id, refund=name, why=str(error))
                continue
            found += [refund] if refund is not None else []
        return found


def _gives_back_more(body: Json, refunds: Sequence[Observation]) -> bool:
    if body.get("refundAmt") in (None, ""):
        return False
    counted = (refund.amount.amount_minor for refund in refunds if refund.amount is not None and refund.kind in _TAKES)
    return money_of(body, "refundAmt").amount_minor > sum(counted)
