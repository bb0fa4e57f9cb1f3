"""PayPal, Orders v2 and Payments v2: a hosted approval page, and money that moves only when we ask for it.

Amounts: decimal strings in major units. Keys: ``PayPal-Request-Id``, remembered 6 h for orders and 45 days for captures
and refunds, replayed with the latest state. Webhooks: RSA over a CRC32 of the body, verified by webhook_ingest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.json_reading import (
    Understood,
    UnexpectedShape,
    identifier_of,
    optional_identifier,
    optional_web_address,
    parse_json_object,
)
from services.payment_service.gateways.looking import certain, found_or_refused
from services.payment_service.gateways.paypal import errors
from services.payment_service.gateways.paypal.amounts import CURRENCIES, check_expressible, from_paypal, to_paypal
from services.payment_service.gateways.paypal.client import PayPalClient, PayPalSettings
from services.payment_service.gateways.paypal.listing import captures_of_window
from services.payment_service.gateways.paypal.reading import (
    Json,
    Order,
    carries,
    moment,
    observation_of_refund,
    observations_of_authorization,
    observations_of_capture,
    outcome_of,
    read_order,
    reason_of,
    related,
    snapshot_of_order,
)
from services.payment_service.gateways.paypal.report import transactions
from services.payment_service.gateways.paypal.webhooks import translate
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
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, InvalidAmount
from shared.http import CallPolicy, HttpCaller
from shared.ids import time_of_reference
from shared.money import Money

_understood = Understood("PayPal")

CREATE = CallPolicy(budget_seconds=16, attempts=3, repeatable=True)  # the key makes repeating safe
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)
MOVE = CallPolicy(budget_seconds=20, attempts=2, repeatable=True)  # as CREATE
VOID = CallPolicy(budget_seconds=20, attempts=2, repeatable=True)  # it has no key, but is refused the second time

ORDER_LASTS = timedelta(hours=3)
"""The shopper has to be sent to PayPal within this; PayPal names no moment, so this deadline is ours."""

FORGOTTEN_AFTER = timedelta(hours=7)
"""Two windows of three hours, and one for the clocks: an order that PayPal does not know by then has expired."""

MOST_LOOKS = 8
NOTHING_CAPTURED = frozenset({"CREATED", "PENDING", "DENIED"})
"""Statuses of an authorization that nothing was captured of."""
NOTHING_REFUNDED = frozenset({"COMPLETED", "PENDING", "DECLINED", "FAILED"})
"""Statuses of a capture that nothing was given back of."""
LONGEST_NOTE = 255
LONGEST_DESCRIPTION = 127
MOST_ITEMS = 100


class PayPal:
    facts = Facts(
        name="paypal",
        display_name="PayPal",
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
                Capability.SETTLEMENT_REPORT,
                Capability.DISPUTES,
            }
        ),
        expires_silently="an order whose time is over is forgotten, and only hours later that says something",
        not_offered={
            Capability.FORM_POST: "its page is opened by address",
            Capability.FIND_BY_REFERENCE: "orders can neither be listed nor searched for",
        },
        blurb="Your PayPal balance or a card",
        currencies=CURRENCIES,
        # Valid for 29 days; only for the first three does PayPal promise that the money is there (honor period).
        authorization_valid_for=timedelta(days=29),
        # Remembered for 45 days, those of completions for 6 h. A void has none, but is refused the second time.
        key_valid_for=timedelta(days=40),
        completion_key_valid_for=timedelta(hours=5),
        # Not documented. Orders are read where they are written, and a call of PayPal's ends within a minute.
        absence_proves_after=timedelta(hours=1),
    )

    def __init__(self, settings: PayPalSettings, http: HttpCaller) -> None:
        self._client = PayPalClient(settings, http)
        self._clock = http.clock

    def check(self, amount: Money, capture: CaptureMode) -> None:
        check_expressible(amount)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        check_expressible(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """A repeated call carries the same key and body: PayPal answers with the order as it is by now."""
        body = await self._client.call(
            "POST", "/v2/checkout/orders", CREATE, body=_new_order(request), key=request.idempotency_key
        )
        try:
            return _session_of(body, request)
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("PayPal's answer is not an order that we can use") from error

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """The order tells everything. Where PayPal has dropped it, what is known of its captures and refunds.

        PayPal's ids do not say what they are the id of, so they are tried in turn; the order's comes first.
        """
        known = tuple(dict.fromkeys(references))[:MOST_LOOKS]
        for reference in known:
            order = await self._find_order(reference)
            if order is not None and order.our_reference == our_reference:
                return _understood(partial(snapshot_of_order, order))
        if len(known) > 1:
            snapshot = await self._snapshot_without_order(known, our_reference)
            if snapshot.references:
                return snapshot
        return self._expired_or_unknown(known, our_reference)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """PayPal has no call that closes an order, and none is needed: money moves only when we ask for it, and we
        never complete a payment that is canceled. So this looks whether it was completed before, and if it was not,
        it is closed by our own decision. An approval is left out of the answer: nobody is to act on it any more.
        """
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        order = await self._find_order(gateway_reference)
        if order is None:
            return Snapshot((gateway_reference,), (closed,))
        if order.has_payments:
            return _understood(partial(snapshot_of_order, order))
        return Snapshot(order.references, (closed,))

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return await captures_of_window(self._client, since, until, cursor)

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        return await transactions(self._client, day)

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return translate(parse_json_object(delivery.payload))
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error

    # --- money -----------------------------------------------------------------------------------------------------

    async def complete(self, call: MoneyCall) -> Outcome:
        """Take or hold the money of an approved order.

        The order is looked at first: what is not ours, or about another amount, is never taken, and what is done
        already is answered with what is there. A decline (INSTRUMENT_DECLINED and its like) is GatewayRejected: the
        shopper may choose another instrument on the same page, and that is a new approval.
        """
        order = await self._find_order(call.target)
        if order is None:
            raise GatewayObjectNotFound("PayPal does not know this order (any more)", gateway_code=errors.ORDER_EXPIRED)
        _require_ours(order, call)
        if order.has_payments:
            return _understood(partial(_outcome_of_order, order, call))
        action = "capture" if call.capture is CaptureMode.AUTOMATIC else "authorize"
        path = f"/v2/checkout/orders/{quote(call.target, safe='')}/{action}"
        try:
            body = await self._client.call("POST", path, MOVE, body={}, key=call.idempotency_key)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal, errors.ORDER_DONE)
        return _understood(lambda: _outcome_of_order(read_order(body), call))

    async def capture(self, call: MoneyCall) -> Outcome:
        """Several captures of one authorization are possible until one is final."""
        body: dict[str, Any] = {
            "amount": to_paypal(call.amount),
            "final_capture": call.is_final,
            "invoice_id": call.reference,
            **_note(call),
        }
        path = f"/v2/payments/authorizations/{quote(call.target, safe='')}/capture"
        try:
            answer = await self._client.call("POST", path, MOVE, body=body, key=call.idempotency_key)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal, errors.CAPTURE_DONE | errors.REFERENCE_TAKEN)
        return _understood(partial(_outcome_of_capture, answer, call))

    async def void(self, call: MoneyCall) -> Outcome:
        path = f"/v2/payments/authorizations/{quote(call.target, safe='')}/void"
        try:
            answer = await self._client.call("POST", path, VOID)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal, errors.VOID_DONE)
        outcome = _understood(partial(_outcome_of_void, answer, call)) if answer else None
        if not answer:  # PayPal may answer without a body, whatever it was asked for
            outcome = await certain(lambda: self.find_operation(call))
        if outcome is None:
            raise GatewayOutcomeUnknown("PayPal answered, but not that the hold is gone")
        return outcome

    async def refund(self, call: MoneyCall) -> Outcome:
        body: dict[str, Any] = {
            "amount": to_paypal(call.amount),
            "custom_id": call.reference,
            "invoice_id": call.reference,
            **_note(call),
        }
        path = f"/v2/payments/captures/{quote(call.target, safe='')}/refund"
        try:
            answer = await self._client.call("POST", path, MOVE, body=body, key=call.idempotency_key)
        except GatewayRejected as refusal:
            return await self._done_already(call, refusal, errors.REFUND_DONE | errors.REFERENCE_TAKEN)
        return _understood(partial(_outcome_of_refund, answer, call))

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        """Captures, refunds and completions are looked for in the order, which lists them all; a void in its hold.

        Raises GatewayOutcomeUnknown where PayPal shows nothing that would list it: that proves nothing.
        """
        try:
            return await self._look_for(call)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("PayPal refuses to say what became of it") from error

    # --- looking ---------------------------------------------------------------------------------------------------

    async def _done_already(self, call: MoneyCall, refusal: GatewayRejected, codes: frozenset[str]) -> Outcome:
        """A refusal that may only say "that is done", or that follows a try without answer, is looked into.

        After silence it is asked for again, under the same key.
        """
        if refusal.gateway_code not in codes and not refusal.after_silence:
            raise refusal
        return await found_or_refused(refusal, lambda: self.find_operation(call))

    async def _look_for(self, call: MoneyCall) -> Outcome | None:
        if call.kind is OperationKind.VOID:
            answer = await self._find(_authorization_path(call.target))
            if answer is None:
                raise GatewayOutcomeUnknown("PayPal does not show the authorization any more")
            return _understood(partial(_outcome_of_void, answer, call))
        order = await self._order_of(call)
        if order is None and call.kind is not OperationKind.COMPLETION:
            return await self._look_without_order(call)
        if order is None:
            raise GatewayOutcomeUnknown("PayPal does not show the order any more")
        return _understood(partial(_find_in, order, call))

    async def _look_without_order(self, call: MoneyCall) -> Outcome | None:
        """By the ids that outlive the order.

        Neither a capture nor an authorization lists what was made of it. But its status may say that nothing was, and
        only that is a proof.
        """
        is_refund = call.kind is OperationKind.REFUND
        source = await self._find(_capture_path(call.target) if is_refund else _authorization_path(call.target))
        if source is None:
            raise GatewayOutcomeUnknown("PayPal shows neither the order nor what was to be taken from")
        named = _understood(partial(related, source, "order_id"))
        if named is not None and named not in call.references:
            order = await self._find_order(named)
            if order is not None and order.our_reference == call.our_reference:
                return _understood(partial(_find_in, order, call))
        for reference in call.references[-MOST_LOOKS:]:
            made = await self._find(_refund_path(reference) if is_refund else _capture_path(reference))
            if made is not None and carries(made, call.reference):
                return _understood(partial(_outcome_of_refund if is_refund else _outcome_of_capture, made, call))
        if source.get("status") not in (NOTHING_REFUNDED if is_refund else NOTHING_CAPTURED):
            raise GatewayOutcomeUnknown("PayPal does not show the order any more, and nothing else lists it")
        return None

    async def _order_of(self, call: MoneyCall) -> Order | None:
        """None where the order is gone."""
        for reference in dict.fromkeys((*call.references[:MOST_LOOKS], call.target)):
            order = await self._find_order(reference)
            if order is not None and order.our_reference == call.our_reference:
                return order
        return None

    async def _find_order(self, reference: str) -> Order | None:
        body = await self._find(f"/v2/checkout/orders/{quote(reference, safe='')}")
        return _understood(partial(read_order, body)) if body is not None else None

    async def _find(self, path: str) -> dict[str, Any] | None:
        """None for what PayPal does not know, or no longer."""
        try:
            return await self._client.call("GET", path, READ)
        except GatewayRejected as refusal:
            if isinstance(refusal, GatewayObjectNotFound) or refusal.gateway_code == errors.ORDER_EXPIRED:
                return None
            raise

    async def _snapshot_without_order(self, references: tuple[str, ...], our_reference: str) -> Snapshot:
        found: dict[str, tuple[Observation, ...]] = {}
        for reference in references:
            if (capture := await self._find(_capture_path(reference))) is not None:
                if optional_identifier(capture, "custom_id") == our_reference:
                    found[reference] = _understood(partial(_of_lone_capture, capture))
            elif (refund := await self._find(_refund_path(reference))) is not None:
                told = partial(observation_of_refund, refund, our_reference=our_reference)
                found[reference] = (_understood(told),)
        return Snapshot(tuple(found), tuple(observation for each in found.values() for observation in each))

    def _expired_or_unknown(self, references: tuple[str, ...], our_reference: str) -> Snapshot:
        """PayPal says 404 for an order that has expired, and for one that a replica does not know yet (PY15)."""
        made_at = time_of_reference(our_reference)
        if not references or made_at is None or self._clock.now() < made_at + FORGOTTEN_AFTER:
            raise GatewayObjectNotFound("PayPal knows no order of this payment")
        return Snapshot(references, (Observation(FactKind.EXPIRED, references[0], reason="order_expired"),))


# --- what goes out -------------------------------------------------------------------------------------------------


def _new_order(request: CreateSession) -> dict[str, Any]:
    """The same for every repetition. Our reference is in every field that PayPal copies to what comes of the order."""
    unit: dict[str, Any] = {
        "reference_id": "default",
        "custom_id": request.reference,
        "invoice_id": request.reference,  # unique per attempt: an account may refuse the second payment with one
        "description": request.description[:LONGEST_DESCRIPTION],
        "amount": to_paypal(request.amount),
        **_lines(request),
    }
    if "items" in unit:
        unit["amount"] = {**unit["amount"], "breakdown": {"item_total": to_paypal(request.amount)}}
    context = {
        "return_url": request.return_url,
        "cancel_url": request.cancel_url,
        "shipping_preference": "NO_SHIPPING",
        "user_action": "PAY_NOW",
        "payment_method_preference": "IMMEDIATE_PAYMENT_REQUIRED",  # an eCheck would be pending for days
    }
    return {
        "intent": "CAPTURE" if request.capture is CaptureMode.AUTOMATIC else "AUTHORIZE",
        "purchase_units": [unit],
        "payment_source": {"paypal": {"experience_context": context}},
    }


def _lines(request: CreateSession) -> dict[str, Any]:
    """The order's lines, if they add up to the amount to the last unit (PayPal refuses others); else none."""
    total = sum(item.quantity * item.unit_amount_minor for item in request.items)
    if total != request.amount.amount_minor or not 0 < len(request.items) <= MOST_ITEMS:
        return {}
    units = [Money(item.unit_amount_minor, request.amount.currency) for item in request.items]
    if any(unit.amount_minor < 0 or not _is_expressible(unit) for unit in units):
        return {}
    lines = [
        {
            "name": item.name[:LONGEST_DESCRIPTION] or "-",
            "quantity": str(item.quantity),
            "unit_amount": to_paypal(unit),
        }
        for item, unit in zip(request.items, units, strict=True)
    ]
    return {"items": lines}


