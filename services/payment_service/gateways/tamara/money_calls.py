"""Authorise, capture, cancel and refund at a gateway without idempotency keys: look, call, and look what came of it.

The first look finds what an earlier call of the same operation has done; the second reads the amounts, which the
answers to the calls tell in part only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.looking import certain, found_or_refused
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from services.payment_service.gateways.tamara.amounts import to_tamara
from services.payment_service.gateways.tamara.api import MOVE, Json, TamaraApi, segment
from services.payment_service.gateways.tamara.new_session import clean, shipping_info
from services.payment_service.gateways.tamara.orders import Orders
from services.payment_service.gateways.tamara.reading import (
    APPROVED,
    ENDED,
    WITH_MONEY,
    Capture,
    Order,
    Refund,
    snapshot_of,
)
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.money import Money

_REFUND_STATUS = {
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}

CLOCKS_DIFFER = timedelta(seconds=60)
LONGEST_COMMENT = 250


class MoneyCalls:
    def __init__(self, api: TamaraApi, orders: Orders, shipping_company: str) -> None:
        self._api = api
        self._orders = orders
        self._shipping_company = shipping_company

    async def complete(self, call: MoneyCall) -> Outcome:
        """Authorise what the shopper has agreed to; where the money is to be taken at once, capture all of it too.

        Some accounts authorise or capture by themselves: whatever is done already is not done again.
        """
        order = await self._order_to_complete(call)
        if order.status == APPROVED:
            order = await self._authorise(order, call)
        done = _completion_in(order, call)
        if done is not None:
            return done
        if not order.is_held:
            raise GatewayOutcomeUnknown("Tamara does not show this order as approved")
        try:
            await self._take(order, call, order.rest)
        except GatewayRejected:
            return await self._held_only(call)
        except GatewayUnavailable as error:  # this half never arrived, but the other one may have run
            raise GatewayOutcomeUnknown("authorised, and not captured yet") from error
        return await self._shown(call)

    async def capture(self, call: MoneyCall) -> Outcome:
        """Where the rest is to be let go, it is canceled before: Tamara cancels only while nothing is captured."""
        order = await self._first_look(call)
        done = _capture_in(order, call)
        if done is not None:
            return done
        rest = order.rest
        if call.is_final and order.captured.amount_minor == 0 and order.is_held and call.amount < rest:
            await self._cancel(order, rest - call.amount)
        return await self._made(call, lambda: self._take(order, call, call.amount))

    async def void(self, call: MoneyCall) -> Outcome:
        """All that is still held, however much we think that is."""
        order = await self._first_look(call)
        done = _void_in(order)
        if done is not None:
            return done
        return await self._made(call, lambda: self._cancel(order, order.rest))

    async def refund(self, call: MoneyCall) -> Outcome:
        order = await self._first_look(call)
        done = _refund_in(order, call)
        if done is not None:
            return done
        payload = {
            "total_amount": to_tamara(call.amount),
            "comment": clean(call.reason or "", LONGEST_COMMENT) or "refund",
            "merchant_refund_id": call.reference,
        }
        path = f"/payments/simplified-refund/{segment(order.order_id)}"
        return await self._made(call, lambda: self._api.post(path, MOVE, payload))

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where the order is not shown, or where Tamara still works on it: that proves
        nothing."""
        try:
            order = await self._order(call)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("Tamara refuses to say what became of it") from error
        found = _IN[call.kind](order, call)
        if found is None and order.is_at_work:
            raise GatewayOutcomeUnknown("Tamara is still at work on this order")
        return found

    # --- looking ---------------------------------------------------------------------------------------------------

    async def _order(self, call: MoneyCall) -> Order:
        order = await self._orders.find((call.target, *call.references), call.our_reference)
        if order is None:
            raise GatewayObjectNotFound("Tamara does not know this order")
        return order

    async def _first_look(self, call: MoneyCall) -> Order:
        """Before anything is sent: where it fails, this call has moved nothing."""
        try:
            return await self._order(call)
        except GatewayOutcomeUnknown as error:
            raise GatewayUnavailable("Tamara could not be asked, so nothing was sent") from error

    async def _order_to_complete(self, call: MoneyCall) -> Order:
        """What was approved and is not shown so is asked for again: a refusal would be the end of it, and the shopper
        has paid Tamara the first instalment."""
        try:
            order = await self._first_look(call)
        except GatewayRejected as error:
            raise GatewayUnavailable("Tamara does not show the approved order") from error
        if order.total != call.amount:
            raise GatewayRejected("this order is about another amount", gateway_code="order_of_another_amount")
        return order

    async def _made(self, call: MoneyCall, send: Callable[[], Awaitable[Json]]) -> Outcome:
        try:
            await send()
        except GatewayRejected as refusal:
            return await found_or_refused(refusal, lambda: self.find(call))
        return await self._shown(call)

    async def _shown(self, call: MoneyCall) -> Outcome:
        outcome = await certain(lambda: self.find(call))
        if outcome is None:
            raise GatewayOutcomeUnknown("Tamara took it and does not show it yet")
        return outcome

    async def _held_only(self, call: MoneyCall) -> Outcome:
        """Authorised, and its capture was refused: the money is held, and the rule for holds that should have been
        captured tries again, where everybody can see it."""
        order = await certain(lambda: self._order(call))
        done = _completion_in(order, call)
        return done if done is not None else _outcome(order, order.order_id)

    # --- sending ---------------------------------------------------------------------------------------------------

    async def _authorise(self, order: Order, call: MoneyCall) -> Order:
        """Whatever it answers, the order says what came of it: a second call may be refused because the first ran."""
        try:
            await self._api.post(f"/orders/{segment(order.order_id)}/authorise", MOVE)
        except (GatewayRejected, GatewayOutcomeUnknown):
            after = await certain(lambda: self._order(call))
            if after.status == APPROVED:
                raise
            return after
        return await certain(lambda: self._order(call))

    async def _take(self, order: Order, call: MoneyCall, amount: Money) -> Json:
        payload = {
            "order_id": order.order_id,
            "total_amount": to_tamara(amount),
            "shipping_info": shipping_info(call.reference, self._shipping_company, call.first_sent_at),
        }
        return await self._api.post("/payments/capture", MOVE, payload)

    async def _cancel(self, order: Order, amount: Money) -> Json:
        payload = {"total_amount": to_tamara(amount)}
        return await self._api.post(f"/orders/{segment(order.order_id)}/cancel", MOVE, payload)


