"""Stripe, API version 2026-06-24.dahlia: hosted Checkout Sessions. Quirks and sources: stripe.md.

Amounts: integers in Stripe's own minor units, lower-case currency. Keys: ``Idempotency-Key``, kept at least 24 h,
replayed with the first answer. Webhooks: HMAC-SHA256 over timestamp and raw body, verified by webhook_ingest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
    optional_text,
    optional_web_address,
    parse_json_object,
    sane,
    text_of,
    whole_number,
)
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    Session,
    Snapshot,
    UnreadableWebhook,
)
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
    InvalidAmount,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.money import CURRENCY_EXPONENT, Money

API_VERSION = "2026-06-24.dahlia"

# Stripe's exponents where they are not ISO 4217's: these two have no usable decimals but are sent times 100; Malagasy
# ariary is sent whole.
STRIPE_EXPONENT: Mapping[str, int] = {**CURRENCY_EXPONENT, "ISK": 2, "UGX": 2, "MGA": 0}
_WHOLE_HUNDREDS = frozenset({"ISK", "UGX"})

CREATE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)  # the idempotency key makes repeating safe
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)
CLOSE = CallPolicy(budget_seconds=15, attempts=3, repeatable=True)  # expiring twice is refused, and then we look

STORED_FAILURE = 500
"""Other 5xx come from what stands before Stripe and say nothing about the key."""

LOOK_BACK = timedelta(minutes=10)
"""How far Stripe's clock may be behind ours."""

MOST_PAGES = 50

_INTENT_CLOSED: Mapping[str, FactKind] = {"automatic": FactKind.EXPIRED, "expired": FactKind.EXPIRED}


@dataclass(frozen=True, slots=True)
class StripeSettings:
    api_key: str
    api_base: str = "https://api.stripe.com"


