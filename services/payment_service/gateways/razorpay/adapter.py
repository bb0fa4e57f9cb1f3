"""Razorpay: Payment Links where the money is taken at once, Orders with the hosted checkout where it is held first.

Quirks and sources: ../razorpay.md. Amounts: integers in sub-units, equal to ISO 4217's for every currency offered.
Keys: only refunds have one (``X-Refund-Idempotency``); links are unique by ``reference_id``, captures by what they
capture. Webhooks: HMAC-SHA256 over the raw body, verified by webhook_ingest. The browser's return carries a signature
of its own, which is never needed: the return is only a reason to ask.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from pydantic import Field, SecretStr

from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import AccountSettings
from services.payment_service.gateways.json_reading import (
    Understood,
    UnexpectedShape,
    identifier_of,
    optional_web_address,
    parse_json_object,
)
from services.payment_service.gateways.looking import certain, found_or_refused
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    ListPage,
    MoneyCall,
    Outcome,
    OutcomeStatus,
    Session,
    SettlementReport,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.razorpay import webhooks
from services.payment_service.gateways.razorpay.api import (
    GUARDED_WRITE,
    UNGUARDED_WRITE,
    AlreadyDone,
    Json,
    RazorpayApi,
    entries_of,
    segment,
)
from services.payment_service.gateways.razorpay.listing import orders_of_window
from services.payment_service.gateways.razorpay.reading import (
    CURRENCIES,
    moment_of,
    money_of,
    observations_of_payment,
    refund_observation,
    to_razorpay_minor,
    was_captured,
)
from services.payment_service.gateways.razorpay.report import settlement_reports
from services.payment_service.gateways.razorpay.retrieving import Retriever
from services.payment_service.gateways.refusing import WithoutCompletion
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    InvalidAmount,
)
from shared.http import HttpCaller
from shared.money import Money

_understood = Understood("Razorpay")

LONGEST_NOTE = 250
"""The documents name 255 and 256 characters in different places."""

HOLD_MINUTES = 7200
"""Sent so that the account's own setting cannot shorten it; the longest that there is."""

_REFUND_STATUS = {
    FactKind.REFUND_PENDING: OutcomeStatus.PENDING,
    FactKind.REFUND_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    FactKind.REFUND_FAILED: OutcomeStatus.FAILED,
}


class RazorpaySettings(AccountSettings):
    key_id: str = Field(description="rzp_test_… or rzp_live_…; Razorpay is enabled when id and secret are set")
    key_secret: SecretStr
    api_base: str = "https://api.razorpay.com"
    checkout_base: str | None = None
    """Where browsers reach it, if not there: a sandbox in a container has an inner and an outer address."""