def _is_expressible(amount: Money) -> bool:
    try:
        check_expressible(amount)
    except CurrencyNotSupported:
        return False
    return True


def _note(call: MoneyCall) -> Mapping[str, str]:
    return {"note_to_payer": call.reason[:LONGEST_NOTE]} if call.reason else {}


def _authorization_path(reference: str) -> str:
    return f"/v2/payments/authorizations/{quote(reference, safe='')}"


def _capture_path(reference: str) -> str:
    return f"/v2/payments/captures/{quote(reference, safe='')}"


def _refund_path(reference: str) -> str:
    return f"/v2/payments/refunds/{quote(reference, safe='')}"


# --- what comes back -----------------------------------------------------------------------------------------------


def _session_of(body: Json, request: CreateSession) -> Session:
    """An order without page, of another amount or another reference is not the one we asked for (failure H14)."""
    order = read_order(body)
    if order.our_reference != request.reference or from_paypal(order.unit) != request.amount:
        raise UnexpectedShape("the order is about something else")
    url = _approval_page(body)
    if url is None and not order.has_payments and order.status != "APPROVED":
        raise UnexpectedShape("the order has no page")
    snapshot = snapshot_of_order(order)
    opened = Observation(FactKind.SESSION_OPENED, order.reference)
    # Replayed under its key after it was approved or paid: nothing to show the shopper any more.
    return Session(
        order.reference,
        NextAction("redirect", url or request.return_url),
        min(request.expires_at, request.attempted_at + ORDER_LASTS),
        snapshot.references,
        tuple(dict.fromkeys((opened, *snapshot.observations))),
    )


