"""New Pay: a hosted page, behind a small JSON API.

A skeleton that works against its own sandbox. Change it step by step into the real gateway, here and in the sandbox,
with the conformance suite green all the way; LOOK UP says what its documentation has to answer at each place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import AccountSettings, GatewayDefinition, Sheet
from services.payment_service.gateways.json_reading import (
    Understood,
    UnexpectedShape,
    entries_of,
    identifier_of,
    object_of,
    optional_identifier,
    optional_web_address,
    parse_json_object,
    sane,
    text_of,
    whole_number,
)
from services.payment_service.gateways.listing import said
from services.payment_service.gateways.looking import found_or_refused
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    Listed,
    ListPage,
    MoneyCall,
    Outcome,
    OutcomeStatus,
    Session,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import WithoutCaptures, WithoutCompletion, WithoutSettlementReports
from shared.clock import to_rfc3339
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
    InvalidAmount,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.money import Money

_understood = Understood("the gateway")

Json = Mapping[str, Any]

# LOOK UP what it can do. Whatever is not offered needs its reason, and is answered with 422.
FACTS = Facts(
    name="newpay",
    display_name="New Pay",
    capabilities=frozenset(
        {
            Capability.REDIRECT,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.CLOSE_SESSION,
            Capability.RETRIEVE,
            Capability.FIND_BY_REFERENCE,
            Capability.LIST_BY_WINDOW,
        }
    ),
    not_offered={
        Capability.FORM_POST: "its page is opened by address",
        Capability.MANUAL_CAPTURE: "the money is taken at once",
        Capability.PARTIAL_CAPTURE: "the money is taken at once",
        Capability.SEVERAL_CAPTURES: "the money is taken at once",
        Capability.VOID: "nothing is held that could be released",
        Capability.DISPUTES: "its interface does not tell of them",
        Capability.SETTLEMENT_REPORT: "its settlement comes as a file",
    },
    blurb="You pay on their secure page",
    # LOOK UP the currencies of its accounts, and how many digits each has there: not all follow ISO 4217.
    currencies=frozenset({"AED", "BHD", "EUR", "INR", "KWD", "SAR", "USD"}),
    # LOOK UP how long it knows a repeated call again. None: it has no key, and a refund is never sent twice blindly.
    key_valid_for=timedelta(hours=23),
    # LOOK UP how soon a payment shows what was done to it. None: that nothing is found proves nothing.
    absence_proves_after=timedelta(minutes=10),
)

# LOOK UP every status word. One that is not here is no success and no failure: the payment stays as it is, and we ask.
STATUS: Mapping[str, FactKind] = {
    "open": FactKind.SESSION_OPENED,
    "paid": FactKind.CAPTURED,
    "failed": FactKind.FAILED,
    "canceled": FactKind.CANCELED,
    "expired": FactKind.EXPIRED,
}
REFUND_STATUS: Mapping[str, tuple[FactKind, OutcomeStatus]] = {
    "pending": (FactKind.REFUND_PENDING, OutcomeStatus.PENDING),
    "succeeded": (FactKind.REFUND_SUCCEEDED, OutcomeStatus.SUCCEEDED),
    "failed": (FactKind.REFUND_FAILED, OutcomeStatus.FAILED),
    "reversed": (FactKind.REFUND_REVERSED, OutcomeStatus.FAILED),
}

# LOOK UP which writes may be repeated: here the same reference makes no second payment or refund.
WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)
LONGEST_TEXT = 120


class NewPaySettings(AccountSettings):
    """Enabled when all without a default are set: ``NEWPAY_SECRET_KEY``."""

    secret_key: SecretStr
    api_base: str = "https://api.newpay.example"


class NewPay(WithoutCaptures, WithoutCompletion, WithoutSettlementReports):
    facts = FACTS

    def __init__(self, settings: NewPaySettings, http: HttpCaller) -> None:
        self._base = settings.api_base.rstrip("/")
        self._key = settings.secret_key.get_secret_value()
        self._http = http

    def check(self, amount: Money, capture: CaptureMode) -> None:
        if capture is CaptureMode.MANUAL:
            raise CapabilityNotSupported("this gateway takes the money at once")
        self.check_operation(OperationKind.CAPTURE, amount)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        if amount.currency not in (FACTS.currencies or ()):
            raise CurrencyNotSupported(f"this gateway has no {kind} in {amount.currency}")

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """After an unanswered call its page may be there: it is adopted, and never a second one shown."""
        if repeated:
            with suppress(GatewayObjectNotFound):
                found = await self._find(request.reference)
                return _understood(lambda: _session_of(found, request))
        # LOOK UP the fields, their lengths and alphabets. A payment never fails for a name: cut it, or leave it out.
        payload = {
            "reference": request.reference,
            "amount": request.amount.amount_minor,
            "currency": request.amount.currency,
            "description": request.description[:LONGEST_TEXT],
            "customer_email": request.customer.email,
            "return_url": request.return_url,
            "cancel_url": request.cancel_url,
            "expires_at": to_rfc3339(request.expires_at),
        }
        body = await self._call("POST", "/v1/payments", WRITE, payload=payload)
        return _understood(lambda: _session_of(body, request))

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """A payment that does not carry our reference is somebody else's, whoever named it to us."""
        for reference in references:
            with suppress(GatewayObjectNotFound):
                body = await self._call("GET", _path(reference), READ)
                if body.get("reference") == our_reference:
                    return _understood(partial(_snapshot_of, body))
        found = await self._find(our_reference)
        return _understood(lambda: _snapshot_of(found))

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        try:
            body = await self._call("POST", f"{_path(gateway_reference)}/cancel", WRITE, payload={})
        except GatewayRejected:  # it is no longer open: see what became of it
            return await self.retrieve((gateway_reference,), our_reference=our_reference)
        return _understood(lambda: _snapshot_of(body))

    async def refund(self, call: MoneyCall) -> Outcome:
        payload = {"reference": call.reference, "amount": call.amount.amount_minor}
        try:
            body = await self._call("POST", f"{_path(call.target)}/refunds", WRITE, payload=payload)
        except GatewayRejected as refusal:
            if isinstance(refusal, GatewayObjectNotFound) and not refusal.after_silence:
                raise
            # LOOK UP whether it refuses what is done already; and a try before this one may have run unanswered.
            return await found_or_refused(refusal, lambda: self.find_operation(call))
        return _understood(lambda: _outcome_of(body, call))

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        payment = await self._call("GET", _path(call.target), READ)
        refunds = _understood(lambda: _list_of(payment, "refunds"))
        ours = next((each for each in refunds if each.get("reference") == call.reference), None)
        return None if ours is None else _understood(lambda: _outcome_of(ours, call))

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        query = {"created_from": to_rfc3339(since), "created_before": to_rfc3339(until)}
        body = await self._call("GET", "/v1/payments", READ, query=query | ({"cursor": cursor} if cursor else {}))
        return _understood(lambda: _page_of(body))

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        """LOOK UP its events. Here each tells the whole payment; one that tells less has ``must_ask``."""
        try:
            body = parse_json_object(delivery.payload)
            event_type, payment = identifier_of(body, "type"), object_of(body, "payment")
            if not payment:
                return GatewayEvent(event_type, ignored="it is not about a payment")
            snapshot, ours = _snapshot_of(payment), (identifier_of(payment, "reference"),)
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error
        facts = snapshot.observations
        return GatewayEvent(event_type, snapshot.references, ours, facts, must_ask=not facts)

    async def _find(self, our_reference: str) -> Json:
        """Raises GatewayObjectNotFound."""
        body = await self._call("GET", "/v1/payments", READ, query={"reference": our_reference})
        for payment in _understood(lambda: _list_of(body, "payments")):
            if payment.get("reference") == our_reference:
                return payment
        raise GatewayObjectNotFound("the gateway knows no payment with our reference")

    async def _call(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        *,
        payload: Json | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """LOOK UP how it knows us. A header for idempotency keys goes here too, with ``call.idempotency_key``."""
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        content = None if payload is None else json.dumps(payload).encode()
        url = self._base + path
        return _body_of(
            await self._http.send(method, url, policy=policy, headers=headers, params=query, content=content)
        )


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    """LOOK UP its errors: only what proves that nothing moved is a GatewayRejected. 5xx and 429 are in shared/http."""
    if answer.status in (401, 403):
        raise GatewayUnavailable("the gateway refuses our key; check NEWPAY_SECRET_KEY")
    try:
        body = parse_json_object(answer.body)
        code = optional_identifier(body, "error")
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not JSON") from error
    if answer.status in (200, 201):
        return body
    if code is None:  # a refusal that is not the gateway's own, but of something before it
        raise GatewayOutcomeUnknown("the gateway's answer is not understood")
    kind = GatewayObjectNotFound if answer.status == 404 else GatewayRejected
    raise kind(f"the gateway refused ({code})", gateway_code=code, after_silence=answer.after_silence)


def _session_of(payment: Json, request: CreateSession) -> Session:
    url, snapshot = optional_web_address(payment, "page_url"), _snapshot_of(payment)
    if url is None or payment.get("reference") != request.reference or _money_of(payment) != request.amount:
        raise UnexpectedShape("it is not the page that was asked for")
    action, [reference] = NextAction("redirect", url), snapshot.references
    return Session(reference, action, _moment_of(payment, "expires_at"), (reference,), snapshot.observations)


def _snapshot_of(payment: Json) -> Snapshot:
    """Amounts are the gateway's own word, never ours: so a wrong one shows."""
    reference, kind = identifier_of(payment, "id"), STATUS.get(text_of(payment, "status"))
    facts = []
    if kind is not None:
        amount = _money_of(payment) if kind is FactKind.CAPTURED else None
        facts.append(Observation(kind, reference, amount, reason=optional_identifier(payment, "failure_code")))
    facts += [
        Observation(
            REFUND_STATUS[status][0],
            identifier_of(refund, "id"),
            _money_of(refund),
            reason=optional_identifier(refund, "failure_code"),
            about=reference,
            operation=optional_identifier(refund, "reference"),  # None: made in the gateway's dashboard
        )
        for refund in _list_of(payment, "refunds")
        if (status := text_of(refund, "status")) in REFUND_STATUS
    ]
    return Snapshot((reference,), tuple(facts))


def _outcome_of(refund: Json, call: MoneyCall) -> Outcome:
    _, status = REFUND_STATUS.get(text_of(refund, "status"), (None, None))
    if status is None or refund.get("reference") != call.reference or _money_of(refund) != call.amount:
        raise UnexpectedShape("it is not the refund that was asked for")
    return Outcome(status, identifier_of(refund, "id"), optional_identifier(refund, "failure_code"))


def _page_of(body: Json) -> ListPage:
    return ListPage(tuple(map(_listed, _list_of(body, "payments"))), optional_identifier(body, "next_cursor"))


def _listed(payment: Json) -> Listed:
    ours = optional_identifier(payment, "reference")
    return Listed(
        (identifier_of(payment, "id"),),
        (ours,) if ours else (),
        said(lambda: _snapshot_of(payment).observations),
        _moment_of(payment, "created_at"),
    )


def _list_of(source: Json, key: str) -> list[Json]:
    """Nothing found in nonsense proves nothing, so the list has to be there."""
    if key not in source:
        raise UnexpectedShape(f"{key} is missing")
    return entries_of(source, key)


def _money_of(source: Json) -> Money:
    """LOOK UP how amounts are written: here as whole numbers of minor units. A float never holds one."""
    amount = sane(Money(whole_number(source, "amount"), text_of(source, "currency")))
    if amount.amount_minor < 0:
        raise UnexpectedShape("a negative amount")
    return amount


def _moment_of(source: Json, key: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text_of(source, key))
    except ValueError as error:
        raise UnexpectedShape(f"{key} is not a time") from error
    if moment.tzinfo is None:
        raise UnexpectedShape(f"{key} has no zone")
    return moment


def _path(reference: str) -> str:
    return f"/v1/payments/{quote(reference, safe='')}"


DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=NewPaySettings,
    build=lambda settings, tools: NewPay(settings, tools.http),
    sheet=Sheet(
        regions="made up",
        amounts="whole numbers in the currency's minor units",
        settlement="CSV, whole numbers in minor units and UTC times",
        documented="the skeleton's own made-up contract",
        unconfirmed=("everything: nothing of this has been compared with a gateway's documentation yet",),
    ),
)
