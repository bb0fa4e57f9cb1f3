"""Captures, voids and refunds. Each carries our reference as its token, which PayU takes once and lists afterwards.

One command gives captured money back and lets held money go, as the payment's state has it; so before a void it is made
sure that the money is held.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.json_reading import Understood, UnexpectedShape
from services.payment_service.gateways.looking import certain
from services.payment_service.gateways.payu.api import GUARDED_WRITE, Answer, PayuApi
from services.payment_service.gateways.payu.reading import (
    Action,
    Actions,
    Payment,
    actions_in,
    original_amount,
    payment_in,
    refund_observation,
    scalar_text,
)
from services.payment_service.gateways.payu.session import rupees
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from shared.errors import GatewayError, GatewayOutcomeUnknown, GatewayRateLimited, GatewayRejected

understood = Understood("PayU")

REFUSALS = frozenset("103 105 109 110 111 113 116 117 119 124 128 130 230 255 256 303".split())
"""Nothing is done, and asking again would not change that."""

LATER = frozenset({"120", "214", "302"})
"""Nothing is done yet: the payment is locked, or an equal refund was made less than five minutes ago (214)."""

ALREADY_CAPTURED = "301"
_MAY_BE_CAPTURED = frozenset({ALREADY_CAPTURED, "109", "111"})

_ACTION_OF = {OperationKind.CAPTURE: "capture", OperationKind.VOID: "cancel", OperationKind.REFUND: "refund"}
_STATUS: Mapping[str, OutcomeStatus] = {"success": OutcomeStatus.SUCCEEDED, "failure": OutcomeStatus.FAILED}


class MoneyCalls:
    def __init__(self, api: PayuApi) -> None:
        self._api = api

    async def capture(self, call: MoneyCall) -> Outcome:
        if not call.is_whole:
            raise GatewayRejected("PayU is not known to capture a part of a hold", gateway_code="partial_capture")
        return await self._send("capture_transaction", call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._send("cancel_refund_transaction", call)

    async def void(self, call: MoneyCall) -> Outcome:
        """Refused without a word to PayU where the money is not held: there the same command would be a refund."""
        payment = await self.payment(call.our_reference)
        if payment is None or payment.payu_id != call.target or not payment.is_held:
            found = await certain(lambda: self.find(call))
            if found is not None:
                return found
            raise GatewayRejected("the money is not held (any more)", gateway_code="not_held")
        return await self._send("cancel_refund_transaction", call)

    async def find(self, call: MoneyCall) -> Outcome | None:
        """By our token among all actions of the payment.

        Raises GatewayOutcomeUnknown where PayU does not even know the payment: with the key of another account, finding
        nothing proves nothing.
        """
        actions = await self.actions(call.target)
        found = actions.with_token(call.reference)
        if found is not None:
            return understood(lambda: _outcome(found, call), "action")
        if actions.unread:
            raise GatewayOutcomeUnknown("PayU lists an action that is not understood")
        if not actions.listed and await self.payment(call.our_reference) is None:
            raise GatewayOutcomeUnknown("PayU does not know the payment")
        return None

    async def payment(self, txnid: str) -> Payment | None:
        answer = await self._api.call("verify_payment", txnid)
        return understood(lambda: payment_in(answer.body, txnid), "payment")

    async def actions(self, payu_id: str) -> Actions:
        answer = await self._api.call("check_action_status", payu_id, "payuid")
        return understood(lambda: actions_in(answer.body, payu_id), "list of actions")

    async def _send(self, command: str, call: MoneyCall) -> Outcome:
        answer = await self._api.call(command, call.target, call.reference, rupees(call.amount), policy=GUARDED_WRITE)
        request_id = scalar_text(answer.body.get("request_id"))
        if answer.is_ok and request_id is not None and _is_about(answer, call):
            return await self._taken_on(request_id, call)
        found = await certain(lambda: self.find(call))
        if found is None and call.kind is OperationKind.CAPTURE and answer.code in _MAY_BE_CAPTURED:
            found = await certain(lambda: self._find_capture(call))
        if found is not None:
            return found
        raise _refusal(answer)

    async def _taken_on(self, request_id: str, call: MoneyCall) -> Outcome:
        """Taken on is not done: its state is asked for at once, and again later if that says nothing yet."""
        try:
            found = await self.find(call)
        except GatewayError:
            found = None
        return found or Outcome(OutcomeStatus.PENDING, request_id, observations=_pending(request_id, call))

    async def _find_capture(self, call: MoneyCall) -> Outcome | None:
        """Whoever captured it: a payment is captured once, and captured is all that this call wanted."""
        payment = await self.payment(call.our_reference)
        if payment is None or payment.payu_id != call.target or payment.state != ("success", "captured"):
            return None
        amount = understood(lambda: original_amount(payment.body), "payment")
        captured = Observation(FactKind.CAPTURED, call.target, amount)
        return Outcome(OutcomeStatus.SUCCEEDED, call.target, observations=(captured,))


def _is_about(answer: Answer, call: MoneyCall) -> bool:
    """Captures are answered without PayU's id."""
    return scalar_text(answer.body.get("mihpayid")) in (None, call.target)


