"""Tamara: a hosted page where the shopper agrees to instalments, and money that is ours once we authorise and capture.

Quirks and sources: ../tamara.md. Amounts: JSON numbers in major units. Keys: none, so every call about money looks
first, and one without an answer is looked for before it is made again. Webhooks: a JWT that is not bound to the body,
verified by webhook_ingest and taken as a hint.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    optional_web_address,
    parse_json_object,
)
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    MoneyCall,
    Outcome,
    Session,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import WithoutListing, WithoutSettlementReports
from services.payment_service.gateways.tamara.amounts import CURRENCIES, check_currency, check_total
from services.payment_service.gateways.tamara.api import CREATE, Json, TamaraApi
from services.payment_service.gateways.tamara.money_calls import MoneyCalls
from services.payment_service.gateways.tamara.new_session import new_order
from services.payment_service.gateways.tamara.orders import Orders, understood
from services.payment_service.gateways.tamara.reading import NEW, Order, page_of, snapshot_of
from services.payment_service.gateways.tamara.settings import TamaraSettings
from services.payment_service.gateways.tamara.webhooks import translate
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, InvalidAmount
from shared.http import HttpCaller
from shared.money import Money

USUAL_MINUTES = 30
"""How long a page is open where nothing else is agreed. The answer names no moment."""


class Tamara(WithoutListing, WithoutSettlementReports):
    facts = Facts(
        name="tamara",
        display_name="Tamara",
        capabilities=frozenset(
            {
                Capability.REDIRECT,
                Capability.MANUAL_CAPTURE,
                Capability.PARTIAL_CAPTURE,
                Capability.SEVERAL_CAPTURES,
                Capability.VOID,
                Capability.REFUND,
                Capability.PARTIAL_REFUND,
                Capability.RETRIEVE,
                Capability.FIND_BY_REFERENCE,
            }
        ),
        currencies=CURRENCIES,
        # One page says 90 days, a newer one that what is left is captured by itself after 21: by then it is decided.
        authorization_valid_for=timedelta(days=21),
        # There are no keys. What is still not shown half a minute after a call of twenty seconds has ended, never ran.
        key_valid_for=None,
        absence_proves_after=timedelta(minutes=1),
        not_offered={
            Capability.FORM_POST: "the page is a plain redirect",
            Capability.CLOSE_SESSION: "no call ends an online page; it expires after 30 minutes",
            Capability.LIST_BY_WINDOW: "no list of orders is documented",
            Capability.DISPUTES: "their interface is described by third parties only",
            Capability.SETTLEMENT_REPORT: "no call for settlements is documented; the portal gives a file",
        },
        blurb="Split it into payments, without interest",
    )

    def __init__(self, settings: TamaraSettings, http: HttpCaller) -> None:
        self._settings = settings
        self._api = TamaraApi(settings.api_token.get_secret_value(), settings.api_base, http)
        self._orders = Orders(self._api, settings.failed_refund_words)
        self._money = MoneyCalls(self._api, self._orders, settings.shipping_company)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        check_total(amount)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        check_currency(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """An unanswered call may have made an order, but no look tells the address of its page. So where it is still
        unpaid another one is made: of the first nobody knows, and it expires by itself.

        A refusal after silence may be about the order that an earlier try has made.
        """
        if repeated:
            found = await self._orders.find((), request.reference)
            if found is not None and found.status != NEW:
                return self._adopted(found, request)
        try:
            body = await self._api.post("/checkout", CREATE, new_order(request, self._settings))
        except GatewayRejected as refusal:
            if refusal.after_silence:
                raise GatewayOutcomeUnknown("refused, but an earlier try had no answer") from refusal
            raise
        return understood(partial(self._session_of, body, request))

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        return understood(partial(snapshot_of, await self._order(references, our_reference), references))

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """No call closes an order, and where we authorise none is needed: we never do so for a canceled payment. An
        account that authorises by itself may hold money afterwards, which counts under the order's own id. One that is
        approved by now is not closed: it is to be completed."""
        order = await self._order((gateway_reference,), our_reference)
        if order.status != NEW:
            return understood(partial(snapshot_of, order))
        closed = Observation(FactKind.CANCELED, page_of(order.order_id), reason="closed_by_us")
        return Snapshot((order.order_id,), (closed,))

    async def _order(self, references: tuple[str, ...], our_reference: str) -> Order:
        order = await self._orders.find(references, our_reference)
        if order is None:
            raise GatewayObjectNotFound("Tamara knows no order of this payment")
        return order

    def _session_of(self, body: Json, request: CreateSession) -> Session:
        reference, url = identifier_of(body, "order_id"), optional_web_address(body, "checkout_url")
        if url is None:
            raise UnexpectedShape("the order has no page")
        opened = Observation(FactKind.SESSION_OPENED, page_of(reference))
        minutes = self._settings.expires_in_minutes or USUAL_MINUTES
        expires_at = min(request.expires_at, request.attempted_at + timedelta(minutes=minutes))
        return Session(reference, NextAction("redirect", url), expires_at, (reference,), (opened,))

    def _adopted(self, order: Order, request: CreateSession) -> Session:
        """It went on before we knew of it: there is nothing to show any more."""
        if order.total != request.amount:
            raise GatewayOutcomeUnknown("Tamara has an order of another amount under our reference")
        snapshot = understood(partial(snapshot_of, order))
        back = NextAction("redirect", request.return_url)
        return Session(order.order_id, back, request.expires_at, snapshot.references, snapshot.observations)

    # --- money -----------------------------------------------------------------------------------------------------

    async def complete(self, call: MoneyCall) -> Outcome:
        return await self._money.complete(call)

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._money.capture(call)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._money.void(call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._money.refund(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        return await self._money.find(call)

    # --- webhooks --------------------------------------------------------------------------------------------------

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return translate(parse_json_object(delivery.payload))
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error
