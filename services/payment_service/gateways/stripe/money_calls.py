"""Captures, voids and refunds at Stripe, and how to find out what became of one (fact sheet §4).

A capture leaves its mark in the intent's metadata, a refund carries our reference in its own: so each can be told from
everybody else's, also among several of the same amount. A void has no mark; that the hold is gone is all it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from services.payment_service.domain.models import FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    text_of,
    whole_number,
)
from services.payment_service.gateways.looking import answer_or_look
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from services.payment_service.gateways.stripe.amounts import returned_money
from services.payment_service.gateways.stripe.api import MONEY, READ, StripeApi
from services.payment_service.gateways.stripe.forms import CAPTURE_MARK, capture_form, refund_form, void_form
from services.payment_service.gateways.stripe.reading import (
    REFUND_STATUS,
    decline_of,
    is_manual,
    observations_of_intent,
    received_of,
    references_of_intent,
    refund_failure,
    refund_mark,
    taken_from,
)
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, InvalidAmount

_MAY_BE_DONE = frozenset(
    {
        "amount_too_large",
        "charge_already_captured",
        "charge_already_refunded",
        "invalid_request_error",  # a refund of more than is left has no code of its own
        "payment_intent_unexpected_state",
    }
)
"""Refusals that our own earlier call may have caused."""

_REFUND_OUTCOME: Mapping[FactKind, OutcomeStatus] = {
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}

Reader = Callable[[Mapping[str, Any], MoneyCall], Outcome | None]


class MoneyCalls:
    def __init__(self, api: StripeApi, *, live: bool) -> None:
        self._api = api
        self._live = live

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._send(f"{_intent_path(call)}/capture", capture_form(call), call, _outcome_of_capture)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._send(f"{_intent_path(call)}/cancel", void_form(call), call, _outcome_of_void)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._send("/v1/refunds", refund_form(call), call, _outcome_of_refund)

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where Stripe does not even know what it takes from: that proves nothing."""
        try:
            if call.kind is OperationKind.REFUND:
                return await self._find_refund(call)
            body = await self._api.call("GET", _intent_path(call), READ, query={"expand[]": "latest_charge"})
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("Stripe refuses to say what became of it") from error
        return self._read(body, call, _outcome_of_void if call.kind is OperationKind.VOID else _outcome_of_capture)

    async def _find_refund(self, call: MoneyCall) -> Outcome | None:
        def is_ours(refund: Mapping[str, Any]) -> bool:
            metadata = refund.get("metadata")
            return isinstance(metadata, dict) and refund_mark(refund) == call.reference

        try:
            refunds = await self._api.entries("/v1/refunds", {"payment_intent": call.target}, until=is_ours)
            found = next((refund for refund in refunds if is_ours(refund)), None)
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("Stripe's list is not understood") from error
        return None if found is None else self._read(found, call, _outcome_of_refund)

    async def _send(self, path: str, form: Mapping[str, str], call: MoneyCall, reader: Reader) -> Outcome:
        async def send() -> Outcome:
            body = await self._api.call("POST", path, MONEY, form=form, key=call.idempotency_key)
            outcome = self._read(body, call, reader)
            if outcome is None:
                raise GatewayOutcomeUnknown("Stripe's answer does not say that it was done")
            return outcome

        return await answer_or_look(
            send, lambda: self.find(call), may_be_done=lambda error: error.gateway_code in _MAY_BE_DONE
        )

    def _read(self, body: Mapping[str, Any], call: MoneyCall, reader: Reader) -> Outcome | None:
        try:
            if body.get("livemode", self._live) is not self._live:  # a refund does not say its mode
                raise UnexpectedShape("test and live mode are mixed")
            return reader(body, call)
        except (UnexpectedShape, InvalidAmount, ValueError) as error:
            raise GatewayOutcomeUnknown("Stripe's answer is not understood") from error


def _outcome_of_capture(intent: Mapping[str, Any], call: MoneyCall) -> Outcome | None:
    """By our mark. Marks that promise more than was taken are not believed: then a person has to look."""
    _require_target(intent, call)
    metadata = object_of(intent, "metadata")
    if f"{CAPTURE_MARK}{call.reference}" not in metadata:
        return None
    status = OutcomeStatus.SUCCEEDED
    if intent.get("status") == "processing":
        status = OutcomeStatus.PENDING
    elif intent.get("status") == "requires_payment_method" and received_of(intent) is None:
        status = OutcomeStatus.FAILED
    elif _marked(metadata) > whole_number(intent, "amount_received"):
        raise UnexpectedShape("the intent is marked as captured, and has not taken as much")
    return _outcome_of_intent(intent, call, status)


def _outcome_of_void(intent: Mapping[str, Any], call: MoneyCall) -> Outcome | None:
    _require_target(intent, call)
    is_gone = intent.get("status") == "canceled"
    received = received_of(intent)
    if received is not None and is_manual(intent) and intent.get("status") == "succeeded":
        is_gone = whole_number(intent, "amount_received") < whole_number(intent, "amount")  # the rest was released
    return _outcome_of_intent(intent, call, OutcomeStatus.SUCCEEDED) if is_gone else None


def _outcome_of_intent(intent: Mapping[str, Any], call: MoneyCall, status: OutcomeStatus) -> Outcome:
    observations = tuple(observations_of_intent(intent, session_open=True))
    failure = (decline_of(intent) or "capture_failed") if status is OutcomeStatus.FAILED else None
    return Outcome(status, call.target, failure, references_of_intent(intent), observations)


def _outcome_of_refund(refund: Mapping[str, Any], call: MoneyCall) -> Outcome:
    """Of another amount, payment or operation, it is not the refund that we asked for."""
    if (taken_from(refund), refund_mark(refund)) != (call.target, call.reference):
        raise UnexpectedShape("the refund is another one")
    if returned_money(refund) != call.amount:
        raise UnexpectedShape("the refund is of another amount")
    kind = REFUND_STATUS.get(text_of(refund, "status"))
    if kind is None:
        raise UnexpectedShape("a status that is not known")
    failure = refund_failure(refund) if kind is FactKind.REFUND_FAILED else None
    return Outcome(_REFUND_OUTCOME[kind], identifier_of(refund, "id"), failure)


def _require_target(intent: Mapping[str, Any], call: MoneyCall) -> None:
    if identifier_of(intent, "id") != call.target:
        raise UnexpectedShape("another intent")


def _marked(metadata: Mapping[str, Any]) -> int:
    """What our captures say that they took, in Stripe's units."""
    return sum(int(text_of(metadata, key)) for key in metadata if key.startswith(CAPTURE_MARK))


def _intent_path(call: MoneyCall) -> str:
    return f"/v1/payment_intents/{quote(call.target, safe='')}"