def _approval_page(body: Json) -> str | None:
    links = body.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") in ("payer-action", "approve"):
            return optional_web_address(link, "href")
    return None


def _require_ours(order: Order, call: MoneyCall) -> None:
    """Money of an order that is not this payment's, or of another amount, is not asked for."""
    if order.our_reference != call.our_reference:
        raise GatewayRejected("this order belongs to another payment", gateway_code="order_of_another_payment")
    if not order.has_payments and _understood(partial(from_paypal, order.unit)) != call.amount:
        raise GatewayRejected("this order is about another amount", gateway_code="order_of_another_amount")


def _outcome_of_order(order: Order, call: MoneyCall) -> Outcome:
    made = order.captures if call.capture is CaptureMode.AUTOMATIC else order.authorizations
    if not made:
        raise UnexpectedShape("the order was completed, but not as we asked")
    snapshot = snapshot_of_order(order)
    return _outcome(made[0], snapshot.observations, snapshot.references)


def _outcome_of_capture(capture: Json, call: MoneyCall) -> Outcome:
    """A last capture lets go of whatever it leaves, once it is taken. How much that is the answer does not say, so that
    is told where nothing is left as well."""
    if from_paypal(capture) != call.amount:
        raise UnexpectedShape("the capture is about another amount")
    observations = list(observations_of_capture(capture, takes_at_once=False))
    if call.is_final and outcome_of(capture) is OutcomeStatus.SUCCEEDED:
        observations.append(Observation(FactKind.RELEASED, call.target, occurred_at=moment(capture, "create_time")))
    return _outcome(capture, observations, (identifier_of(capture, "id"),))