def _pending(request_id: str, call: MoneyCall) -> tuple[Observation, ...]:
    if call.kind is not OperationKind.REFUND:
        return ()
    pending = FactKind.REFUND_PENDING
    return (Observation(pending, request_id, call.amount, about=call.target, operation=call.reference),)


def _outcome(action: Action, call: MoneyCall) -> Outcome:
    if action.amount != call.amount:
        raise UnexpectedShape("it is of another amount")
    status = _STATUS.get(action.status, OutcomeStatus.PENDING)
    if action.kind != _ACTION_OF.get(call.kind):
        return _something_else(action, call)
    is_bad = status is OutcomeStatus.FAILED
    return Outcome(
        status,
        action.request_id,
        f"{action.kind}_failed" if is_bad else None,
        observations=_facts(action, call, status),
    )


def _facts(action: Action, call: MoneyCall, status: OutcomeStatus) -> tuple[Observation, ...]:
    if call.kind is OperationKind.REFUND:
        return (refund_observation(action, call.target),)
    if status is not OutcomeStatus.SUCCEEDED:
        return ()
    if call.kind is OperationKind.CAPTURE:
        return (Observation(FactKind.CAPTURED, call.target, call.amount),)
    return (Observation(FactKind.CANCELED, call.target, reason="hold_released"),)


def _something_else(action: Action, call: MoneyCall) -> Outcome:
    """A void that met captured money has given it back: no void, and a refund that has to be counted."""
    if call.kind is not OperationKind.VOID or action.kind != "refund":
        raise UnexpectedShape("our token is on another kind of action")
    refund = refund_observation(action, call.target)
    anonymous = Observation(
        refund.kind, refund.object_reference, refund.amount, reason=refund.reason, about=call.target
    )
    return Outcome(OutcomeStatus.FAILED, action.request_id, "refunded_instead", observations=(anonymous,))


def _refusal(answer: Answer) -> GatewayError:
    """What a "no" means once a look has found nothing under our token.

    A token that PayU has seen (106, 227) and does not list may still be at work, and so may anything that it says it
    has taken on without an id, whatever code comes with that.
    """
    code = answer.code
    if answer.after_silence or not answer.is_refusal or (code not in REFUSALS and code not in LATER):
        return GatewayOutcomeUnknown(
            f"PayU did not take it on ({code or 'no code'}), and what became of it is not known"
        )
    if code in LATER:  # about this payment alone, so it names no time: that would hold back all the others
        return GatewayRateLimited(f"PayU asks to come again later ({code})")
    return GatewayRejected(f"PayU refused the request ({code})", gateway_code=code)
