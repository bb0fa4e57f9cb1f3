"""Authorise, capture, cancel and refund at a gateway without idempotency keys: look, call, and look what came of it.

The first look finds what an earlier call of the same operation has done; the second reads the amounts, which the
answers to the calls tell in part only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.json_reading import optional_identifier
from services.payment_service.gateways.looking import certain, found_or_refused
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from services.payment_service.gateways.tamara.amounts import to_tamara
from services.payment_service.gateways.tamara.api import LONGEST_CODE, MOVE, Json, TamaraApi, segment
from services.payment_service.gateways.tamara.new_session import clean, shipping_info
from services.payment_service.gateways.tamara.orders import Orders, understood
from services.payment_service.gateways.tamara.reading import (
    APPROVED,
    ENDED,
    WITH_MONEY,
    Capture,
    Order,
    Refund,
    hold_of,
    snapshot_of,
)
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.money import Money

_REFUND_STATUS = {
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}

Look = Callable[[Order, MoneyCall], Outcome | None]
"""What an order shows of a call: None where nothing. Raises GatewayOutcomeUnknown where it cannot say."""

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
        return await self._shown(call, _completion_in)

    async def capture(self, call: MoneyCall) -> Outcome:
        """Where the rest is to be let go, it is canceled before: Tamara cancels only while nothing is captured."""
        order, done = await self._first_look(call, _own_capture_in)
        if done is not None:
            return done
        amount, is_let_go = _to_be_captured(order, call), _is_let_go_for(order, call)
        if call.is_final and order.captured.amount_minor == 0 and order.is_held and amount < order.rest:
            await self._cancel(order, order.rest - amount)
            is_let_go = True
        try:
            made = await self._take(order, call, amount)
        except GatewayRejected as refusal:
            return await self._refused(call, refusal, is_let_go=is_let_go)
        except GatewayUnavailable as error:
            if not is_let_go:
                raise
            raise GatewayOutcomeUnknown("the rest is let go, and the capture was not sent yet") from error
        capture_id = understood(lambda: optional_identifier(made, "capture_id"))
        return await self._shown(call, lambda order, call: _own_capture_in(order, call, capture_id))

    async def void(self, call: MoneyCall) -> Outcome:
        """All that is still held, however much we think that is."""
        order, done = await self._first_look(call, _void_in)
        if done is not None:
            return done
        return await self._made(call, lambda: self._cancel(order, order.rest), _void_in)

    async def refund(self, call: MoneyCall) -> Outcome:
        order, done = await self._first_look(call, _refund_in)
        if done is not None:
            return done
        payload = {
            "total_amount": to_tamara(call.amount),
            "comment": clean(call.reason or "", LONGEST_COMMENT) or "refund",
            "merchant_refund_id": call.reference,
        }
        path = f"/payments/simplified-refund/{segment(order.order_id)}"
        return await self._made(call, lambda: self._api.post(path, MOVE, payload), _refund_in)

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where the order is not shown, or not as a whole, or where Tamara still works on
        it: that proves nothing."""
        return await self._find(call, _IN[call.kind])

    # --- looking ---------------------------------------------------------------------------------------------------

    async def _order(self, call: MoneyCall) -> Order:
        order = await self._orders.find((call.target, *call.references), call.our_reference)
        if order is None:
            raise GatewayObjectNotFound("Tamara does not know this order")
        return order

    async def _find(self, call: MoneyCall, look: Look) -> Outcome | None:
        try:
            order = await self._order(call)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("Tamara refuses to say what became of it") from error
        found = look(order, call)
        if found is None and order.is_at_work:
            raise GatewayOutcomeUnknown("Tamara is still at work on this order")
        return found

    async def _first_look(self, call: MoneyCall, look: Look) -> tuple[Order, Outcome | None]:
        """Before anything is sent: where it fails, or proves nothing, this call has moved nothing."""
        try:
            order = await self._order(call)
            done = look(order, call)
        except GatewayOutcomeUnknown as error:
            raise GatewayUnavailable("Tamara does not show what is there, so nothing was sent") from error
        if done is None and order.is_at_work:
            raise GatewayUnavailable("Tamara is still at work on this order, so nothing was sent")
        return order, done

    async def _order_to_complete(self, call: MoneyCall) -> Order:
        """What was approved and is not shown so is asked for again: a refusal would be the end of it, and the shopper
        has paid Tamara the first instalment."""
        try:
            order = await self._order(call)
        except (GatewayRejected, GatewayOutcomeUnknown) as error:
            raise GatewayUnavailable("Tamara does not show the approved order") from error
        if order.total != call.amount:
            raise GatewayRejected("this order is about another amount", gateway_code="order_of_another_amount")
        return order

    async def _made(self, call: MoneyCall, send: Callable[[], Awaitable[Json]], look: Look) -> Outcome:
        try:
            await send()
        except GatewayRejected as refusal:
            return await found_or_refused(refusal, lambda: self._find(call, look))
        return await self._shown(call, look)

    async def _shown(self, call: MoneyCall, look: Look) -> Outcome:
        outcome = await certain(lambda: self._find(call, look))
        if outcome is None:
            raise GatewayOutcomeUnknown("Tamara took it and does not show it yet")
        return outcome

    async def _refused(self, call: MoneyCall, refusal: GatewayRejected, *, is_let_go: bool) -> Outcome:
        """A capture that was refused. Where the rest was let go for it something has moved, so it is no refusal but a
        failure, told with what the order shows now."""
        try:
            return await found_or_refused(refusal, lambda: self._find(call, _own_capture_in))
        except GatewayRejected:
            if not is_let_go:
                raise
        order = await certain(lambda: self._order(call))
        code = f"rest_released_{refusal.gateway_code or refusal.code}"[:LONGEST_CODE]
        return _outcome(order, call, order.last_cancel_id or order.order_id, OutcomeStatus.FAILED, code)

    async def _held_only(self, call: MoneyCall) -> Outcome:
        """Authorised, and its capture was refused: the money is held, and the rule for holds that should have been
        captured tries again, where everybody can see it."""
        order = await certain(lambda: self._order(call))
        done = _completion_in(order, call)
        if done is None and not order.is_held:
            raise GatewayOutcomeUnknown("the capture was refused, and Tamara does not show the order as held")
        return done if done is not None else _outcome(order, call, order.order_id)

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
        return _outcome(order, call, order.order_id, OutcomeStatus.FAILED, order.status)
    if order.status not in WITH_MONEY:
        return None
    if call.capture is CaptureMode.AUTOMATIC and order.captured.amount_minor == 0 and order.is_held:
        _require(order.shows_all_captures)
        return None
    return _outcome(order, call, order.captures[-1].capture_id if order.captures else order.order_id)