def _outcome_of_refund(refund: Json, call: MoneyCall) -> Outcome:
    if from_paypal(refund) != call.amount:
        raise UnexpectedShape("the refund is about another amount")
    told = observation_of_refund(refund, our_reference=call.our_reference, only_capture=call.target)
    return _outcome(refund, (told,), (identifier_of(refund, "id"),))


def _outcome_of_void(authorization: Json, call: MoneyCall) -> Outcome | None:
    """None while it is still held. How much of it was captured before is told by how much there was to void."""
    reference, status = identifier_of(authorization, "id"), identifier_of(authorization, "status")
    if status == "VOIDED" and call.amount < from_paypal(authorization):
        released = Observation(FactKind.RELEASED, reference, occurred_at=moment(authorization, "update_time"))
        return _outcome(authorization, (released,), (reference,))
    if status in ("VOIDED", "DENIED"):
        return _outcome(authorization, tuple(observations_of_authorization(authorization, ())), (reference,))
    return None


def _find_in(order: Order, call: MoneyCall) -> Outcome | None:
    if call.kind is OperationKind.COMPLETION:
        return _outcome_of_order(order, call) if order.has_payments else None
    is_refund = call.kind is OperationKind.REFUND
    made = order.refunds if is_refund else order.captures
    ours = next((each for each in made if carries(each, call.reference)), None)
    if ours is None:
        return None
    return _outcome_of_refund(ours, call) if is_refund else _outcome_of_capture(ours, call)


def _outcome(source: Json, observations: Iterable[Observation], references: tuple[str, ...]) -> Outcome:
    status = outcome_of(source)
    code = (reason_of(source) or identifier_of(source, "status")) if status is OutcomeStatus.FAILED else None
    return Outcome(status, identifier_of(source, "id"), code, references, tuple(observations))


def _of_lone_capture(capture: Json) -> tuple[Observation, ...]:
    takes_at_once = related(capture, "authorization_id") is None
    return tuple(observations_of_capture(capture, takes_at_once=takes_at_once))
