"""The generic hosted-checkout gateway: a small JSON API, and the webhook of existing integrations. Its contract:
generic.md.

Amounts: decimal numbers in major units, parsed as decimals. Keys: ``Idempotency-Key``; sessions can also be looked up
by our
reference. Webhooks: the scheme that ``GENERIC_SIGNATURE_*`` configures, by default hex HMAC-SHA256 in ``X-Signature``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    optional_identifier,
    optional_web_address,
    parse_json_object,
    sane,
    text_of,
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
from shared.clock import to_rfc3339
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
    InvalidAmount,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.money import Money

CREATE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)

STORED_FAILURE = 500
"""Other 5xx come from what stands before the gateway and say nothing about the key."""

# What the webhook's and the API's `status` mean. A status that is not here is unknown, never a success: we ask.
STATUS: Mapping[str, FactKind | None] = {
    "completed": FactKind.CAPTURED,
    "success": FactKind.CAPTURED,
    "succeeded": FactKind.CAPTURED,
    "paid": FactKind.CAPTURED,
    "captured": FactKind.CAPTURED,
    "authorized": FactKind.AUTHORIZED,
    "processing": FactKind.PROCESSING,
    "pending": FactKind.PROCESSING,
    "open": FactKind.SESSION_OPENED,
    "failed": FactKind.FAILED,
    "declined": FactKind.FAILED,
    "canceled": FactKind.CANCELED,
    "cancelled": FactKind.CANCELED,
    "expired": FactKind.EXPIRED,
}
_EARLIER_CALL_LIVES = frozenset({"idempotency_key_in_use", "idempotency_key_reused"})
"""Our earlier call lives: a new key now could make a second payable page (failure H10)."""

_WITH_AMOUNT = frozenset({FactKind.CAPTURED, FactKind.AUTHORIZED})


@dataclass(frozen=True, slots=True)
class GenericSettings:
    api_base: str
    api_key: str
    display_name: str = "Card (hosted page)"


class Generic:
    def __init__(self, settings: GenericSettings, http: HttpCaller) -> None:
        self._base = settings.api_base.rstrip("/")
        self._key = settings.api_key
        self._http = http
        self.facts = Facts(
            name="generic",
            display_name=settings.display_name,
            capabilities=frozenset(
                {
                    Capability.REDIRECT,
                    Capability.MANUAL_CAPTURE,
                    Capability.CLOSE_SESSION,
                    Capability.RETRIEVE,
                    Capability.FIND_BY_REFERENCE,
                }
            ),
            currencies=None,
        )

    def check(self, amount: Money, capture: CaptureMode) -> None:
        """It takes every ISO 4217 currency with all of its digits."""

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
            body = await self._call("POST", "/v1/sessions", CREATE, payload=payload, key=key)
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
                return _read_snapshot(await self._call("GET", f"/v1/sessions/{quote(reference, safe='')}", READ))
        found = await self._find(our_reference)
        if found is None:
            raise GatewayObjectNotFound("the gateway knows no session with our reference")
        return _read_snapshot(found)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        path = f"/v1/sessions/{quote(gateway_reference, safe='')}/expire"
        try:
            snapshot = _read_snapshot(await self._call("POST", path, READ, payload=b"{}"))
        except GatewayObjectNotFound:
            raise
        except GatewayRejected:  # it is no longer open: see what became of it
            return await self.retrieve((gateway_reference,), our_reference=our_reference)
        kept = tuple(o for o in snapshot.observations if o.kind is not FactKind.EXPIRED)
        if kept:  # it answered, but not that the session has expired: then we have not closed it
            return snapshot
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (closed,))

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        """design.md §3: ``transaction_id`` is ours; existing integrations put the order's id there or in
        ``order_id``."""
        try:
            body = parse_json_object(delivery.payload)
            status = identifier_of(body, "status").lower()
            theirs = _identifier(body, "payment_id")
            ours = tuple(found for key in ("transaction_id", "order_id") if (found := _identifier(body, key)))
            if theirs is None and not ours:
                raise UnexpectedShape("neither payment_id nor transaction_id")
            kind = STATUS.get(status)
            # Without their id it is about the one session that we know; apply_webhook puts its reference in.
            observations = () if kind is None else (_observation(kind, theirs or "", body, delivery.received_at),)
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error
        return GatewayEvent(status, (theirs,) if theirs else (), ours, observations, must_ask=kind is None)

    async def _find(self, reference: str) -> dict[str, Any] | None:
        body = await self._call("GET", "/v1/sessions", READ, query={"reference": reference})
        found = body.get("data")
        if not isinstance(found, list):
            raise GatewayOutcomeUnknown("the gateway's answer is not understood")
        mine = [entry for entry in found if isinstance(entry, dict) and entry.get("reference") == reference]
        return mine[0] if mine else None

    async def _call(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        *,
        payload: bytes | None = None,
        query: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._key}", "accept": "application/json"}
        if payload is not None:
            headers["content-type"] = "application/json"
        if key is not None:
            headers["idempotency-key"] = key
        answer = await self._http.send(
            method, self._base + path, policy=policy, headers=headers, params=query, content=payload
        )
        return _body_of(answer)


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status in (401, 403):  # whatever the body is: a rotated key moves nothing (failure H9)
        raise GatewayUnavailable("the gateway refuses our API key; check GENERIC_API_KEY")
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("the gateway answered with a redirect, which is not followed")
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not JSON") from error
    if 200 <= answer.status < 300:
        return body
    problem = body.get("error")
    code = problem.get("code") if isinstance(problem, dict) else None
    code = code if isinstance(code, str) else None
    if answer.status == 404:
        raise GatewayObjectNotFound("the gateway does not know this session", gateway_code=code)
    if code in _EARLIER_CALL_LIVES:
        raise GatewayOutcomeUnknown("the gateway has had an earlier call with this key")
    raise GatewayRejected(f"the gateway refused the request ({code or answer.status})", gateway_code=code)


def _session_json(request: CreateSession) -> bytes:
    """The amount goes out as an exact JSON number: a float would not keep 0.1, nor the digits of a dinar."""
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
    return b'{"amount":%s,%s' % (f"{request.amount.as_major():f}".encode(), json.dumps(fields).encode()[1:])


def _read_session(body: Mapping[str, Any], request: CreateSession) -> Session:
    try:
        reference = identifier_of(body, "payment_id")
        if body.get("reference") != request.reference or _amount(body) != request.amount:
            raise UnexpectedShape("the session is about another payment")
        expires_at = datetime.fromisoformat(text_of(body, "expires_at"))
        if expires_at.tzinfo is None:
            raise UnexpectedShape("expires_at has no zone")
        url = optional_web_address(body, "checkout_url") or request.return_url
        snapshot = _snapshot(body)
    except (UnexpectedShape, InvalidAmount, ValueError) as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not a session that we can use") from error
    observations = (Observation(FactKind.SESSION_OPENED, reference), *snapshot.observations)
    return Session(reference, NextAction("redirect", url), expires_at, (reference,), observations)


def _read_snapshot(body: Mapping[str, Any]) -> Snapshot:
    try:
        return _snapshot(body)
    except (UnexpectedShape, InvalidAmount) as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not understood") from error


def _snapshot(body: Mapping[str, Any]) -> Snapshot:
    reference = identifier_of(body, "payment_id")
    kind = STATUS.get(text_of(body, "status").lower())
    observations = () if kind is None else (_observation(kind, reference, body, None),)
    return Snapshot((reference,), observations)


def _observation(kind: FactKind, about: str, body: Mapping[str, Any], at: datetime | None) -> Observation:
    amount = _amount(body) if kind in _WITH_AMOUNT else None
    return Observation(kind, about, amount, at, reason=optional_identifier(body, "failure_code"))


def _amount(body: Mapping[str, Any]) -> Money:
    """``150.00`` and ``"150.00"`` as exact decimals; anything else is not an amount."""
    value = body.get("amount")
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, str | Decimal):
        raise UnexpectedShape("amount is not a decimal number")
    return sane(Money.from_major(value, text_of(body, "currency").upper()))


def _identifier(body: Mapping[str, Any], key: str) -> str | None:
    """An id as text; some integrations send theirs as a whole number."""
    value = body.get(key)
    return optional_identifier({key: str(value)} if type(value) is int else body, key)
