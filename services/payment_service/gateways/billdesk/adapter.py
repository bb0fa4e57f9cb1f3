"""BillDesk: an order per attempt, paid on its hosted page, and refunds. Facts and sources: ../billdesk.md.

Amounts: decimal strings in rupees. Keys: none; an ``orderid`` and a ``merc_refund_ref_no`` are good once, and both can
be asked for, so that an unanswered call is looked for and never sent blindly. Webhooks: JOSE, opened and verified by
webhook_ingest. What the browser brings back is JOSE too and never needed: the return is only a reason to ask.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.payment_service.domain.errors import CapabilityNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.billdesk import webhooks
from services.payment_service.gateways.billdesk.api import IST, AlreadyThere, BillDeskApi, Json
from services.payment_service.gateways.billdesk.reading import INR, Reader, moment_of, money_of, to_rupees
from services.payment_service.gateways.billdesk.settings import BillDeskSettings
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.json_reading import (
    Understood,
    UnexpectedShape,
    entries_of,
    identifier_of,
    object_of,
    optional_web_address,
    parse_json_object,
    text_of,
)
from services.payment_service.gateways.looking import certain
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    MoneyCall,
    Outcome,
    OutcomeStatus,
    Session,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import (
    WithoutCaptures,
    WithoutCompletion,
    WithoutListing,
    WithoutSettlementReports,
)
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
    InvalidAmount,
)
from shared.ids import time_of_reference
from shared.money import Money

_understood = Understood("BillDesk")

_AT_ONCE = "the money is taken as soon as the buyer pays"

FACTS = Facts(
    name="billdesk",
    display_name="BillDesk",
    capabilities=frozenset(
        {
            Capability.FORM_POST,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.RETRIEVE,
            Capability.FIND_BY_REFERENCE,
        }
    ),
    currencies=frozenset({"INR"}),
    # That only a 404 allows a refund to be sent again is known, how soon it proves anything is not: two hours are far
    # longer than a request lives anywhere.
    absence_proves_after=timedelta(hours=2),
    expires_silently="no call and no webhook tells of an order whose time is over",
    not_offered={
        Capability.REDIRECT: "the hosted page is opened by a form that the browser posts",
        Capability.MANUAL_CAPTURE: _AT_ONCE,
        Capability.PARTIAL_CAPTURE: _AT_ONCE,
        Capability.SEVERAL_CAPTURES: _AT_ONCE,
        Capability.VOID: "nothing is held; a full refund before settlement is BillDesk's cancellation",
        Capability.CLOSE_SESSION: "no call ends an open order; it expires by itself",
        Capability.LIST_BY_WINDOW: "no list of transactions is documented",
        Capability.DISPUTES: "disputes come by dashboard and mail, not by webhook",
        Capability.SETTLEMENT_REPORT: "its files are arranged at onboarding; no call for them is documented",
    },
    blurb="UPI, net banking, cards and wallets",
)

_OVER_AFTER = timedelta(hours=24)
"""An order's page ends within the hour, and a day is margin enough: then nobody begins any more, nor tries again."""

_OUTCOMES = {
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}