def _own_capture_in(order: Order, call: MoneyCall, answered: str | None = None) -> Outcome | None:
    """By the tracking number, which is our reference, or by the id that the answer to our call has named."""
    ours = [each for each in order.captures if each.tracking_number == call.reference or each.capture_id == answered]
    if not ours:
        _require(order.shows_all_captures)
        return None
    if len(ours) > 1 or ours[0].amount != _to_be_captured(order, call, captured=order.captured - ours[0].amount):
        raise GatewayOutcomeUnknown("Tamara captured something else under our reference")
    return _outcome(order, call, ours[0].capture_id)


def _capture_in(order: Order, call: MoneyCall) -> Outcome | None:
    """After a call without an answer. Of a capture that shows no tracking number, amount and time have to do; where
    they do not tell it from another one's, nobody can say whose it is."""
    found = _own_capture_in(order, call)
    if found is not None:
        return found
    since = call.first_sent_at - CLOCKS_DIFFER

    def could_be_ours(capture: Capture) -> bool:
        is_since = capture.created_at is None or capture.created_at >= since
        wanted = _to_be_captured(order, call, captured=order.captured - capture.amount)
        return capture.tracking_number is None and capture.amount == wanted and is_since

    candidates = list(filter(could_be_ours, order.captures))
    if not candidates:
        return None
    if len(candidates) > 1 or candidates[0].created_at is None or candidates[0].capture_id in call.references:
        raise GatewayOutcomeUnknown("a capture that may be this one or another shows no reference")
    return _outcome(order, call, candidates[0].capture_id)


def _to_be_captured(order: Order, call: MoneyCall, captured: Money | None = None) -> Money:
    """Whoever asks for all that is left gets what is left: a part may have been canceled, which no fact tells, because
    a hold is told with all that was ever held. ``captured``: what was taken before."""
    before = order.captured if captured is None else captured
    left = order.total - order.canceled - before
    is_all = call.is_final and call.amount == order.total - before
    return left if is_all and left.amount_minor > 0 else call.amount


def _is_let_go_for(order: Order, call: MoneyCall) -> bool:
    """Whether an order looks as a final capture of a part leaves it between its two calls."""
    is_canceled_in_part = order.captured.amount_minor == 0 and order.canceled.amount_minor > 0
    return call.is_final and is_canceled_in_part and order.rest == call.amount


def _void_in(order: Order, call: MoneyCall) -> Outcome | None:
    """That nothing is held any more is all that a void is about."""
    is_let_go = order.status in WITH_MONEY and not order.is_held and order.canceled.amount_minor > 0
    if order.status not in ENDED and not is_let_go:
        return None
    return _outcome(order, call, order.last_cancel_id or order.order_id)


def _refund_in(order: Order, call: MoneyCall) -> Outcome | None:
    found: Refund | None = next((each for each in order.refunds if each.merchant_refund_id == call.reference), None)
    if found is None:
        _require(order.shows_all_refunds)
        return None
    if found.amount != call.amount:
        raise GatewayOutcomeUnknown("Tamara refunded another amount under our reference")
    status = _REFUND_STATUS[found.kind]
    return _outcome(order, call, found.refund_id, status, found.status if status is OutcomeStatus.FAILED else None)


def _require(shows_all: bool) -> None:
    """Nothing is absent from a list that is missing, or that does not come to the order's own sum."""
    if not shows_all:
        raise GatewayOutcomeUnknown("Tamara does not show all of what was moved on this order")


def _outcome(
    order: Order,
    call: MoneyCall,
    gateway_reference: str,
    status: OutcomeStatus = OutcomeStatus.SUCCEEDED,
    failure_code: str | None = None,
) -> Outcome:
    """A capture's own id becomes one of the payment's references: it is how another capture knows that this one is
    taken. Only what was held is captured or canceled."""
    is_of_hold = call.kind in (OperationKind.CAPTURE, OperationKind.VOID)
    known = (*call.references, hold_of(order.order_id)) if is_of_hold else call.references
    snapshot = snapshot_of(order, known)
    own = [gateway_reference] if gateway_reference in {each.capture_id for each in order.captures} else []
    return Outcome(status, gateway_reference, failure_code, (*snapshot.references, *own), snapshot.observations)


_IN: dict[OperationKind, Look] = {
    OperationKind.COMPLETION: _completion_in,
    OperationKind.CAPTURE: _capture_in,
    OperationKind.VOID: _void_in,
    OperationKind.REFUND: _refund_in,
}
