"""Refunds: asked for and asked about by ``refId``, which is ours and unique for ever."""

from __future__ import annotations

from collections.abc import Mapping

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import Understood, UnexpectedShape
from services.payment_service.gateways.looking import found_or_refused
from services.payment_service.gateways.paytm.api import GUARDED_WRITE, READ, PaytmApi, Said
from services.payment_service.gateways.paytm.reading import money_of, refund_fact, refund_observation, to_rupees
from services.payment_service.gateways.paytm.sessions import LONGEST_TEXT, plain
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from shared.errors import GatewayOutcomeUnknown, GatewayRejected

understood = Understood("Paytm")


_STATUS: Mapping[FactKind, OutcomeStatus] = {
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}


class Refunds:
    def __init__(self, api: PaytmApi, apply_path: str) -> None:
        self._api = api
        self._apply_path = apply_path

    async def apply(self, call: MoneyCall) -> Outcome:
        """The usual answer is that it is under way. A refusal may be about an earlier call of the same refund, which
        took its refId: then that one is the answer."""
        comment = plain(call.reason or "", LONGEST_TEXT)
        body = {
            "mid": self._api.merchant_id,
            "txnType": "REFUND",
            "orderId": call.our_reference,
            "txnId": call.target,
            "refId": call.reference,
            "refundAmount": to_rupees(call.amount),
            **({"comments": comment} if comment else {}),
        }
        try:
            said = await self._api.call(self._apply_path, body, GUARDED_WRITE, names_token_type=True)
            if said.is_failure:
                raise said.refusal()
        except GatewayRejected as refusal:
            return await found_or_refused(refusal, lambda: self.find(call))
        return understood(lambda: _accepted(said, call), "refund")

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where Paytm refuses to say: that proves nothing."""
        try:
            said = await self._status(call.our_reference, call.reference)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("Paytm refuses to say what became of it") from error
        if said is None:
            await self._require_known(call)
            return None
        return understood(lambda: _found(said, call), "refund")

    async def observe(self, order_id: str, ref_id: str, about: str) -> Observation | None:
        """A refund that may be of this order, as a fact; None where the order has none of this name."""
        said = await self._status(order_id, ref_id)
        if said is None:
            return None
        if said.body.get("refId") != ref_id:
            raise UnexpectedShape("it is another refund")
        return refund_observation(said, order_id=order_id, about=about)

    async def _require_known(self, call: MoneyCall) -> None:
        """That a refund is not there proves something only where its payment is: somebody else's merchant id knows
        neither. Raises GatewayOutcomeUnknown."""
        body = {"mid": self._api.merchant_id, "orderId": call.our_reference}
        try:
            said = await self._api.call("/v3/order/status", body, READ)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("Paytm refuses to say whether it knows the payment") from error
        named = (said.body.get("orderId"), said.body.get("txnId"))
        if said.is_failure or named != (call.our_reference, call.target):
            raise GatewayOutcomeUnknown("Paytm knows neither the refund nor its payment")

    async def _status(self, order_id: str, ref_id: str) -> Said | None:
        body = {"mid": self._api.merchant_id, "orderId": order_id, "refId": ref_id}
        said = await self._api.call("/v2/refund/status", body, READ)
        return None if said.means_absence else said


def _accepted(said: Said, call: MoneyCall) -> Outcome:
    """What is not one of the documented words says nothing about whether money moves."""
    if said.status not in ("PENDING", "TXN_SUCCESS"):
        raise UnexpectedShape("an answer to a refund that is not known")
    _require_ours(said, call)
    done = (said.status, said.code) == ("TXN_SUCCESS", "10")
    kind = FactKind.REFUND_SUCCEEDED if done else FactKind.REFUND_PENDING
    return _outcome(refund_fact(kind, call.reference, call.amount, about=call.target, reason=None))


def _found(said: Said, call: MoneyCall) -> Outcome:
    _require_ours(said, call)
    return _outcome(refund_observation(said, order_id=call.our_reference, about=call.target, asked_for=call.amount))


def _outcome(fact: Observation) -> Outcome:
    return Outcome(_STATUS[fact.kind], fact.object_reference, fact.reason, (fact.object_reference,), (fact,))


def _require_ours(said: Said, call: MoneyCall) -> None:
    body = said.body
    ours = {"refId": call.reference, "orderId": call.our_reference, "txnId": call.target}
    if any(body.get(key, expected) != expected for key, expected in ours.items()):
        raise UnexpectedShape("it is another refund")
    if "refundAmount" in body and money_of(body, "refundAmount") != call.amount:
        raise UnexpectedShape("it is a refund of another amount")
