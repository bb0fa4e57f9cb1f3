"""What PayPal's refusals mean: branch on ``details[0].issue``, never on the message (fact sheet, errors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import HttpAnswer

log = structlog.get_logger()

RUNNING = frozenset({"PREVIOUS_REQUEST_IN_PROGRESS", "ORDER_COMPLETION_IN_PROGRESS", "DUPLICATE_REQUEST_ID"})
"""An earlier call of ours lives, or has had this key: what comes of it has to be asked for."""

ORDER_DONE = frozenset({"ORDER_ALREADY_CAPTURED", "ORDER_ALREADY_AUTHORIZED", "ORDER_COMPLETED_OR_VOIDED"})
CAPTURE_DONE = frozenset(
    {"AUTHORIZATION_ALREADY_CAPTURED", "MAX_CAPTURE_AMOUNT_EXCEEDED", "MAX_CAPTURE_COUNT_EXCEEDED"}
)
VOID_DONE = frozenset({"PREVIOUSLY_VOIDED", "AUTHORIZATION_VOIDED", "AUTHORIZATION_EXPIRED"})
REFUND_DONE = frozenset({"CAPTURE_FULLY_REFUNDED", "REFUND_AMOUNT_EXCEEDED", "MAX_NUMBER_OF_REFUNDS_EXCEEDED"})
REFERENCE_TAKEN = frozenset({"DUPLICATE_INVOICE_ID"})
"""Our reference is on another object: after a key has been forgotten, that is our own earlier call."""

ORDER_EXPIRED = "ORDER_EXPIRED"


class NotPermitted(GatewayUnavailable):
    """The app lacks a permission: nothing moved, and no payment may be failed for it (failure H9)."""


def body_of(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON of a success (empty for 204), or the error class that the refusal means. 401 is the caller's."""
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("PayPal's address answered with a redirect, which is not followed")
    if answer.status == 204:
        return {}
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:  # an edge in front of PayPal answers in HTML, and knows nothing of the call
        raise GatewayOutcomeUnknown("PayPal's answer is not JSON") from error
    if 200 <= answer.status < 300:
        return body
    raise _refusal(answer, body)


def _refusal(answer: HttpAnswer, body: Mapping[str, Any]) -> Exception:
    issue = _issue(body)
    log.warning("paypal_refused", status=answer.status, issue=issue, debug_id=_debug_id(answer, body))
    if answer.status == 403:
        return NotPermitted("PayPal does not permit this app to do it; check the app's features")
    if answer.status == 409 or issue in RUNNING:
        # A new key now could run it twice (failure H10).
        return GatewayOutcomeUnknown("PayPal is still at an earlier call of ours")
    if answer.status == 404:
        return GatewayObjectNotFound(
            "PayPal does not know this object", gateway_code=issue, after_silence=answer.after_silence
        )
    why = f"PayPal refused the request ({issue or answer.status})"
    return GatewayRejected(why, gateway_code=issue, after_silence=answer.after_silence)


def _issue(body: Mapping[str, Any]) -> str | None:
    details = body.get("details")
    first = details[0] if isinstance(details, list) and details else None
    found = first.get("issue") if isinstance(first, dict) else None
    found = found or body.get("name") or body.get("error")
    return found[:100] if isinstance(found, str) and found.isprintable() else None


def _debug_id(answer: HttpAnswer, body: Mapping[str, Any]) -> str | None:
    """What PayPal's support asks for; an id of theirs, nobody's data."""
    found = answer.headers.get("paypal-debug-id") or body.get("debug_id")
    return found[:64] if isinstance(found, str) and found.isprintable() else None
