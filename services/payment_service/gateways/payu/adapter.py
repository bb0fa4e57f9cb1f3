"""PayU India's hosted checkout: a signed form that the browser posts, and an API that is asked what became of it.

Quirks and sources: ../payu.md. Amounts: rupees as text with two digits. Keys: our reference is the token of a capture,
void or refund, which PayU takes once. Webhooks: a salted SHA-512 over some of the fields, verified by webhook_ingest,
and only ever a reason to ask; so is the browser's return, which carries the same hash.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import structlog
from pydantic import Field, SecretStr

from services.payment_service.domain.errors import CapabilityNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import AccountSettings
from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.listing import code_of
from services.payment_service.gateways.looking import certain
from services.payment_service.gateways.payu import webhooks
from services.payment_service.gateways.payu.api import PayuApi
from services.payment_service.gateways.payu.listing import list_window
from services.payment_service.gateways.payu.money_calls import MoneyCalls, understood
from services.payment_service.gateways.payu.reading import (
    PAYU_ID,
    Payment,
    observations_of,
    observations_of_actions,
)
from services.payment_service.gateways.payu.report import settlement_details
from services.payment_service.gateways.payu.session import CURRENCY, form_fields, rupees
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    ListPage,
    MoneyCall,
    Outcome,
    Session,
    SettlementReport,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import WithoutCompletion
from shared.clock import Clock
from shared.errors import GatewayError, GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected
from shared.http import HttpCaller
from shared.money import Money

log = structlog.get_logger()

NO_AUTHORIZATION = "no account asks for it: what PayU's form takes for it is set by PAYU_PRE_AUTHORIZE"

FACTS = Facts(
    name="payu",
    display_name="PayU",
    capabilities=frozenset(
        {
            Capability.FORM_POST,
            Capability.MANUAL_CAPTURE,
            Capability.VOID,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.RETRIEVE,
            Capability.FIND_BY_REFERENCE,
            Capability.LIST_BY_WINDOW,
            Capability.SETTLEMENT_REPORT,
        }
    ),
    not_offered={
        Capability.REDIRECT: "its page is opened by a form that the browser posts",
        Capability.PARTIAL_CAPTURE: "capturing less than what is held is not documented",
        Capability.SEVERAL_CAPTURES: "a payment is captured once",
        Capability.CLOSE_SESSION: "a form once signed stays payable; we stop showing it, and later money is late money",
        Capability.DISPUTES: "told only by a webhook without signature, and no call confirms them",
    },
    currencies=frozenset({CURRENCY}),
    blurb="UPI, cards, net banking and wallets",
    expires_silently="told is that a visit to its page ended without a try, and not that the form opens no other",
    # How long a token is remembered is documented nowhere. An hour is longer than our own retries take.
    key_valid_for=timedelta(hours=1),
    # The list of actions comes from the same books; two hours leave room for a bad day.
    absence_proves_after=timedelta(hours=2),
)


class PayuSettings(AccountSettings):
    merchant_key: str = Field(description="the account's key; PayU is enabled when key and salt are set")
    salt: SecretStr = Field(description="signs forms and calls, and PayU's webhooks; of several, the first one signs")
    api_base: str = "https://info.payu.in"
    checkout_base: str = "https://secure.payu.in"
    pre_authorize: str = Field(
        default="", description="what PayU's form is told to hold money first; empty: not offered"
    )
    fallback_phone: str = Field(default="9999999999", description="sent where the shopper gave none: PayU wants one")


class Payu(WithoutCompletion):
    def __init__(self, settings: PayuSettings, http: HttpCaller, clock: Clock) -> None:
        """Raises ValueError for a key or salt that would make different forms hash alike."""
        self._settings = settings
        self._clock = clock
        self._salt = settings.salt.get_secret_value().split(",")[0].strip()
        if not self._salt or "|" in self._salt or "|" in settings.merchant_key:
            raise ValueError("PAYU_MERCHANT_KEY and PAYU_SALT must be set, and hold no pipe")
        self._api = PayuApi(settings.merchant_key, self._salt, settings.api_base, http)
        self._money = MoneyCalls(self._api)
        self.facts = FACTS if settings.pre_authorize else _without_authorization(FACTS)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        rupees(amount)
        if capture is CaptureMode.MANUAL and not self._settings.pre_authorize:
            raise CapabilityNotSupported("this PayU account takes money at once: PAYU_PRE_AUTHORIZE is not set")

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        rupees(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """Nobody is called: PayU hears of it when the browser posts the form. Made again it is the same form."""
        settings = self._settings
        fields = form_fields(
            request,
            settings.merchant_key,
            self._salt,
            pre_authorize=settings.pre_authorize,
            fallback_phone=settings.fallback_phone,
        )
        action = NextAction("form_post", f"{settings.checkout_base.rstrip('/')}/_payment", fields)
        opened = Observation(FactKind.SESSION_OPENED, request.reference)
        return Session(request.reference, action, request.expires_at, (request.reference,), (opened,))

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """Raises GatewayObjectNotFound where no browser has posted the form (yet)."""
        payment = await self._money.payment(our_reference)
        if payment is None:
            raise GatewayObjectNotFound("PayU has not seen this form")
        return await self._snapshot(payment, references)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """Canceled on our side, unless a bank is at work or money has come.

        PayU cannot be told to refuse a form. It is not shown any more, and whoever still posts an old one and pays is
        found by webhook or sweep and treated as late (order policy). Tries that failed end with their page.
        """
        closed = Observation(FactKind.CANCELED, our_reference, reason="closed_by_us")
        payment = await certain(lambda: self._money.payment(our_reference))
        if payment is None:
            return Snapshot((our_reference,), (closed,))
        snapshot = await self._snapshot(payment, (gateway_reference,))
        if any(observation.kind is FactKind.SESSION_OPENED for observation in snapshot.observations):
            return Snapshot(snapshot.references, (*snapshot.observations, closed))
        return snapshot

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return await list_window(self._api, since, until, cursor)

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        return await settlement_details(self._api, day)

    async def _snapshot(self, payment: Payment, known: tuple[str, ...]) -> Snapshot:
        """With its actions where there may be some: where money came, or had come when we last asked."""
        now, payu_id = self._clock.now(), payment.payu_id
        others = any(PAYU_ID.fullmatch(reference) and reference != payu_id for reference in known)
        observations = understood(lambda: list(observations_of(payment, now, other_tries=others)), "payment")
        if payu_id is not None and (payment.brought_money or payu_id in known):
            observations += await self._actions_of(payment, payu_id)
        return Snapshot(payment.references, tuple(observations))

    async def _actions_of(self, payment: Payment, payu_id: str) -> list[Observation]:
        """Money that has come is not kept back for a list that cannot be read. A hold is: it may have been let go,
        which only that list tells."""
        try:
            actions = await self._money.actions(payu_id)
        except GatewayError as error:
            if payment.is_held:
                raise
            log.warning("payu_actions_not_read", payu_id=payu_id, code=code_of(error))
            return []
        if actions.unread and payment.is_held:
            raise GatewayOutcomeUnknown("PayU lists an action that is not understood")
        found, unread = observations_of_actions(actions, payu_id)
        if unread:
            log.warning("payu_actions_not_understood", payu_id=payu_id, count=unread)
        return found

    # --- money -----------------------------------------------------------------------------------------------------

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._money.capture(call)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._money.void(call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._money.refund(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        try:
            return await self._money.find(call)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("PayU refuses to say what became of it") from error

    # --- webhooks --------------------------------------------------------------------------------------------------

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return webhooks.translate(delivery)
        except UnexpectedShape as error:
            raise UnreadableWebhook(str(error)) from error


def _without_authorization(facts: Facts) -> Facts:
    return replace(
        facts,
        capabilities=facts.capabilities - {Capability.MANUAL_CAPTURE},
        not_offered={**facts.not_offered, Capability.MANUAL_CAPTURE: NO_AUTHORIZATION},
    )
