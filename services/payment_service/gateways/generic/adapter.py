"""The adapter: sessions and what the gateway says of a payment. Captures, voids and refunds are in money_calls.py."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from pydantic import Field, SecretStr

from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import AccountSettings
from services.payment_service.gateways.generic.api import CREATE, READ, GenericApi, json_with_amount
from services.payment_service.gateways.generic.listing import sessions_of_window
from services.payment_service.gateways.generic.money_calls import MoneyCalls
from services.payment_service.gateways.generic.reading import money_of, snapshot_of
from services.payment_service.gateways.generic.webhooks import translate
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    optional_web_address,
    parse_json_object,
    text_of,
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
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import WithoutCompletion, WithoutSettlementReports
from shared.clock import to_rfc3339
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    InvalidAmount,
)
from shared.http import HttpCaller
from shared.money import Money

FACTS = Facts(
    name="generic",
    display_name="Card (hosted page)",
    capabilities=frozenset(Capability) - {Capability.FORM_POST, Capability.SETTLEMENT_REPORT},
    not_offered={
        Capability.FORM_POST: "its page is opened by address",
        Capability.SETTLEMENT_REPORT: "its settlement comes as a file",
    },
    blurb="Hosted checkout by a partner bank",
    currencies=None,
    authorization_valid_for=timedelta(days=7),  # where the session does not say `hold_expires_at`
    key_valid_for=timedelta(hours=23),  # keys live for 24 h, and clocks differ
    absence_proves_after=timedelta(minutes=10),  # lists are consistent, and no request lives for so long
    unknown_horizon=timedelta(hours=24),
)


class GenericSettings(AccountSettings):
    api_base: str = Field(description="where its API is; enabled when set")
    api_key: SecretStr = SecretStr("")
    display_name: str = FACTS.display_name


class Generic(WithoutCompletion, WithoutSettlementReports):
    def __init__(self, settings: GenericSettings, http: HttpCaller) -> None:
        self._api = GenericApi(settings.api_base, settings.api_key.get_secret_value(), http)
        self._money = MoneyCalls(self._api)
        self.facts = replace(FACTS, display_name=settings.display_name)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        """It takes every ISO 4217 currency with all of its digits."""

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        """As ``check``: there is no amount that it cannot express."""

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """A repeated call looks for the session first.

        A 500 may be stored under the key and replayed for ever: where there is still no session then, the key is used
        up and a new attempt is needed (GatewayRejected).
        """
        if repeated:
            found = await self._find(request.reference)
            if found is not None:  # the unanswered call had worked: adopt its session, never open a second page (PY3)
                return _read_session(found, request)
        payload, key = _session_json(request), request.idempotency_key
        try:
            body = await self._api.call("POST", "/v1/sessions", CREATE, payload=payload, key=key)
        except GatewayServerError as error:
            if not repeated or error.gateway_status != STORED_FAILURE:
                raise
            found = await self._find(request.reference)
            if found is None:
                raise GatewayRejected("a failure is stored for this attempt; a new one is needed") from error
            body = found
        return _read_session(body, request)

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        for reference in references:  # webhooks of existing integrations may have named the payment by other ids
            with suppress(GatewayObjectNotFound):
                path = f"/v1/sessions/{quote(reference, safe='')}"
                return _read_snapshot(await self._api.call("GET", path, READ))
        found = await self._find(our_reference)
        if found is None:
            raise GatewayObjectNotFound("the gateway knows no session with our reference")
        return _read_snapshot(found)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        path = f"/v1/sessions/{quote(gateway_reference, safe='')}/expire"
        try:
            snapshot = _read_snapshot(await self._api.call("POST", path, READ, payload=b"{}"))
        except GatewayObjectNotFound:
            raise
        except GatewayRejected:  # it is no longer open: see what became of it
            return await self.retrieve((gateway_reference,), our_reference=our_reference)
        kept = tuple(o for o in snapshot.observations if o.kind is not FactKind.EXPIRED)
        if kept:  # it answered, but not that the session has expired: then we have not closed it
            return snapshot
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (closed,))

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._money.capture(call)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._money.void(call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._money.refund(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        return await self._money.find(call)

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return await sessions_of_window(self._api, since, until, cursor)

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return translate(parse_json_object(delivery.payload), delivery.received_at)
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error

    async def _find(self, reference: str) -> dict[str, Any] | None:
        found = await self._api.entries("/v1/sessions", {"reference": reference})
        return next((entry for entry in found if entry.get("reference") == reference), None)


def _session_json(request: CreateSession) -> bytes:
    fields: dict[str, Any] = {
        "reference": request.reference,
        "order_id": request.order_id,
        "currency": request.amount.currency,
        "description": request.description,
        "customer_email": request.customer.email,
        "return_url": request.return_url,
        "cancel_url": request.cancel_url,
        "capture": request.capture.value,
        "expires_at": to_rfc3339(request.expires_at),
        "metadata": {"payment_id": request.payment_id},
    }
    return json_with_amount(request.amount, fields)


def _read_session(body: Mapping[str, Any], request: CreateSession) -> Session:
    try:
        reference = identifier_of(body, "payment_id")
        if body.get("reference") != request.reference or money_of(body, "amount") != request.amount:
            raise UnexpectedShape("the session is about another payment")
        expires_at = datetime.fromisoformat(text_of(body, "expires_at"))
        if expires_at.tzinfo is None:
            raise UnexpectedShape("expires_at has no zone")
        url = optional_web_address(body, "checkout_url") or request.return_url
        snapshot = snapshot_of(body)
    except (UnexpectedShape, InvalidAmount, ValueError) as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not a session that we can use") from error
    observations = (Observation(FactKind.SESSION_OPENED, reference), *snapshot.observations)
    return Session(reference, NextAction("redirect", url), expires_at, (reference,), observations)


def _read_snapshot(body: Mapping[str, Any]) -> Snapshot:
    try:
        return snapshot_of(body)
    except (UnexpectedShape, InvalidAmount) as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not understood") from error
