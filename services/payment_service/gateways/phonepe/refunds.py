"""Refunds: asked for and asked about by ``merchantRefundId``, which is ours and unique.

No call lists the refunds of an order, so one that somebody makes in the dashboard is known by its webhook alone. That
proves nothing by itself (trust: hint), but it names the refund, and what PhonePe then says of it names the order.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of
from services.payment_service.gateways.looking import found_or_refused
from services.payment_service.gateways.phonepe.api import NAME, Json, PhonepeApi, understood
from services.payment_service.gateways.phonepe.reading import order_of_refund, refund_observation
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected

MOST_REFUNDS = 20
"""More refunds of one order than this are not asked about one by one."""

_MARK = "refund:"
"""Tells refunds apart from orders among a payment's references; it is never sent anywhere."""

_HEARD = "heard-of:"
"""The same for one that only a hint has named."""

_STATUS: Mapping[FactKind, OutcomeStatus] = {
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}


def reference_of(name: str) -> str:
    return _MARK + name


def heard_of(name: str) -> tuple[str, ...]:
    """What to ask about after a webhook; a name that PhonePe cannot have given is none."""
    return (_HEARD + name,) if NAME.fullmatch(name) else ()


def names_in(references: tuple[str, ...]) -> dict[str, bool]:
    """The refunds among a payment's references, and whether PhonePe has named each of them before; those come first."""
    known = {each.removeprefix(_MARK): True for each in references if each.startswith(_MARK)}
    heard = (each.removeprefix(_HEARD) for each in references if each.startswith(_HEARD))
    return known | {name: False for name in heard if name not in known}


class Refunds:
    def __init__(self, api: PhonepeApi) -> None:
        self._api = api

    async def apply(self, call: MoneyCall) -> Outcome:
        """The usual answer is that it is under way. A refusal may be about an earlier call under the same name: then
        that one is the answer."""
        body = {
            "merchantRefundId": call.reference,
            "originalMerchantOrderId": call.target,
            "amount": call.amount.amount_minor,
        }
        try:
            answer = await self._api.post("/payments/v2/refund", body)
        except GatewayRejected as refusal:
            return await found_or_refused(refusal, lambda: self.find(call))
        return understood(lambda: _accepted(answer, call))

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where PhonePe does not even know the order: with another account's credentials,
        finding nothing proves nothing."""
        try:
            answer = await self._api.refund_status(call.reference)
        except GatewayObjectNotFound:
            await self._require_order(call.target)
            return None
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("PhonePe refuses to say what became of it") from error
        return understood(lambda: _found(answer, call))

    async def observe(self, name: str, order: str, *, is_known: bool) -> Observation | None:
        """A refund that may be of this order, as a fact. One that only a hint has named has to say whose it is; of one
        that PhonePe does not show us there is nothing to say."""
        try:
            answer = await self._api.refund_status(name)
        except GatewayRejected:
            return None
        named = understood(lambda: order_of_refund(answer))
        if named != order and not (is_known and named is None):
            return None
        return understood(lambda: refund_observation(answer, name, order))

    async def _require_order(self, order: str) -> None:
        try:
            await self._api.order_status(order)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("PhonePe does not know the order either") from error


def _accepted(answer: Json, call: MoneyCall) -> Outcome:
    identifier_of(answer, "refundId")
    return _found(answer, call)


def _found(answer: Json, call: MoneyCall) -> Outcome:
    if (order_of_refund(answer) or call.target) != call.target:
        raise UnexpectedShape("it is a refund of another order")
    fact = refund_observation(answer, call.reference, call.target)
    if fact.amount != call.amount:
        raise UnexpectedShape("it is a refund of another amount")
    return Outcome(_STATUS[fact.kind], call.reference, fact.reason, (reference_of(call.reference),), (fact,))