class Stripe:
    facts = Facts(
        name="stripe",
        display_name="Stripe",
        capabilities=frozenset(
            {Capability.REDIRECT, Capability.MANUAL_CAPTURE, Capability.CLOSE_SESSION, Capability.RETRIEVE}
        ),
        currencies=None,
    )

    def __init__(self, settings: StripeSettings, http: HttpCaller) -> None:
        self._base = settings.api_base.rstrip("/")
        self._key = settings.api_key
        self._live = settings.api_key.startswith(("sk_live_", "rk_live_"))
        self._http = http

    def check(self, amount: Money, capture: CaptureMode) -> None:
        to_stripe_minor(amount)

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """A repeated call carries the same key and body, and Stripe answers it with the session that it made at first.

        But it also stores a 500 under the key and replays it, whether or not the session was made: then the session is
        looked for, and if there is none the key is used up and a new attempt is needed (GatewayRejected).
        """
        form = _session_form(request)
        try:
            body = await self._call("POST", "/v1/checkout/sessions", CREATE, form=form, key=request.idempotency_key)
        except GatewayServerError as error:
            if not repeated or error.gateway_status != STORED_FAILURE:
                raise
            found = await self._find_session(request)
            if found is None:
                raise GatewayRejected("Stripe has stored a failure for this attempt; a new one is needed") from error
            body = found
        return self._read_session(body, request)

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        session = next((reference for reference in references if reference.startswith("cs_")), None)
        if session is not None:
            path = f"/v1/checkout/sessions/{quote(session, safe='')}"
            body = await self._call("GET", path, READ, query={"expand[]": "payment_intent"})
            return self._read(self._snapshot_of_session, body)
        intent = next((reference for reference in references if reference.startswith("pi_")), None)
        if intent is None:
            raise GatewayObjectNotFound("no Stripe object of this payment is known")
        body = await self._call("GET", f"/v1/payment_intents/{quote(intent, safe='')}", READ)
        return self._read(self._snapshot_of_intent, body)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        path = f"/v1/checkout/sessions/{quote(gateway_reference, safe='')}/expire"
        try:
            body = await self._call("POST", path, CLOSE, form={"expand[0]": "payment_intent"})
        except GatewayObjectNotFound:
            raise
        except GatewayRejected:  # only an open session can be expired: see what became of this one
            return await self.retrieve((gateway_reference,), our_reference=our_reference)
        snapshot = self._read(self._snapshot_of_session, body)
        if body.get("status") != "expired":
            return snapshot  # it answered, but not that the page is gone: then we have not closed it
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (*_without_expiry(snapshot.observations), closed))

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return self._translate(parse_json_object(delivery.payload))
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error

    async def _find_session(self, request: CreateSession) -> dict[str, Any] | None:
        """The session with our reference among those made since the attempt. Lists are consistent, searches are not."""
        since = int((request.attempted_at - LOOK_BACK).timestamp())
        query = {"limit": "100", "created[gte]": str(since)}
        for _ in range(MOST_PAGES):
            page = await self._call("GET", "/v1/checkout/sessions", READ, query=query)
            try:
                sessions = _entries(page)
                for session in sessions:
                    if session.get("client_reference_id") == request.reference:
                        return session
                if not page.get("has_more") or not sessions:
                    return None
                query["starting_after"] = identifier_of(sessions[-1], "id")
            except UnexpectedShape as error:  # nothing found in nonsense is no proof that there is nothing
                raise GatewayOutcomeUnknown("Stripe's list is not understood") from error
        raise GatewayOutcomeUnknown("too many sessions were made since to look through them all")

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read_session(self, body: Mapping[str, Any], request: CreateSession) -> Session:
        """An answer without id, without page, of another amount or another mode is not the session we asked for
        (H14)."""
        try:
            reference, amount = identifier_of(body, "id"), _stripe_money(body, "amount_total")
            self._require_own_mode(body)
            if amount != request.amount:
                raise UnexpectedShape("the session is about another amount")
            url = optional_web_address(body, "url")
            expires_at = _moment(body.get("expires_at"))
            if expires_at is None:
                raise UnexpectedShape("expires_at is not a time")
            snapshot = self._snapshot_of_session(body)
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("Stripe's answer is not a session that we can use") from error
        if url is None:  # replayed under its key after it was paid or closed: nothing to show the shopper any more
            url = request.return_url
        observations = (Observation(FactKind.SESSION_OPENED, reference), *snapshot.observations)
        return Session(reference, NextAction("redirect", url), expires_at, snapshot.references, observations)

    def _read(self, reader: Any, body: Mapping[str, Any]) -> Snapshot:
        try:
            self._require_own_mode(body)
            snapshot: Snapshot = reader(body)
        except (UnexpectedShape, InvalidAmount, ValueError) as error:
            raise GatewayOutcomeUnknown("Stripe's answer is not understood") from error
        return snapshot

    def _snapshot_of_session(self, session: Mapping[str, Any]) -> Snapshot:
        """The fact sheet's table, top to bottom, with the intent expanded."""
        reference = identifier_of(session, "id")
        raw_intent = session.get("payment_intent")
        intent = raw_intent if isinstance(raw_intent, dict) else {}
        references = [reference, *([raw_intent] if isinstance(raw_intent, str) else [])]
        # Only a completed page leaves the shopper no other try; what an expired one leaves behind is no failure.
        may_try_again = session.get("status") != "complete"
        observations = list(_observations_of_intent(intent, session_open=may_try_again)) if intent else []
        if intent:
            references.append(identifier_of(intent, "id"))
        if session.get("status") == "expired":
            observations.append(Observation(FactKind.EXPIRED, reference))
        if session.get("status") == "open":
            observations.append(Observation(FactKind.SESSION_OPENED, reference))
        if isinstance(raw_intent, str) and session.get("status") == "complete" and _is_paid(session):
            observations += _paid_session(session, raw_intent)
        return Snapshot(tuple(references), tuple(observations))

    def _snapshot_of_intent(self, intent: Mapping[str, Any]) -> Snapshot:
        # Without the session it is not known whether the shopper can still try again, so a failure stays a decline.
        return Snapshot((identifier_of(intent, "id"),), tuple(_observations_of_intent(intent, session_open=True)))

    def _require_own_mode(self, body: Mapping[str, Any]) -> None:
        if body.get("livemode") is not self._live:
            raise UnexpectedShape("test and live mode are mixed")

    # --- webhooks --------------------------------------------------------------------------------------------------

    def _translate(self, event: Mapping[str, Any]) -> GatewayEvent:
        event_type = identifier_of(event, "type")
        if event.get("object") != "event":
            raise UnexpectedShape("not an event of Stripe's API v1")
        if event.get("livemode", self._live) is not self._live:
            return GatewayEvent(event_type, ignored="other_mode")  # failure W15
        subject = object_of(object_of(event, "data"), "object")
        occurred_at = _moment(event.get("created"))
        if event_type.startswith("checkout.session."):
            return self._translate_session(event_type, subject, occurred_at)
        if event_type.startswith("payment_intent."):
            return _translate_intent(event_type, subject, occurred_at)
        if event_type == "charge.expired":
            intent = identifier_of(subject, "payment_intent")
            lapsed = Observation(FactKind.EXPIRED, intent, occurred_at=occurred_at)
            return GatewayEvent(event_type, (intent,), _ours(object_of(subject, "metadata"), None), (lapsed,))
        return GatewayEvent(event_type, ignored="event_type_not_used")

    def _translate_session(self, event_type: str, session: Mapping[str, Any], at: datetime | None) -> GatewayEvent:
        reference, intent = identifier_of(session, "id"), _intent_id(session)
        references = (reference, *((intent,) if intent else ()))
        metadata = object_of(session, "metadata")
        ours = _ours(metadata, optional_identifier(session, "client_reference_id"))
        observations: list[Observation] = []
        must_ask = False
        if event_type in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
            if intent and _is_paid(session):
                observations = _paid_session(session, intent, at)
            else:
                must_ask = True
        elif event_type == "checkout.session.async_payment_failed":
            observations = [Observation(FactKind.FAILED, reference, occurred_at=at, reason="async_payment_failed")]
        elif event_type == "checkout.session.expired":
            observations = [Observation(FactKind.EXPIRED, reference, occurred_at=at)]
        else:
            return GatewayEvent(event_type, ignored="event_type_not_used")
        return GatewayEvent(event_type, references, ours, tuple(observations), must_ask)

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        *,
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._key}", "stripe-version": API_VERSION}
        if key is not None:
            headers["idempotency-key"] = key
        content = None
        if form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            content = urlencode(form).encode()
        answer = await self._http.send(
            method, self._base + path, policy=policy, headers=headers, params=query, content=content
        )
        return _body_of(answer)


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON of a success, or the error class that the status means (fact sheet §1)."""
    if answer.status in (401, 403):
        # A rotated or restricted key: nothing moved, and no payment may be failed for it (failure H9).
        raise GatewayUnavailable("Stripe refuses our API key; check STRIPE_API_KEY")
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("Stripe's address answered with a redirect, which is not followed")
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("Stripe's answer is not JSON") from error
    if 200 <= answer.status < 300:
        return body
    problem = body.get("error")
    code = problem.get("code") or problem.get("type") if isinstance(problem, dict) else None
    code = code if isinstance(code, str) else None
    kind = problem.get("type") if isinstance(problem, dict) else None
    if answer.status == 409 or kind == "idempotency_error":
        # Our own earlier call with this key lives; a new key now could make a second payable page (failure H10).
        raise GatewayOutcomeUnknown("Stripe has had an earlier call with this key")
    if answer.status == 404:
        raise GatewayObjectNotFound("Stripe does not know this object", gateway_code=code)
    if code == "rate_limit":  # Stripe says it with 400 too
        raise GatewayUnavailable("Stripe limits our rate")
    raise GatewayRejected(f"Stripe refused the request ({code or answer.status})", gateway_code=code)


def _session_form(request: CreateSession) -> dict[str, str]:
    metadata = {
        "order_ref": request.reference,
        "order_id": request.order_id,
        "payment_id": request.payment_id,
        "capture": request.capture.value,
    }
    form = {
        "mode": "payment",
        "client_reference_id": request.reference,
        "success_url": request.return_url,
        "cancel_url": request.cancel_url,
        "expires_at": str(int(request.expires_at.timestamp())),
        "customer_email": request.customer.email,
        "payment_intent_data[capture_method]": "manual" if request.capture is CaptureMode.MANUAL else "automatic",
        "payment_intent_data[description]": request.description,
    }
    for key, value in metadata.items():
        form[f"metadata[{key}]"] = value  # Stripe does not copy the session's metadata to the intent: set both
        form[f"payment_intent_data[metadata][{key}]"] = value
    for index, (name, quantity, unit_amount) in enumerate(_lines(request)):
        prefix = f"line_items[{index}]"
        form[f"{prefix}[quantity]"] = str(quantity)
        form[f"{prefix}[price_data][currency]"] = request.amount.currency.lower()
        form[f"{prefix}[price_data][unit_amount]"] = str(unit_amount)
        form[f"{prefix}[price_data][product_data][name]"] = name
    return form


def _lines(request: CreateSession) -> Iterator[tuple[str, int, int]]:
    """The order's lines, if they add up to the amount (Stripe charges their sum); else one line with the amount."""
    total = sum(item.quantity * item.unit_amount_minor for item in request.items)
    if total != request.amount.amount_minor or not 0 < len(request.items) <= 100:
        yield request.description, 1, to_stripe_minor(request.amount)
        return
    for item in request.items:
        yield item.name[:250], item.quantity, to_stripe_minor(Money(item.unit_amount_minor, request.amount.currency))


