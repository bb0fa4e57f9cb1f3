"""Confirming, cancelling and refunding orders, and finding out what became of that.

Nothing here carries a key. But an order is confirmed or cancelled once, and a refund's reference is used once:
repeating a call is refused, with a code that makes us look.
"""

from __future__ import annotations

from collections import Counter

from services.payment_service.domain.models import CaptureMode, FactKind, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.ccavenue.api import AlreadyDone, CCAvenueApi, Json, code_of, error_of, rows_of
from services.payment_service.gateways.ccavenue.reading import (
    Order,
    Standing,
    id_of,
    is_of,
    observations_of,
    refund_observation,
    to_ccavenue,
)
from services.payment_service.gateways.ccavenue.retrieving import Retriever
from services.payment_service.gateways.json_reading import Understood, UnexpectedShape
from services.payment_service.gateways.looking import certain
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
)

_understood = Understood("CCAvenue")


_REFUND_STATUS = {
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}
_NOT_OVER = frozenset({Standing.OPEN, Standing.UNDECIDED})


class MoneyCalls:
    def __init__(self, api: CCAvenueApi, retriever: Retriever) -> None:
        self._api = api
        self._retriever = retriever

    async def capture(self, call: MoneyCall) -> Outcome:
        """Once, the whole or a part; the rest of a part goes back by itself. The answer only counts what went well, so
        that how much was taken is asked for."""
        try:
            await self._order_one("confirmOrder", call)
        except GatewayRejected as refusal:
            return await self._after_refusal(call, refusal)
        found = await certain(lambda: self.find(call))
        if found is None:
            raise GatewayOutcomeUnknown("CCAvenue counts it as confirmed and still shows it as held")
        return found

    async def void(self, call: MoneyCall) -> Outcome:
        try:
            await self._order_one("cancelOrder", call)
        except GatewayRejected as refusal:
            return await self._after_refusal(call, refusal)
        voided = Observation(FactKind.CANCELED, call.target, reason="voided")
        return Outcome(OutcomeStatus.SUCCEEDED, call.target, observations=(voided,))

    async def complete(self, call: MoneyCall) -> Outcome:
        """Confirm what the shopper has agreed to, if it is what we agreed on: its amount went through their browser."""
        order = await self._order(call)
        if order.standing in _NOT_OVER:
            raise GatewayUnavailable("CCAvenue does not say that the order can be confirmed; nothing was sent")
        held = Observation(FactKind.AUTHORIZED, order.reference, _understood(lambda: order.amount, "order"))
        if order.standing is Standing.HELD and held.amount != call.amount:
            return Outcome(OutcomeStatus.FAILED, order.reference, "amount_differs", observations=(held,))
        if order.standing is Standing.HELD and call.capture is CaptureMode.MANUAL:
            return Outcome(OutcomeStatus.SUCCEEDED, order.reference, observations=(held,))
        if order.standing is Standing.HELD:
            return await self.capture(call)
        outcome = _understood(lambda: _capture_outcome(order, call), "order")
        if outcome is None:
            raise GatewayOutcomeUnknown("CCAvenue's order is confirmed and shows nothing captured")
        return outcome

    async def refund(self, call: MoneyCall) -> Outcome:
        """Accepted is not completed: what becomes of it is asked for later."""
        payload = {
            "reference_no": call.target,
            "refund_amount": to_ccavenue(call.amount),
            "refund_ref_no": call.reference,
        }
        try:
            body = await self._api.order("refundOrder", payload)
        except GatewayRejected as refusal:
            return await self._after_refusal(call, refusal)
        if str(body.get("refund_status")) != "0":
            raise GatewayOutcomeUnknown("CCAvenue does not say whether it took the refund on")
        taken_on = Observation(
            FactKind.REFUND_PENDING, call.reference, call.amount, about=call.target, operation=call.reference
        )
        return Outcome(OutcomeStatus.PENDING, call.reference, observations=(taken_on,))

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where CCAvenue does not even know the order: with another account's keys that
        proves nothing."""
        try:
            if call.kind is OperationKind.REFUND:
                return await self._find_refund(call)
            order = await self._order(call)
            if call.kind is OperationKind.VOID:
                return _void_outcome(order)
            return _understood(lambda: _capture_outcome(order, call), "order")
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("CCAvenue refuses to say what became of it") from error

    async def _find_refund(self, call: MoneyCall) -> Outcome | None:
        async def look() -> Json | None:
            return next(
                (row for row in await self._retriever.refund_rows(call.target) if is_of(row, call.reference)), None
            )

        try:
            row = await look()
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("CCAvenue's refunds are not understood") from error
        if row is None:
            await self._order(call)  # an order that it does not know has no refunds either, and that is no proof
            return None
        return _understood(lambda: _refund_outcome(row, call), "order")

    async def _order(self, call: MoneyCall) -> Order:
        """The order that a call is about. Raises GatewayObjectNotFound."""
        try:
            order = await self._retriever.order_by(call.target, call.our_reference)
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("CCAvenue's order is not understood") from error
        if order is None:
            raise GatewayObjectNotFound("CCAvenue does not know this order under our number")
        return order

    async def _order_one(self, command: str, call: MoneyCall) -> None:
        wanted = {"reference_no": call.target, "amount": to_ccavenue(call.amount)}
        body = await self._api.order(command, {"order_List": [wanted]})
        try:
            failed = [row for row in rows_of(body, "failed_List") if id_of(row, "reference_no") == call.target]
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("CCAvenue's answer is not understood") from error
        if failed:
            raise error_of(code_of(failed[0]), after_silence=False)
        if str(body.get("success_count")) != "1":
            raise GatewayOutcomeUnknown("CCAvenue does not say whether it did so")

    async def _after_refusal(self, call: MoneyCall, refusal: GatewayRejected) -> Outcome:
        """What is there after a refusal, which may be about an earlier call. "Done already", with nothing there to be
        seen, is no refusal that proves anything."""
        if isinstance(refusal, GatewayObjectNotFound) and not refusal.after_silence:
            raise refusal
        found = await certain(lambda: self.find(call))
        if found is not None:
            return found
        if isinstance(refusal, AlreadyDone) or refusal.after_silence:
            raise GatewayOutcomeUnknown("CCAvenue says that this was done before, and does not show it") from refusal
        raise refusal


def _capture_outcome(order: Order, call: MoneyCall) -> Outcome | None:
    """None while it is only held. An order is confirmed once, so another amount than ours proves that ours never
    was."""
    if order.standing in (Standing.HELD, *_NOT_OVER):
        return None
    observations = _facts_of(order)
    if order.standing is not Standing.TAKEN:
        return Outcome(OutcomeStatus.FAILED, order.reference, "authorization_expired", observations=observations)
    captured = order.captured
    if captured is None:
        return None
    if captured.currency != call.amount.currency:
        raise UnexpectedShape("it is another currency")
    if captured != call.amount:
        return Outcome(OutcomeStatus.FAILED, order.reference, "captured_otherwise", observations=observations)
    return Outcome(OutcomeStatus.SUCCEEDED, order.reference, observations=observations)


def _void_outcome(order: Order) -> Outcome | None:
    if order.standing is Standing.RELEASED:
        return Outcome(OutcomeStatus.SUCCEEDED, order.reference, observations=_facts_of(order))
    if order.standing is Standing.TAKEN:
        observations = _understood(lambda: _facts_of(order), "order")
        return Outcome(OutcomeStatus.FAILED, order.reference, "captured_before", observations=observations)
    return None


def _facts_of(order: Order) -> tuple[Observation, ...]:
    return tuple(observations_of(order, order.order_no, others_alive=False, by_hand=False))


def _refund_outcome(row: Json, call: MoneyCall) -> Outcome:
    observation = refund_observation(row, call.target, call.amount.currency, Counter())
    if observation.amount != call.amount:
        raise UnexpectedShape("it is another refund")
    status = _REFUND_STATUS[observation.kind]
    return Outcome(status, call.reference, observation.reason, observations=(observation,))