# --- what an order shows of a call ---------------------------------------------------------------------------------


def _completion_in(order: Order, call: MoneyCall) -> Outcome | None:
    """None while it is not authorised, or authorised and still to be captured."""
    if order.status in ENDED:
        return _outcome(order, order.order_id, OutcomeStatus.FAILED, order.status)
    if order.status not in WITH_MONEY:
        return None
    if call.capture is CaptureMode.AUTOMATIC and order.captured.amount_minor == 0 and order.is_held:
        return None
    return _outcome(order, order.captures[-1].capture_id if order.captures else order.order_id)


def _capture_in(order: Order, call: MoneyCall) -> Outcome | None:
    """By the tracking number, which is our reference. Of a capture that shows none, amount and time have to do."""
    since = call.first_sent_at - CLOCKS_DIFFER

    def could_be_ours(capture: Capture) -> bool:
        is_since = capture.created_at is not None and capture.created_at >= since
        return capture.tracking_number is None and capture.amount == call.amount and is_since

    ours = [each for each in order.captures if each.tracking_number == call.reference]
    found = next(iter((*ours, *filter(could_be_ours, order.captures))), None)
    if found is None:
        return None
    if found.amount != call.amount:
        raise GatewayOutcomeUnknown("Tamara captured another amount under our reference")
    return _outcome(order, found.capture_id)


def _void_in(order: Order) -> Outcome | None:
    """That nothing is held any more is all that a void is about."""
    is_let_go = order.status in WITH_MONEY and not order.is_held and order.canceled.amount_minor > 0
    if order.status not in ENDED and not is_let_go:
        return None
    return _outcome(order, order.last_cancel_id or order.order_id)


def _refund_in(order: Order, call: MoneyCall) -> Outcome | None:
    found: Refund | None = next((each for each in order.refunds if each.merchant_refund_id == call.reference), None)
    if found is None:
        return None
    if found.amount != call.amount:
        raise GatewayOutcomeUnknown("Tamara refunded another amount under our reference")
    status = _REFUND_STATUS[found.kind]
    return _outcome(order, found.refund_id, status, found.status if status is OutcomeStatus.FAILED else None)


def _outcome(
    order: Order,
    gateway_reference: str,
    status: OutcomeStatus = OutcomeStatus.SUCCEEDED,
    failure_code: str | None = None,
) -> Outcome:
    snapshot = snapshot_of(order)
    return Outcome(status, gateway_reference, failure_code, snapshot.references, snapshot.observations)


_IN: dict[OperationKind, Callable[[Order, MoneyCall], Outcome | None]] = {
    OperationKind.COMPLETION: _completion_in,
    OperationKind.CAPTURE: _capture_in,
    OperationKind.VOID: lambda order, _call: _void_in(order),
    OperationKind.REFUND: _refund_in,
}