def to_stripe_minor(amount: Money) -> int:
    """Stripe's integer for an amount of ours. Raises CurrencyNotSupported where Stripe cannot charge it exactly."""
    scaled = amount.as_major().scaleb(STRIPE_EXPONENT[amount.currency])
    if scaled != scaled.to_integral_value():
        raise CurrencyNotSupported(f"Stripe takes whole {amount.currency} only")
    minor = int(scaled)
    if amount.currency in _WHOLE_HUNDREDS and minor % 100:
        raise CurrencyNotSupported(f"Stripe takes whole {amount.currency} only")
    if CURRENCY_EXPONENT[amount.currency] == 3 and minor % 10:
        raise CurrencyNotSupported(f"Stripe takes {amount.currency} with two decimals only")
    return minor


def _stripe_money(source: Mapping[str, Any], key: str) -> Money:
    currency = text_of(source, "currency").upper()
    if currency not in CURRENCY_EXPONENT:
        raise UnexpectedShape("unknown currency")
    major = Decimal(whole_number(source, key)).scaleb(-STRIPE_EXPONENT[currency])
    return sane(Money.from_major(major, currency))


def _observations_of_intent(
    intent: Mapping[str, Any], *, session_open: bool, at: datetime | None = None
) -> Iterator[Observation]:
    reference, status = identifier_of(intent, "id"), text_of(intent, "status")
    if status == "succeeded":
        yield Observation(FactKind.CAPTURED, reference, _stripe_money(intent, "amount_received"), at)
    elif status == "requires_capture":
        yield Observation(FactKind.AUTHORIZED, reference, _stripe_money(intent, "amount_capturable"), at)
        if whole_number(intent, "amount_received") > 0:
            yield Observation(FactKind.CAPTURED, reference, _stripe_money(intent, "amount_received"), at)
    elif status == "canceled":
        kind = _INTENT_CLOSED.get(optional_text(intent, "cancellation_reason") or "", FactKind.CANCELED)
        yield Observation(kind, reference, occurred_at=at)
    elif status == "processing":
        yield Observation(FactKind.PROCESSING, reference, occurred_at=at)
    elif status == "requires_payment_method":
        declined = object_of(intent, "last_payment_error")
        reason = optional_identifier(declined, "decline_code") or optional_identifier(declined, "code")
        if not session_open:
            yield Observation(FactKind.FAILED, reference, occurred_at=at, reason=reason)
        elif declined:
            yield Observation(FactKind.DECLINED, reference, occurred_at=at, reason=reason or "declined")


