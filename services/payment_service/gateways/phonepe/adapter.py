"""PhonePe, v2: an order is opened by us, paid on PhonePe's page, and asked about by our own reference.

Quirks and sources: ../phonepe.md. Amounts: whole paise, INR only. Keys: none, but an order and a refund are unique by
our references. Calls go under a token that is cached. The browser's way back proves nothing, and neither does a
webhook: its header is the same for every one, so all of them are reasons to ask.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    identifier_of,
    parse_json_object,
)
from services.payment_service.gateways.phonepe.api import Json, PhonepeApi, understood
from services.payment_service.gateways.phonepe.reading import CURRENCY, OUR_REFERENCE, moment_of, order_observations
from services.payment_service.gateways.phonepe.refunds import (
    MOST_REFUNDS,
    Refunds,
    names_in,
    reference_of,
)
from services.payment_service.gateways.phonepe.sessions import order_json, read_session
from services.payment_service.gateways.phonepe.settings import FACTS, PhonepeSettings
from services.payment_service.gateways.phonepe.webhooks import translate
from services.payment_service.gateways.port import (
    CreateSession,
    Delivery,
    GatewayEvent,
    MoneyCall,
    Outcome,
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
from shared.errors import GatewayObjectNotFound, GatewayRejected, InvalidAmount
from shared.money import Money

SMALLEST_PAYMENT_PAISE = 100


class Phonepe(WithoutCaptures, WithoutCompletion, WithoutListing, WithoutSettlementReports):
    def __init__(self, settings: PhonepeSettings, tools: Tools) -> None:
        self.facts = FACTS
        self._settings = settings
        self._clock = tools.ports.clock
        self._api = PhonepeApi(settings, tools.http)
        self._refunds = Refunds(self._api)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        self.check_operation(OperationKind.CAPTURE, amount)
        if amount.amount_minor < SMALLEST_PAYMENT_PAISE:
            raise CurrencyNotSupported("PhonePe takes one rupee at least")
        if capture is CaptureMode.MANUAL:
            raise CapabilityNotSupported("PhonePe's standard checkout takes the money at once")

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        if amount.currency != CURRENCY:
            raise CurrencyNotSupported("PhonePe takes Indian rupees only")

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """After a call without an answer the order is looked for first.

        The address of its page is told once only. So an order that is there has used its reference up
        (GatewayRejected); as nobody ever saw its page, another order is as good, and this one expires.
        """
        if repeated:
            left = await self._left_behind(request)
            if left is not None:
                return left
        body = order_json(request, retry_on_page=self._settings.retry_on_page)
        answer = await self._api.post("/checkout/v2/pay", body)
        return understood(lambda: read_session(answer, request.reference))

    async def _left_behind(self, request: CreateSession) -> Session | None:
        try:
            order = await self._api.order_status(request.reference)
        except GatewayObjectNotFound:
            return None
        observations = understood(lambda: order_observations(order, request.reference, self._clock.now()))
        is_paid = any(each.kind is FactKind.CAPTURED for each in observations)
        if not is_paid and not understood(lambda: entries_of(order, "paymentDetails")):
            raise GatewayRejected("the order is there, its page is lost; a new one is needed", gateway_code="page_lost")
        # Somebody has its page after all: there must not be another one.
        back = NextAction("redirect", request.return_url)
        expires_at, names = understood(lambda: (moment_of(order, "expireAt"), _names(order, request.reference)))
        return Session(request.reference, back, expires_at, names, observations)

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """The payment's order; and of any other order that was opened for it only whether it brought money: that its
        page has ended does not end the payment."""
        found: list[Snapshot] = []
        for name in dict.fromkeys((our_reference, *filter(OUR_REFERENCE.fullmatch, references))):
            try:
                order = await self._order(name, references)
            except GatewayObjectNotFound:
                continue
            if name == our_reference or any(each.kind is FactKind.CAPTURED for each in order.observations):
                found.append(order)
        if not found:
            raise GatewayObjectNotFound("PhonePe does not know this order")
        return Snapshot(
            tuple(dict.fromkeys(each for order in found for each in order.references)),
            tuple(each for order in found for each in order.observations),
        )

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """No call ends an order. Its page is not shown any more and dies within an hour; whoever still pays on it is
        found by webhook or sweep and treated as late (order policy)."""
        snapshot = await self.retrieve((gateway_reference,), our_reference=our_reference)
        if any(each.kind not in (FactKind.SESSION_OPENED, FactKind.DECLINED) for each in snapshot.observations):
            return snapshot
        closed = Observation(FactKind.CANCELED, our_reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (*snapshot.observations, closed))

    async def _order(self, name: str, references: tuple[str, ...]) -> Snapshot:
        order = await self._api.order_status(name)
        observations = understood(lambda: order_observations(order, name, self._clock.now()))
        names = understood(lambda: _names(order, name))
        if not any(each.kind is FactKind.CAPTURED for each in observations):
            return Snapshot(names, observations)
        refunds = await self._refunds_of(name, names_in(references))
        marked = (reference_of(each.object_reference) for each in refunds)
        return Snapshot((*names, *marked), (*observations, *refunds))

    async def _refunds_of(self, order: str, names: Mapping[str, bool]) -> list[Observation]:
        """Those that we know of, and those that a webhook has just named."""
        found = []
        for name, is_known in list(names.items())[:MOST_REFUNDS]:
            refund = await self._refunds.observe(name, order, is_known=is_known)
            found += [refund] if refund is not None else []
        return found

    # --- money -----------------------------------------------------------------------------------------------------

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._refunds.apply(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        """Nothing but refunds is ever sent, so there is nothing else to be found."""
        return await self._refunds.find(call) if call.kind is OperationKind.REFUND else None

    # --- webhooks --------------------------------------------------------------------------------------------------

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return translate(parse_json_object(delivery.payload))
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error


def _names(order: Json, reference: str) -> tuple[str, ...]:
    return (reference, identifier_of(order, "orderId"))
