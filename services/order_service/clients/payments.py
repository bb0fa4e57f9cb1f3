"""payment_service over HTTP. Its problems come back as the errors they are, so that the caller sees them unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import httpx
from pydantic import ValidationError

from services.order_service.domain.errors import PaymentInProgress, PaymentRefused
from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.use_cases.ports import OpenedPayment, PaymentRequest
from shared.clock import to_rfc3339
from shared.contracts.payment_documents import PaymentDocument
from shared.correlation import current_correlation
from shared.errors import (
    Conflict,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
    NotFound,
    PayrailError,
    ServiceUnavailable,
)
from shared.http import HttpClient, parse_retry_after
from shared.ports import Ports
from shared.unit_of_work import in_transaction

# What httpx raises before payment_service can have seen the request.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _PaymentHasEnded(Conflict):
    """The payment has ended meanwhile."""


_PROBLEMS: Mapping[str, type[PayrailError]] = {
    "gateway_unavailable": GatewayUnavailable,
    "gateway_outcome_unknown": GatewayOutcomeUnknown,
    "gateway_rejected": GatewayRejected,
    "payment_ended": _PaymentHasEnded,
    "not_found": NotFound,
}


class _PaymentAnswer(PaymentDocument):
    gateway_reference: str | None = None
    next_action: dict[str, Any] | None = None
    expires_at: str | None = None


class HttpPaymentsClient:
    """Satisfies PaymentsClient. A call is made once: the browser or the next sweep repeats it with the same payment
    id, and a retry in every layer would multiply in an outage (failure H19)."""

    def __init__(
        self,
        client: HttpClient,
        *,
        base_url: str,
        token: Callable[[], str],
        budget_seconds: float,
        ports: Ports,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._budget_seconds = budget_seconds
        self._ports = ports

    async def open(self, request: PaymentRequest) -> OpenedPayment:
        try:
            answer = _read(await self._send("POST", "/api/v1/payments", _opening_body(request)))
        except _PaymentHasEnded:  # how it ended is the answer
            answer = _read(await self._send("GET", f"/api/v1/payments/{request.payment_id}"))
        except NotFound as error:  # whoever answers there is not payment_service
            raise ServiceUnavailable from error
        if answer.payment_id != request.payment_id or answer.order_id != request.order_id:
            raise ServiceUnavailable("payment_service answered for another payment")
        return OpenedPayment(_snapshot(answer), answer.next_action, answer.expires_at)

    async def close(self, payment_id: str, *, reason: str) -> PaymentSnapshot | None:
        try:
            return _snapshot(
                _read(await self._send("POST", f"/api/v1/payments/{payment_id}/close", {"reason": reason}))
            )
        except NotFound:
            return None

    async def find(self, payment_id: str) -> PaymentSnapshot | None:
        try:
            answer = _read(await self._send("GET", f"/api/v1/payments/{payment_id}"))
        except NotFound:
            return None
        if answer.payment_id != payment_id:
            raise ServiceUnavailable("payment_service answered for another payment")
        return _snapshot(answer)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        assert not in_transaction(), "payment_service is never called inside a unit of work"
        headers = {"authorization": f"Bearer {self._token()}"}
        correlation = current_correlation()
        if correlation is not None:
            headers |= {"traceparent": correlation.traceparent, "x-request-id": correlation.request_id}
        try:
            async with asyncio.timeout(self._budget_seconds):
                response = await self._client.request(method, self._base_url + path, json=body, headers=headers)
        except _NEVER_SENT as error:
            raise ServiceUnavailable("the payment service cannot be reached; nothing moved") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise GatewayOutcomeUnknown from error
        if response.is_success:
            return response
        raise self._problem(response)

    def _problem(self, response: httpx.Response) -> PayrailError:
        """The error that payment_service's problem document names."""
        problem = _problem_document(response)
        code, detail = str(problem.get("code", "")), str(problem.get("detail", "")) or None
        known = _PROBLEMS.get(code)
        error: PayrailError
        if known is not None:
            error = known(detail)
        elif response.status_code == 409 and problem.get("retryable") is True:  # another call is opening the session
            error = PaymentInProgress(detail)
        elif response.status_code in (409, 422):
            error = PaymentRefused(detail, code=code or None, status=response.status_code)
        else:  # its 500s, a proxy's 502 or 504, a token it does not take: it may or may not have acted
            error = GatewayOutcomeUnknown() if response.status_code >= 500 else ServiceUnavailable()
        error.retry_after_seconds = parse_retry_after(response.headers.get("retry-after"), self._ports.clock.now())
        return error


def _opening_body(request: PaymentRequest) -> dict[str, Any]:
    terms = request.terms
    customer = {"email": request.customer_email, "name": request.customer_name}
    if request.customer_phone is not None:
        customer["phone"] = request.customer_phone
    body: dict[str, Any] = {
        "payment_id": request.payment_id,
        "order_id": request.order_id,
        "gateway": request.gateway,
        "amount": {"amount_minor": request.amount.amount_minor, "currency": request.amount.currency},
        "capture": terms.capture,
        "description": request.description,
        "customer": customer,
        "items": [
            {"name": item.name, "quantity": item.quantity, "unit_amount_minor": item.unit_price.amount_minor}
            for item in request.items
        ],
        "success_url": terms.success_url,
        "failure_url": terms.failure_url,
        "cancel_url": terms.cancel_url,
        "expires_at": to_rfc3339(request.expires_at),
    }
    return body | ({"method": terms.method} if terms.method is not None else {})


def _read(response: httpx.Response) -> _PaymentAnswer:
    try:
        return _PaymentAnswer.model_validate(json.loads(response.content, parse_float=Decimal))
    except (ValueError, ValidationError) as error:
        # It did act; what it did will come as an event.
        raise GatewayOutcomeUnknown("the payment service's answer is not understood") from error


def _snapshot(answer: _PaymentAnswer) -> PaymentSnapshot:
    return PaymentSnapshot(
        payment_id=answer.payment_id,
        order_id=answer.order_id,
        gateway=answer.gateway,
        status=PaymentStatus(answer.status),
        version=answer.version,
        amount=answer.money,
        gateway_reference=answer.gateway_reference,
        amount_authorized=answer.amount_authorized,
        amount_captured=answer.amount_captured,
        amount_refund_pending=answer.amount_refund_pending,
        amount_refunded=answer.amount_refunded,
        amount_disputed=answer.amount_disputed,
        amount_excess=answer.amount_excess,
        outcome_unknown=answer.outcome_unknown,
    )


def _problem_document(response: httpx.Response) -> Mapping[str, Any]:
    try:
        problem = json.loads(response.content, parse_float=Decimal)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