def _is_paid(session: Mapping[str, Any]) -> bool:
    """With manual capture the session's payment_status does not tell held from taken: only the intent does."""
    automatic = object_of(session, "metadata").get("capture") == CaptureMode.AUTOMATIC.value
    return automatic and session.get("payment_status") == "paid"


def _paid_session(session: Mapping[str, Any], intent: str, at: datetime | None = None) -> list[Observation]:
    """Keyed by the intent, so that it is the same fact as the intent's own success."""
    return [Observation(FactKind.CAPTURED, intent, _stripe_money(session, "amount_total"), at)]


_INTENT_EVENTS = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.amount_capturable_updated",
        "payment_intent.canceled",
        "payment_intent.payment_failed",
        "payment_intent.processing",
    }
)


def _translate_intent(event_type: str, intent: Mapping[str, Any], at: datetime | None) -> GatewayEvent:
    if event_type not in _INTENT_EVENTS:
        return GatewayEvent(event_type, ignored="event_type_not_used")
    ours = _ours(object_of(intent, "metadata"), None)
    # A failed try is not a failed payment while the page is open, and the intent does not say whether it is.
    observations = tuple(_observations_of_intent(intent, session_open=True, at=at))
    return GatewayEvent(event_type, (identifier_of(intent, "id"),), ours, observations)


def _without_expiry(observations: tuple[Observation, ...]) -> tuple[Observation, ...]:
    """Stripe shows a session that we closed as expired; that it was us is the better fact."""
    return tuple(o for o in observations if o.kind is not FactKind.EXPIRED)


def _entries(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = page.get("data")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnexpectedShape("data is not a list of objects")
    return entries


def _intent_id(session: Mapping[str, Any]) -> str | None:
    intent = session.get("payment_intent")
    return (
        optional_identifier(intent, "id")
        if isinstance(intent, dict)
        else optional_identifier(session, "payment_intent")
    )


def _ours(metadata: Mapping[str, Any], client_reference: str | None) -> tuple[str, ...]:
    found = (optional_identifier(metadata, "payment_id"), optional_identifier(metadata, "order_ref"), client_reference)
    return tuple(dict.fromkeys(reference for reference in found if reference))


def _moment(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if type(seconds) is int and 0 < seconds < 10**11 else None