class Razorpay(WithoutCompletion):
    facts = Facts(
        name="razorpay",
        display_name="Razorpay",
        capabilities=frozenset(
            {
                Capability.REDIRECT,
                Capability.FORM_POST,
                Capability.MANUAL_CAPTURE,
                Capability.REFUND,
                Capability.PARTIAL_REFUND,
                Capability.CLOSE_SESSION,
                Capability.RETRIEVE,
                Capability.FIND_BY_REFERENCE,
                Capability.LIST_BY_WINDOW,
                Capability.SETTLEMENT_REPORT,
                Capability.DISPUTES,
            }
        ),
        not_offered={
            Capability.PARTIAL_CAPTURE: "it captures the whole amount or nothing",
            Capability.SEVERAL_CAPTURES: "a payment is captured once",
            Capability.VOID: "a hold cannot be released, it ends by itself",
        },
        blurb="UPI, cards, net banking and wallets",
        currencies=CURRENCIES,
        # One page says five days, others say three: what is captured within three is safe by either.
        authorization_valid_for=timedelta(days=3),
        # How long a refund's key lives is documented nowhere. An hour is longer than our own retries take and far below
        # what any gateway keeps; after it a refund is only looked for, by its receipt, and not sent again.
        key_valid_for=timedelta(hours=1),
        # Lists are served from the same books and show a refund within seconds; two hours leave room for a bad day.
        absence_proves_after=timedelta(hours=2),
    )

    def __init__(self, settings: RazorpaySettings, http: HttpCaller) -> None:
        self._api = RazorpayApi(settings.key_id, settings.key_secret.get_secret_value(), settings.api_base, http)
        self._checkout_base = (settings.checkout_base or settings.api_base).rstrip("/")
        self._retriever = Retriever(self._api)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        to_razorpay_minor(amount)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        to_razorpay_minor(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """Links capture by themselves, and whether they can be told not to is not documented: held money needs an
        order."""
        if request.capture is CaptureMode.MANUAL:
            return await self._create_order(request, repeated=repeated)
        return await self._create_link(request, repeated=repeated)

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        return await self._retriever.retrieve(references, our_reference=our_reference)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """A link is cancelled. An order cannot be: its page is not shown any more, and whoever still pays on an old one
        is found by webhook or sweep and treated as late (order policy)."""
        if gateway_reference.startswith("order_"):
            return await self._retriever.close_order(gateway_reference, our_reference=our_reference)
        path = f"/payment_links/{segment(gateway_reference)}/cancel"
        try:
            link = await self._api.post(path, {}, GUARDED_WRITE)
        except GatewayObjectNotFound:
            raise
        except GatewayRejected:  # only an unpaid one can be cancelled: see what became of it
            return await self.retrieve((gateway_reference,), our_reference=our_reference)
        if link.get("status") != "cancelled":  # it answered, but not that the page is gone: we have not closed it
            return await self.retrieve((gateway_reference,), our_reference=our_reference)
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        return Snapshot((gateway_reference,), (closed,))

    async def _create_link(self, request: CreateSession, *, repeated: bool) -> Session:
        """Our reference is the link's ``reference_id``, which is unique: a second creation finds the first one's link.

        Where Razorpay remembers the reference but has no link for it, the reference is used up (GatewayRejected). That
        is safe even if the link turns up later: nobody was ever told its address, and it expires by itself.
        """
        try:
            link: Json = await self._api.post("/payment_links", _link_json(request), GUARDED_WRITE)
        except AlreadyDone as error:
            found = await certain(lambda: self._find_link(request.reference))
            if found is None:
                if not repeated or error.after_silence:
                    raise GatewayOutcomeUnknown(
                        "a link with this reference is being made, but not there yet"
                    ) from error
                raise
            link = found
        except GatewayRejected as refusal:
            if refusal.after_silence:
                raise GatewayOutcomeUnknown("refused, but an earlier try had no answer") from refusal
            raise
        return await self._session_of_link(link, request)

    async def _find_link(self, reference: str) -> Json | None:
        body = await self._api.get("/payment_links", {"reference_id": reference})
        return next((e for e in entries_of(body, ("payment_links",)) if e.get("reference_id") == reference), None)

    async def _session_of_link(self, link: Json, request: CreateSession) -> Session:
        reference = _understood(lambda: _require_ours(link, "reference_id", request), "link")
        url = _understood(lambda: optional_web_address(link, "short_url"), "link")
        observations: tuple[Observation, ...] = (Observation(FactKind.SESSION_OPENED, reference),)
        references: tuple[str, ...] = (reference,)
        if link.get("status") != "created":  # adopted after it was paid or ended: nothing to show any more
            snapshot = await self._retriever.retrieve((reference,), our_reference=request.reference)
            url, references = request.return_url, snapshot.references
            observations = (*observations, *snapshot.observations)
        if url is None:
            raise GatewayOutcomeUnknown("Razorpay's link has no address")
        return Session(reference, NextAction("redirect", url), _expiry(link, request), references, observations)

    async def _create_order(self, request: CreateSession, *, repeated: bool) -> Session:
        """Whether receipts are really unique is not documented, so an order is looked for before it is made again. One
        that is overlooked can do no harm: only a page that we show can be paid, and it names its order."""
        order = await self._find_order(request.reference) if repeated else None
        if order is None:
            try:
                order = await self._api.post("/orders", _order_json(request), UNGUARDED_WRITE)
            except AlreadyDone:
                order = await self._find_order(request.reference)
                if order is None:
                    raise
        return await self._session_of_order(order, request)

    async def _find_order(self, receipt: str) -> Json | None:
        body = await self._api.get("/orders", {"receipt": receipt})
        return next((entry for entry in entries_of(body) if entry.get("receipt") == receipt), None)

    async def _session_of_order(self, order: Json, request: CreateSession) -> Session:
        reference = _understood(lambda: _require_ours(order, "receipt", request), "order")
        opened = Observation(FactKind.SESSION_OPENED, reference)
        if order.get("status") != "created":
            snapshot = await self._retriever.retrieve((reference,), our_reference=request.reference)
            if any(o.kind in (FactKind.AUTHORIZED, FactKind.CAPTURED) for o in snapshot.observations):
                back = NextAction("redirect", request.return_url)
                return Session(
                    reference, back, request.expires_at, snapshot.references, (opened, *snapshot.observations)
                )
        url = f"{self._checkout_base}/v1/checkout/embedded"
        action = NextAction("form_post", url, _checkout_fields(reference, request, self._api.key_id))
        return Session(reference, action, request.expires_at, (reference,), (opened,))

    # --- money -----------------------------------------------------------------------------------------------------

    async def capture(self, call: MoneyCall) -> Outcome:
        """The whole amount, once. To capture what is captured already is refused, so repeating the call is safe."""
        if not call.is_whole:
            raise GatewayRejected("Razorpay captures the whole amount or nothing", gateway_code="partial_capture")
        payload = {"amount": to_razorpay_minor(call.amount), "currency": call.amount.currency}
        try:
            payment: Json = await self._api.post(f"/payments/{segment(call.target)}/capture", payload, GUARDED_WRITE)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal)
        outcome = _understood(lambda: _capture_outcome(payment, call), "payment")
        if outcome is None:  # it answered, but not that it is captured
            raise GatewayOutcomeUnknown("Razorpay took the capture and does not show it")
        return outcome

    async def refund(self, call: MoneyCall) -> Outcome:
        """Two guards against paying twice: the key, and the receipt by which it is looked for after a refusal."""
        payload = {
            "amount": to_razorpay_minor(call.amount),
            "speed": "normal",
            "receipt": call.reference,
            "notes": _notes(payment_id=call.payment_id, order_id=call.order_id, reason=call.reason),
        }
        headers = {"x-refund-idempotency": call.idempotency_key}
        try:
            refund: Json = await self._api.post(
                f"/payments/{segment(call.target)}/refund", payload, GUARDED_WRITE, headers=headers
            )
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal)
        return _understood(lambda: _refund_outcome(refund, call), "refund")

    async def void(self, call: MoneyCall) -> Outcome:
        raise GatewayRejected("Razorpay cannot release a hold; it ends by itself", gateway_code="void_not_offered")

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where Razorpay does not even know what it takes from: with the keys of another
        account or mode that proves nothing."""
        try:
            if call.kind is OperationKind.REFUND:
                return await self._find_refund(call)
            if call.kind is OperationKind.CAPTURE:
                payment = await self._api.get(f"/payments/{segment(call.target)}")
                return _understood(lambda: _capture_outcome(payment, call), "payment")
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("Razorpay refuses to say what became of it") from error
        return None  # a void or a completion is never sent, so there is none to be found

    async def _find_refund(self, call: MoneyCall) -> Outcome | None:
        path = f"/payments/{segment(call.target)}/refunds"

        def is_ours(refund: Json) -> bool:
            return refund.get("receipt") == call.reference

        refunds = await self._api.collect(path, {}, until=is_ours)
        found = next((refund for refund in refunds if is_ours(refund)), None)
        return None if found is None else _understood(lambda: _refund_outcome(found, call), "refund")

    async def _done_already(self, call: MoneyCall, refusal: GatewayRejected) -> Outcome:
        """What is there after a refusal, which may be about an earlier call. No key holds an earlier try back.

        An object that Razorpay does not know was not taken from by this call: then there is nothing to look for.
        """
        if isinstance(refusal, GatewayObjectNotFound) and not refusal.after_silence:
            raise refusal
        return await found_or_refused(refusal, lambda: self.find_operation(call))

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return await orders_of_window(self._api, since, until, cursor)

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        return await settlement_reports(self._api, day)

    # --- webhooks --------------------------------------------------------------------------------------------------

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return webhooks.translate(parse_json_object(delivery.payload))
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error


def _link_json(request: CreateSession) -> Json:
    """Only documented fields, and no nulls: Razorpay refuses what it does not know. No message to the shopper goes out
    but ours."""
    customer = {"name": request.customer.name, "email": request.customer.email, "contact": request.customer.phone}
    return {
        "amount": to_razorpay_minor(request.amount),
        "currency": request.amount.currency,
        "accept_partial": False,
        "reference_id": request.reference,
        "description": request.description[:2048],
        "customer": {key: value for key, value in customer.items() if value},
        "notify": {"sms": False, "email": False},
        "reminder_enable": False,
        "expire_by": int(request.expires_at.timestamp()),
        "notes": _session_notes(request),
        "callback_url": request.return_url,
        "callback_method": "get",
    }


def _order_json(request: CreateSession) -> Json:
    return {
        "amount": to_razorpay_minor(request.amount),
        "currency": request.amount.currency,
        "receipt": request.reference,
        "notes": _session_notes(request),
        "partial_payment": False,
        "payment": {
            "capture": "manual",
            "capture_options": {"manual_expiry_period": HOLD_MINUTES, "refund_speed": "normal"},
        },
    }


def _checkout_fields(order_id: str, request: CreateSession, key_id: str) -> dict[str, str]:
    """What the browser posts. It holds no secret, and no notes of ours: what comes from a browser proves nothing."""
    return {
        "key_id": key_id,
        "order_id": order_id,
        "amount": str(to_razorpay_minor(request.amount)),
        "currency": request.amount.currency,
        "name": request.description[:255],
        "description": request.description[:255],
        "prefill[name]": request.customer.name,
        "prefill[email]": request.customer.email,
        "prefill[contact]": request.customer.phone or "",
        "callback_url": request.return_url,
        "cancel_url": request.cancel_url,
    }


def _session_notes(request: CreateSession) -> dict[str, str]:
    return _notes(order_ref=request.reference, payment_id=request.payment_id, order_id=request.order_id)


def _notes(**notes: str | None) -> dict[str, str]:
    return {key: value[:LONGEST_NOTE] for key, value in notes.items() if value}


def _require_ours(body: Json, key: str, request: CreateSession) -> str:
    """An answer without id, of another amount or with another reference is not what we asked for (failure H14)."""
    reference = identifier_of(body, "id")
    if money_of(body) != request.amount or body.get(key) != request.reference:
        raise UnexpectedShape("it is about another payment")
    return reference


def _expiry(link: Json, request: CreateSession) -> datetime:
    return moment_of(link, "expire_by") or request.expires_at


def _capture_outcome(payment: Json, call: MoneyCall) -> Outcome | None:
    """None while it is only held. A hold that was let go has nothing left to take, and that is final."""
    reference = identifier_of(payment, "id")
    if reference != call.target or money_of(payment) != call.amount:
        raise UnexpectedShape("it is about another payment")
    observations = tuple(observations_of_payment(payment))
    if was_captured(payment):
        return Outcome(OutcomeStatus.SUCCEEDED, reference, observations=observations)
    if payment.get("status") == "refunded":
        return Outcome(OutcomeStatus.FAILED, reference, "authorization_expired", observations=observations)
    return None


def _refund_outcome(refund: Json, call: MoneyCall) -> Outcome:
    if refund.get("payment_id") != call.target or money_of(refund) != call.amount:
        raise UnexpectedShape("it is another refund")
    if refund.get("receipt") not in (None, call.reference):
        raise UnexpectedShape("it is another refund")
    observation = refund_observation(refund)
    status = _REFUND_STATUS[observation.kind]
    return Outcome(status, observation.object_reference, observation.reason, observations=(observation,))
