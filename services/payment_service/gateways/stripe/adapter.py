"""The adapter: sessions and what Stripe says of a payment. Captures, voids and refunds are in money_calls.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import quote

from pydantic import Field, SecretStr

from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import AccountSettings
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    optional_web_address,
    parse_json_object,
)
from services.payment_service.gateways.looking import STORED_FAILURE
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
from services.payment_service.gateways.stripe.amounts import stripe_money, to_stripe_minor
from services.payment_service.gateways.stripe.api import CLOSE, CREATE, READ, StripeApi
from services.payment_service.gateways.stripe.forms import session_form
from services.payment_service.gateways.stripe.listing import intents_of_window
from services.payment_service.gateways.stripe.money_calls import MoneyCalls
from services.payment_service.gateways.stripe.reading import (
    moment,
    observation_of_dispute,
    observation_of_refund,
    snapshot_of_intent,
    snapshot_of_session,
)
from services.payment_service.gateways.stripe.report import balance_transactions
from services.payment_service.gateways.stripe.webhooks import translate
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    InvalidAmount,
)
from shared.http import HttpCaller
from shared.money import Money

LOOK_BACK = timedelta(minutes=10)
"""How far Stripe's clock may be behind ours."""


class StripeSettings(AccountSettings):
    api_key: SecretStr = Field(description="sk_test_… or sk_live_…; Stripe is enabled when set")
    api_base: str = "https://api.stripe.com"


