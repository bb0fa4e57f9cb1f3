"""Captures, closes and refunds at Tabby, and how to find out what became of one: in the payment itself.

A payment lists its captures and refunds with the ``reference_id`` that each was asked for with, which is ours. The same
one on the same payment makes no second of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.payment_service.domain.models import CaptureMode
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.json_reading import (
    Understood,
    UnexpectedShape,
    identifier_of,
    optional_identifier,
)
from services.payment_service.gateways.looking import certain, found_or_refused
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from services.payment_service.gateways.tabby.api import GUARDED_WRITE, Json, TabbyApi, payment_path
from services.payment_service.gateways.tabby.reading import (
    captures_of,
    money_of,
    observations_of_payment,
    refunds_of,
    status_of,
    totals_of,
)
from services.payment_service.gateways.tabby.sessions import LONGEST_TEXT, written
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
)

understood = Understood("Tabby")


class MoneyCalls:
    def __init__(self, api: TabbyApi) -> None:
        self._api = api

    async def capture(self, call: MoneyCall) -> Outcome:
        """A part leaves the rest held, unless it is the final one: then the rest is closed with it."""
        try:
            payment = await self._take(call)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal)
        return _required(await self._captured(payment, call))

    async def complete(self, call: MoneyCall) -> Outcome:
        """Capture the whole of what the shopper was lent. Looked at first: what is taken already is not taken again,
        and what is not ours or of another amount is never taken."""
        payment = await self._payment(call)
        found = understood(lambda: _outcome_of_completion(payment, call))
        if found is not None:
            return found
        if understood(lambda: totals_of(payment).amount) != call.amount or call.capture is not CaptureMode.AUTOMATIC:
            raise GatewayRejected("this payment is not to be captured by us", gateway_code="not_completable")
        try:
            payment = await self._take(call)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal)
        return _required(understood(lambda: _outcome_of_completion(payment, call)))

    async def void(self, call: MoneyCall) -> Outcome:
        """Closing releases whatever is not captured."""
        try:
            payment = await self._close(call)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal)
        return _required(understood(lambda: _outcome_of_void(payment, call)))

    async def refund(self, call: MoneyCall) -> Outcome:
        """Only of a closed payment: while a part is held Tabby refuses (400), and the rest has to be voided first."""
        fields = {"amount": written(call.amount), "reference_id": call.reference}
        if call.reason:
            fields["reason"] = call.reason[:LONGEST_TEXT]
        try:
            payment = await self._api.post(payment_path(call.target, "refunds"), fields, GUARDED_WRITE)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal)
        return _required(understood(lambda: _outcome_of_refund(payment, call)))

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where Tabby does not even know the payment: with another account's key that
        proves nothing."""
        try:
            payment = await self._payment(call)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("Tabby refuses to say what became of it") from error
        match call.kind:
            case OperationKind.CAPTURE:
                return await self._captured(payment, call)
            case OperationKind.COMPLETION:
                return understood(lambda: _outcome_of_completion(payment, call))
            case OperationKind.VOID:
                return understood(lambda: _outcome_of_void(payment, call))
            case _:
                return understood(lambda: _outcome_of_refund(payment, call))

    async def _take(self, call: MoneyCall) -> Json:
        fields = {"amount": written(call.amount), "reference_id": call.reference}
        return await self._api.post(payment_path(call.target, "captures"), fields, GUARDED_WRITE)

    async def _close(self, call: MoneyCall) -> Json:
        return await self._api.post(payment_path(call.target, "close"), None, GUARDED_WRITE)

    async def _payment(self, call: MoneyCall) -> Json:
        return await self._api.get(payment_path(call.target))

    async def _captured(self, payment: Json, call: MoneyCall) -> Outcome | None:
        """The capture, and with a final one the release that belongs to it.

        A final capture is two calls to Tabby. Whoever finds the first done and the second not does the second: closing
        twice changes nothing, and a rest that stays held Tabby would take in the end.
        """
        outcome = understood(lambda: _outcome_of_capture(payment, call))
        if outcome is None or not call.is_final or understood(lambda: status_of(payment)) != "AUTHORIZED":
            return outcome
        try:
            closed = await self._close(call)
        except GatewayRejected:  # it may be closed by now
            closed = await certain(lambda: self._payment(call))
        except GatewayUnavailable as error:  # of the second call: the first has run
            raise GatewayOutcomeUnknown("captured, but the rest could not be released yet") from error
        if understood(lambda: status_of(closed)) == "AUTHORIZED":
            raise GatewayOutcomeUnknown("captured, but the rest is still held")
        return understood(lambda: _outcome_of_capture(closed, call))

    async def _done_already(self, call: MoneyCall, refusal: GatewayRejected) -> Outcome:
        """What is there after a refusal, which may be about an earlier try."""
        if isinstance(refusal, GatewayObjectNotFound) and not refusal.after_silence:
            raise refusal
        return await found_or_refused(refusal, lambda: self.find(call))


def _outcome_of_capture(payment: Json, call: MoneyCall) -> Outcome | None:
    _require_target(payment, call)
    capture = _ours(captures_of(payment), call)
    return None if capture is None else _succeeded(payment, identifier_of(capture, "id"))


def _outcome_of_completion(payment: Json, call: MoneyCall) -> Outcome | None:
    """Whoever captured it, we or Tabby for us, it is done; one that was released instead cannot be done any more."""
    _require_target(payment, call)
    captures, status = captures_of(payment), status_of(payment)
    if captures and (status == "CLOSED" or _ours(captures, call) is not None):
        return _succeeded(payment, identifier_of(_ours(captures, call) or captures[0], "id"))
    if status == "AUTHORIZED":
        return None
    if status in ("CLOSED", "REJECTED", "EXPIRED"):
        observations = tuple(observations_of_payment(payment))
        return Outcome(OutcomeStatus.FAILED, call.target, status.lower(), observations=observations)
    raise UnexpectedShape("a payment that nobody has authorised is not completed")


def _outcome_of_void(payment: Json, call: MoneyCall) -> Outcome | None:
    """That the hold is gone, and not by being taken, is all that a void is about."""
    _require_target(payment, call)
    totals = totals_of(payment)
    is_released = status_of(payment) == "CLOSED" and totals.captured < totals.amount
    return _succeeded(payment, call.target) if is_released else None


def _outcome_of_refund(payment: Json, call: MoneyCall) -> Outcome | None:
    _require_target(payment, call)
    refund = _ours(refunds_of(payment), call)
    return None if refund is None else _succeeded(payment, identifier_of(refund, "id"))


def _ours(entries: Sequence[Json], call: MoneyCall) -> Json | None:
    """The capture or refund that carries our reference. Of another amount, it is not what we asked for."""
    found = next((each for each in entries if optional_identifier(each, "reference_id") == call.reference), None)
    if found is not None and money_of(found, "amount", call.amount.currency) != call.amount:
        raise UnexpectedShape("it is another operation")
    return found


def _require_target(payment: Json, call: MoneyCall) -> None:
    if identifier_of(payment, "id") != call.target or totals_of(payment).amount.currency != call.amount.currency:
        raise UnexpectedShape("it is about another payment")


def _succeeded(payment: Json, reference: str) -> Outcome:
    return Outcome(OutcomeStatus.SUCCEEDED, reference, observations=tuple(observations_of_payment(payment)))


def _required(outcome: Outcome | None) -> Outcome:
    if outcome is None:
        raise GatewayOutcomeUnknown("Tabby took the call and does not show what came of it")
    return outcome