class BillDesk(WithoutCaptures, WithoutCompletion, WithoutListing, WithoutSettlementReports):
    """Raises ValueError for settings that do not fit together."""

    facts = FACTS

    def __init__(self, settings: BillDeskSettings, tools: Tools) -> None:
        settings.check()
        self._settings = settings
        self._reader = Reader(settings)
        self._api = BillDeskApi(settings, tools.http, tools.ports)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        if capture is CaptureMode.MANUAL:
            raise CapabilityNotSupported("BillDesk takes the money at once")
        to_rupees(amount)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        to_rupees(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """Our reference is the ``orderid``, which is good once. Where the first answer was lost, so is the form that
        opens the page: what has been paid under it is adopted, else a new attempt is needed. The lost order does no
        harm, as nobody was ever shown it.
        """
        self.check(request.amount, request.capture)
        try:
            order = await self._api.write("orders/create", self._order_json(request))
        except AlreadyThere as error:
            return await self._paid_already(request, error)
        return _understood(lambda: self._session_of(order, request), "order")

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """By our reference. Which of several tries BillDesk then shows is not documented, so unless it is a success
        those that we know by their ids are asked for as well. The payment has failed when all of them have and the
        order can bring no other; until then a failed try is a declined one."""
        try:
            shown = await self._ask(orderid=our_reference)
        except GatewayObjectNotFound:
            return self._nobody_began(references, our_reference)
        transactions = [shown]
        if self._observed(shown).kind is not FactKind.CAPTURED:
            for reference in references:
                if reference not in (shown.get("transactionid"), shown.get("bdorderid")):
                    transactions += await self._try_of(reference, our_reference)
        return _understood(lambda: self._snapshot(transactions, is_over=self._is_over(our_reference)), "transaction")

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """There is no call for it. An order that nobody began, or whose try was declined, is closed on our side: its
        page is not shown any more, and who still pays on an old one is found by webhook or sweep and treated as late
        (order policy)."""
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        try:
            shown = await self._ask(orderid=our_reference)
        except GatewayObjectNotFound:
            return Snapshot((gateway_reference,), (closed,))
        found = _understood(lambda: self._snapshot([shown], is_over=False), "transaction")
        if any(each.kind is not FactKind.DECLINED for each in found.observations):
            return found
        return replace(found, observations=(*found.observations, closed))

    def _order_json(self, request: CreateSession) -> Json:
        """No name, no address, no phone number: BillDesk wants none, and its page asks for what it needs."""
        return {
            "mercid": self._settings.merchant_id,
            "orderid": request.reference,
            "amount": to_rupees(request.amount),
            "order_date": self._api.now.astimezone(IST).isoformat(timespec="seconds"),
            "currency": INR,
            "ru": request.return_url,
            "itemcode": self._settings.item_code,
            "additional_info": {"additional_info1": request.payment_id},
            "device": {
                "init_channel": "internet",
                "ip": self._settings.device_ip,
                "user_agent": self._settings.device_user_agent,
                "accept_header": "text/html",
            },
        }

    def _session_of(self, order: Json, request: CreateSession) -> Session:
        self._reader.check_owner(order)
        if order.get("orderid") != request.reference or money_of(order) != request.amount:
            raise UnexpectedShape("it is another order")
        reference = identifier_of(order, "bdorderid")
        link = next((each for each in entries_of(order, "links") if each.get("rel") == "redirect"), None)
        url = optional_web_address(link, "href") if link is not None else None
        if link is None or url is None:
            raise UnexpectedShape("the order has no page")
        values = object_of(link, "parameters")
        # The page calls the merchant otherwise than the API does.
        fields = {
            "merchantid": text_of(values, "mercid"),
            "bdorderid": text_of(values, "bdorderid"),
            "rdata": text_of(values, "rdata"),
        }
        expires_at = moment_of(link, "valid_date") or request.expires_at
        opened = Observation(FactKind.SESSION_OPENED, reference)
        return Session(reference, NextAction("form_post", url, fields), expires_at, (reference,), (opened,))

    async def _paid_already(self, request: CreateSession, refusal: AlreadyThere) -> Session:
        """Raises the refusal where nobody has begun to pay: then a new attempt may be made."""
        try:
            snapshot = await self.retrieve((), our_reference=request.reference)
        except GatewayObjectNotFound:
            raise refusal from None
        except GatewayUnavailable as error:
            raise GatewayOutcomeUnknown("what became of the order could not be asked") from error
        if not any(each.kind in (FactKind.CAPTURED, FactKind.PROCESSING) for each in snapshot.observations):
            raise refusal
        back = NextAction("redirect", request.return_url)
        reference = snapshot.references[0]
        return Session(reference, back, request.expires_at, snapshot.references, snapshot.observations)

    # --- asking ----------------------------------------------------------------------------------------------------

    async def _ask(self, **by: str) -> Json:
        """A transaction of ours by our order's or its own id. Raises GatewayObjectNotFound."""
        fields = {"mercid": self._settings.merchant_id, **by, "refund_details": "true"}
        body = await self._api.read("transactions/get", fields)

        def check() -> Json:
            self._reader.check_owner(body)
            if any(body.get(name) != value for name, value in by.items()):
                raise UnexpectedShape("it is another transaction")
            return body

        return _understood(check, "transaction")

    async def _try_of(self, reference: str, our_reference: str) -> list[Json]:
        """The transaction of this id, if it is one and of this order; an id may also be an order's, or a refund's."""
        try:
            found = await self._ask(transactionid=reference)
        except GatewayRejected:
            return []
        return [found] if found.get("orderid") == our_reference else []

    def _nobody_began(self, references: tuple[str, ...], our_reference: str) -> Snapshot:
        """Raises GatewayObjectNotFound while somebody still may."""
        if not self._is_over(our_reference):
            raise GatewayObjectNotFound("BillDesk knows no transaction with our reference")
        expired = Observation(FactKind.EXPIRED, references[0] if references else our_reference, reason="never_started")
        return Snapshot((), (expired,))

    def _is_over(self, our_reference: str) -> bool:
        made_at = time_of_reference(our_reference)
        return made_at is not None and self._api.now - made_at >= _OVER_AFTER

    def _observed(self, transaction: Json) -> Observation:
        return _understood(lambda: self._reader.transaction(transaction), "transaction")

    def _snapshot(self, transactions: list[Json], *, is_over: bool) -> Snapshot:
        """``is_over``: of the order, which then brings no tries but these."""
        tries = (self._reader.transaction(each) for each in transactions)
        has_ended = is_over and all(each.kind is FactKind.DECLINED for each in tries)
        observations: list[Observation] = []
        for transaction in transactions:
            observations.append(self._reader.transaction(transaction, is_last=has_ended))
            observations += self._reader.refunds_in(transaction, self._api.now)
        references = tuple(dict.fromkeys(identifier_of(each, "transactionid") for each in transactions))
        return Snapshot(references, tuple(observations))

    # --- money -----------------------------------------------------------------------------------------------------

    async def refund(self, call: MoneyCall) -> Outcome:
        """A refund repeats the transaction's date and amount as BillDesk wrote them, so it is asked for these first."""
        transaction = await self._before_anything_is_sent(call)
        payload = _understood(lambda: self._refund_json(call, transaction), "transaction")
        try:
            refund = await self._api.write("refunds/create", payload)
        except AlreadyThere as refusal:
            found = await certain(lambda: self.find_operation(call))
            if found is None:  # it says that it has had it: then an earlier one may still be at work
                raise GatewayOutcomeUnknown("BillDesk has had this refund, and does not show it") from refusal
            return found
        return _understood(lambda: self._refund_outcome(refund, call), "refund")

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        """Other operations than refunds are never sent, so there is none to be found."""
        if call.kind is not OperationKind.REFUND:
            return None
        fields = {"mercid": self._settings.merchant_id, "merc_refund_ref_no": call.reference}
        try:
            refund = await self._api.read("refunds/get", fields)
        except GatewayObjectNotFound:
            await self._require_known(call)
            return None
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("BillDesk refuses to say what became of it") from error
        return _understood(lambda: self._refund_outcome(refund, call), "refund")

    async def _require_known(self, call: MoneyCall) -> None:
        """That a refund is not there proves something only where its payment is: somebody else's credentials, or
        another environment's, know neither. Raises GatewayOutcomeUnknown."""
        try:
            await self._ask(transactionid=call.target)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("BillDesk knows neither the refund nor its payment") from error

    async def _before_anything_is_sent(self, call: MoneyCall) -> Json:
        try:
            return await self._ask(transactionid=call.target)
        except GatewayOutcomeUnknown as error:  # of a question: no refund has been asked for by this call
            raise GatewayUnavailable("BillDesk could not be asked about the payment") from error

    def _refund_json(self, call: MoneyCall, transaction: Json) -> Json:
        return {
            "mercid": self._settings.merchant_id,
            "orderid": text_of(transaction, "orderid"),
            "transactionid": call.target,
            "transaction_date": text_of(transaction, "transaction_date"),
            "txn_amount": text_of(transaction, "amount"),
            "refund_amount": to_rupees(call.amount),
            "currency": INR,
            "merc_refund_ref_no": call.reference,
        }

    def _refund_outcome(self, refund: Json, call: MoneyCall) -> Outcome:
        self._reader.check_owner(refund)
        if refund.get("merc_refund_ref_no") != call.reference or refund.get("transactionid") != call.target:
            raise UnexpectedShape("it is another refund")
        if money_of(refund, "refund_amount") != call.amount:
            raise UnexpectedShape("it is another refund")
        observation = self._reader.refund(refund, self._api.now)
        status = _OUTCOMES[observation.kind]
        return Outcome(status, observation.object_reference, observation.reason, observations=(observation,))

    # --- webhooks --------------------------------------------------------------------------------------------------

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return webhooks.translate(parse_json_object(delivery.payload), self._reader, delivery.received_at)
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error