class Stripe(WithoutCompletion):
    facts = Facts(
        name="stripe",
        display_name="Stripe",
        capabilities=frozenset(
            {
                Capability.REDIRECT,
                Capability.MANUAL_CAPTURE,
                Capability.PARTIAL_CAPTURE,
                Capability.SEVERAL_CAPTURES,
                Capability.VOID,
                Capability.REFUND,
                Capability.PARTIAL_REFUND,
                Capability.CLOSE_SESSION,
                Capability.RETRIEVE,
                Capability.LIST_BY_WINDOW,
                Capability.DISPUTES,
                Capability.SETTLEMENT_REPORT,
            }
        ),
        not_offered={
            Capability.FORM_POST: "its page is opened by address",
            Capability.FIND_BY_REFERENCE: "sessions are not listed by our reference, and its search lags",
        },
        blurb="Cards, Apple Pay and Google Pay",
        currencies=None,
        authorization_valid_for=timedelta(days=7),
        key_valid_for=timedelta(hours=23),  # keys live for 24 h, and clocks differ
        absence_proves_after=timedelta(minutes=10),  # reads are consistent, and no request lives for so long
        unknown_horizon=timedelta(hours=24),
    )

    def __init__(self, settings: StripeSettings, http: HttpCaller) -> None:
        key = settings.api_key.get_secret_value()
        self._live = key.startswith(("sk_live_", "rk_live_"))
        self._api = StripeApi(settings.api_base, key, http)
        self._money = MoneyCalls(self._api, live=self._live)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        to_stripe_minor(amount)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        if kind is not OperationKind.VOID:  # it releases what there is, and sends no amount
            to_stripe_minor(amount)

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """A repeated call carries the same key and body, and Stripe answers it with the session that it made at first.

        But it also stores a 500 under the key and replays it, whether or not the session was made: then the session is
        looked for, and if there is none the key is used up and a new attempt is needed (GatewayRejected).
        """
        form = session_form(request)
        try:
            body = await self._api.call("POST", "/v1/checkout/sessions", CREATE, form=form, key=request.idempotency_key)
        except GatewayServerError as error:
            if not repeated or error.gateway_status != STORED_FAILURE:
                raise
            found = await self._find_session(request)
            if found is None:
                raise GatewayRejected("Stripe has stored a failure for this attempt; a new one is needed") from error
            body = found
        return self._read_session(body, request)

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """What was captured is asked about to its end: refunds, also those made in the dashboard, and disputes."""
        session = next((reference for reference in references if reference.startswith("cs_")), None)
        intent = next((reference for reference in references if reference.startswith("pi_")), None)
        if session is not None:
            query = {"expand[]": "payment_intent.latest_charge"}
            body = await self._api.call("GET", f"/v1/checkout/sessions/{quote(session, safe='')}", READ, query=query)
            return await self._with_returns(self._read(snapshot_of_session, body))
        if intent is None:
            raise GatewayObjectNotFound("no Stripe object of this payment is known")
        query = {"expand[]": "latest_charge"}
        body = await self._api.call("GET", f"/v1/payment_intents/{quote(intent, safe='')}", READ, query=query)
        return await self._with_returns(self._read(snapshot_of_intent, body))

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        path = f"/v1/checkout/sessions/{quote(gateway_reference, safe='')}/expire"
        try:
            body = await self._api.call("POST", path, CLOSE, form={"expand[0]": "payment_intent"})
        except GatewayObjectNotFound:
            raise
        except GatewayRejected:  # only an open session can be expired: see what became of this one
            return await self.retrieve((gateway_reference,), our_reference=our_reference)
        snapshot = self._read(snapshot_of_session, body)
        if body.get("status") != "expired":
            return snapshot  # it answered, but not that the page is gone: then we have not closed it
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (*_without_expiry(snapshot.observations), closed))

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._money.capture(call)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._money.void(call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._money.refund(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        return await self._money.find(call)

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return await intents_of_window(self._api, since, until, cursor, live=self._live)

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        return await balance_transactions(self._api, day)

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return translate(parse_json_object(delivery.payload), live=self._live)
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error

    # --- looking further -------------------------------------------------------------------------------------------

    async def _find_session(self, request: CreateSession) -> dict[str, Any] | None:
        """The session with our reference among those made since the attempt."""

        def is_ours(session: Mapping[str, Any]) -> bool:
            return session.get("client_reference_id") == request.reference

        since = int((request.attempted_at - LOOK_BACK).timestamp())
        sessions = await self._api.entries("/v1/checkout/sessions", {"created[gte]": str(since)}, until=is_ours)
        return next((session for session in sessions if is_ours(session)), None)

    async def _with_returns(self, snapshot: Snapshot) -> Snapshot:
        """Refunds and disputes of each intent that has taken money."""
        taken = {o.object_reference for o in snapshot.observations if o.kind is FactKind.CAPTURED}
        found: list[Observation] = []
        for intent in sorted(taken):
            found += await self._returns("/v1/refunds", intent, observation_of_refund)
            found += await self._returns("/v1/disputes", intent, observation_of_dispute)
        return Snapshot(snapshot.references, (*snapshot.observations, *found))

    async def _returns(
        self, path: str, intent: str, reader: Callable[[Mapping[str, Any]], Observation | None]
    ) -> list[Observation]:
        entries = await self._api.entries(path, {"payment_intent": intent})
        try:
            found = [reader({**entry, "payment_intent": intent}) for entry in map(self._of_own_mode, entries)]
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("Stripe's list is not understood") from error
        return [observation for observation in found if observation is not None]

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read_session(self, body: Mapping[str, Any], request: CreateSession) -> Session:
        """An answer without id, without page, of another amount or another mode is not the session we asked for
        (H14)."""
        try:
            reference, amount = identifier_of(body, "id"), stripe_money(body, "amount_total")
            self._require_own_mode(body)
            if amount != request.amount:
                raise UnexpectedShape("the session is about another amount")
            url = optional_web_address(body, "url")
            expires_at = moment(body.get("expires_at"))
            if expires_at is None:
                raise UnexpectedShape("expires_at is not a time")
            snapshot = snapshot_of_session(body)
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("Stripe's answer is not a session that we can use") from error
        if url is None:  # replayed under its key after it was paid or closed: nothing to show the shopper any more
            url = request.return_url
        observations = (Observation(FactKind.SESSION_OPENED, reference), *snapshot.observations)
        return Session(reference, NextAction("redirect", url), expires_at, snapshot.references, observations)

    def _read(self, reader: Callable[[Mapping[str, Any]], Snapshot], body: Mapping[str, Any]) -> Snapshot:
        try:
            self._require_own_mode(body)
            return reader(body)
        except (UnexpectedShape, InvalidAmount, ValueError) as error:
            raise GatewayOutcomeUnknown("Stripe's answer is not understood") from error

    def _require_own_mode(self, body: Mapping[str, Any]) -> None:
        if body.get("livemode") is not self._live:
            raise UnexpectedShape("test and live mode are mixed")

    def _of_own_mode(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """A refund does not say its mode; a dispute does."""
        if "livemode" in entry:
            self._require_own_mode(entry)
        return entry


def _without_expiry(observations: tuple[Observation, ...]) -> tuple[Observation, ...]:
    """Stripe shows a session that we closed as expired; that it was us is the better fact."""
    return tuple(o for o in observations if o.kind is not FactKind.EXPIRED)
