"""Captures, releases and refunds. There are no idempotency keys: what MyFatoorah shows decides what was done.

A hold is captured or released once per invoice, so a second call is refused. A refund is only a request that people at
MyFatoorah decide; it carries our reference as ``ExternalIdentifier`` and is looked for by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import Any

from services.payment_service.domain.models import FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.json_reading import Understood, UnexpectedShape, entries_of, optional_identifier
from services.payment_service.gateways.looking import certain, found_or_refused
from services.payment_service.gateways.myfatoorah.amounts import Account, decimal_of
from services.payment_service.gateways.myfatoorah.api import (
    GUARDED_WRITE,
    READ,
    UNGUARDED_WRITE,
    Json,
    MyFatoorahApi,
)
from services.payment_service.gateways.myfatoorah.reading import (
    Invoice,
    invoice_of,
    number_or_text,
    observations_of,
    refund_observation,
)
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from shared.clock import Clock
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.money import Money

understood = Understood("MyFatoorah")

LONGEST_COMMENT = 200
_REFUSES_TO_SAY = "MyFatoorah refuses to say what became of it"

_REFUND_STATUS: Mapping[FactKind, OutcomeStatus] = {
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}


class MoneyCalls:
    """``call.target`` is the PaymentId of the attempt that holds or brought the money."""

    def __init__(self, api: MyFatoorahApi, account: Account, zone: timezone, clock: Clock) -> None:
        self._api = api
        self._account = account
        self._zone = zone
        self._clock = clock

    async def ask(self, key: str, key_type: str) -> Invoice:
        data = await self._api.call("GetPaymentStatus", {"Key": key, "KeyType": key_type}, READ)
        return understood(lambda: invoice_of(data, self._account, self._zone))

    async def refunds_of(self, invoice_id: str) -> list[Json]:
        data = await self._api.call("GetRefundStatus", {"Key": invoice_id, "KeyType": "InvoiceId"}, READ)
        return understood(lambda: _refund_rows(data))

    # --- holds -----------------------------------------------------------------------------------------------------

    async def capture(self, call: MoneyCall) -> Outcome:
        """Partly too, and then the rest of the hold is gone: there is one capture per invoice."""
        return await self._decide(call, {"Operation": "Capture", "Amount": self._account.wire(call.amount)})

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._decide(call, {"Operation": "Release"})

    async def _decide(self, call: MoneyCall, what: Mapping[str, Any]) -> Outcome:
        """The invoice is looked at before (by whose id the call goes) and after: the answer itself says nothing."""
        invoice = await self._look_first(call)
        done = understood(lambda: self._outcome(invoice, call))
        if done is not None:
            return done
        payload = {**what, "Key": invoice.invoice_id, "KeyType": "InvoiceId"}
        try:
            await self._api.call("UpdatePaymentStatus", payload, GUARDED_WRITE)
        except GatewayRejected as refusal:
            return await found_or_refused(refusal, lambda: self.find(call))
        outcome = await certain(lambda: self.find(call))
        if outcome is None:
            raise GatewayOutcomeUnknown("MyFatoorah took it on and does not show it yet")
        return outcome

    async def _look_first(self, call: MoneyCall) -> Invoice:
        """Nothing has been sent yet, so whatever keeps us from looking, nothing has moved."""
        try:
            invoice = await self.ask(call.target, "PaymentId")
        except GatewayOutcomeUnknown as error:
            raise GatewayUnavailable("the invoice could not be looked at before") from error
        if invoice.our_reference != call.our_reference:
            raise GatewayRejected("this attempt belongs to another payment", gateway_code="not_ours")
        return invoice

    def _outcome(self, invoice: Invoice, call: MoneyCall) -> Outcome | None:
        """What has become of the hold; None while it is held. Raises UnexpectedShape while the invoice does not say yet
        what its attempt says."""
        attempt = invoice.attempt(call.target)
        if attempt.has_paid and not invoice.is_paid:
            raise UnexpectedShape("an attempt has paid, and its invoice does not say so")
        observations = tuple(observations_of(invoice, self._clock.now()))
        status, why = OutcomeStatus.FAILED, None
        if attempt.has_paid:
            is_ours = call.kind is OperationKind.CAPTURE and invoice.captured(attempt) == call.amount
            status = OutcomeStatus.SUCCEEDED if is_ours else OutcomeStatus.FAILED
            why = None if is_ours else "captured_otherwise"
        elif attempt.status == "canceled" or invoice.status == "canceled":
            is_release = call.kind is OperationKind.VOID
            status = OutcomeStatus.SUCCEEDED if is_release else OutcomeStatus.FAILED
            why = None if is_release else "released"
        else:
            return None
        return Outcome(status, call.target, why, invoice.references, observations)

    # --- refunds ---------------------------------------------------------------------------------------------------

    async def refund(self, call: MoneyCall) -> Outcome:
        payload = {
            "KeyType": "PaymentId",
            "Key": call.target,
            "Amount": self._account.wire(call.amount),
            "Comment": " ".join((call.reason or "refund").split())[:LONGEST_COMMENT],
            "ExternalIdentifier": call.reference,
            "ServiceChargeOnCustomer": False,
            "AmountDeductedFromSupplier": 0,
        }
        try:
            data = await self._api.call("MakeRefund", payload, UNGUARDED_WRITE)
        except GatewayRejected as refusal:
            return await found_or_refused(refusal, lambda: self._refund_by_reference(call))
        return understood(lambda: self._filed(data, call))

    def _filed(self, data: Json, call: MoneyCall) -> Outcome:
        """A request that was filed gives nothing back yet, whatever the answer looks like."""
        if optional_identifier(data, "ExternalIdentifier") not in (None, call.reference):
            raise UnexpectedShape("it is another refund")
        amount = Money.from_major(decimal_of(data.get("Amount")), self._account.currency)
        if amount != call.amount:
            raise UnexpectedShape("it is of another amount")
        return Outcome(OutcomeStatus.PENDING, number_or_text(data, "RefundId"))

    # --- looking ---------------------------------------------------------------------------------------------------

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where MyFatoorah will not say: a refusal to show is no proof of absence. Nor is
        a list with a refund of our amount that shows nobody's reference."""
        if call.kind is not OperationKind.REFUND:
            return await self._decided(call)
        refunds = await self._listed(call)
        found = understood(lambda: self._refund_outcome(refunds, call))
        if found is None and understood(lambda: self._may_be_ours(refunds, call)):
            raise GatewayOutcomeUnknown("a refund of this amount shows no reference")
        return found

    async def _decided(self, call: MoneyCall) -> Outcome | None:
        try:
            invoice = await self.ask(call.target, "PaymentId")
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown(_REFUSES_TO_SAY) from error
        return understood(lambda: self._outcome(invoice, call))

    async def _listed(self, call: MoneyCall) -> list[Json]:
        try:
            invoice = await self.ask(call.target, "PaymentId")
            return await self.refunds_of(invoice.invoice_id)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown(_REFUSES_TO_SAY) from error

    async def _refund_by_reference(self, call: MoneyCall) -> Outcome | None:
        """After a refusal: whose a refund without a reference is, does not matter, for this call has made none."""
        refunds = await self._listed(call)
        return understood(lambda: self._refund_outcome(refunds, call))

    def _may_be_ours(self, refunds: list[Json], call: MoneyCall) -> list[Json]:
        nameless = (refund for refund in refunds if optional_identifier(refund, "ExternalIdentifier") is None)
        return [each for each in nameless if self._account.money(each, "Amount", "BaseCurrency") == call.amount]

    def _refund_outcome(self, refunds: list[Json], call: MoneyCall) -> Outcome | None:
        found = next((refund for refund in refunds if refund.get("ExternalIdentifier") == call.reference), None)
        if found is None:
            return None
        observation = refund_observation(found, call.target, self._account)
        if observation.amount != call.amount:
            raise UnexpectedShape("it is of another amount")
        status = _REFUND_STATUS[observation.kind]
        return Outcome(status, observation.object_reference, observation.reason, observations=(observation,))


def _refund_rows(data: Json) -> list[Json]:
    """An answer without the list is not one without refunds."""
    if not isinstance(data.get("RefundStatusResult"), list):
        raise UnexpectedShape("there is no list of refunds")
    return entries_of(data, "RefundStatusResult")
