"""payment_service over HTTP, as the sweep needs it: have a payment's gateway asked, and list what is not final."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.reconciler.domain.errors import SyncRefused
from services.reconciler.domain.models import SeenPayment, Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.ports import PaymentsPage, SyncAnswer
from shared.contracts.payment_documents import PaymentDocument
from shared.correlation import current_correlation
from shared.errors import (
    DatabaseUnavailable,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
    PayrailError,
    ServiceUnavailable,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller, parse_retry_after

PAGE_SIZE = 100  # of payments; far below the byte cap of an answer
PULL_BUDGET_SECONDS = 15.0


class _PaymentAnswer(PaymentDocument):
    capture_before: AwareDatetime | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime

    def seen(self) -> SeenPayment:
        return SeenPayment(
            payment_id=self.payment_id,
            order_id=self.order_id,
            gateway=self.gateway,
            status=PaymentStatus(self.status),
            version=self.version,
            amount=self.money,
            created_at=self.created_at,
            changed_at=self.updated_at,
            standing=Standing(
                amount_authorized=self.amount_authorized,
                amount_captured=self.amount_captured,
                amount_refund_pending=self.amount_refund_pending,
                amount_refunded=self.amount_refunded,
                amount_disputed=self.amount_disputed,
                amount_dispute_lost=self.amount_dispute_lost,
                outcome_unknown=self.outcome_unknown,
            ),
            capture_before=self.capture_before,
            method=self.method,
            is_document=True,
        )


class _SyncAnswer(_PaymentAnswer):
    changed: bool = Field(strict=True)


class _PageAnswer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_PaymentAnswer]
    next_cursor: str | None


class _Problem(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: str = Field(max_length=100)


_SERVICE_IS_AWAY = (ServiceUnavailable.code, DatabaseUnavailable.code)

A = TypeVar("A", bound=BaseModel)


class HttpPaymentsClient:
    """Satisfies PaymentsClient. ``token`` makes a short-lived service token for each call.

    Each call is sent once: the schedule is the retry, and a retry in every layer multiplies in an outage (failure H19).
    """

    def __init__(self, caller: HttpCaller, *, base_url: str, token: Callable[[], str], budget_seconds: float) -> None:
        self._caller = caller
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._sync_policy = CallPolicy(budget_seconds=budget_seconds, attempts=1, reads_problems=True)
        self._pull_policy = CallPolicy(budget_seconds=PULL_BUDGET_SECONDS, attempts=1)

    async def sync(self, payment_id: str) -> SyncAnswer:
        path = f"/api/v1/payments/{payment_id}/sync"
        answer = await self._send("POST", path, {"source": "sweep"}, self._sync_policy)
        if answer.status != 200:
            raise self._problem(answer)
        synced = _read(_SyncAnswer, answer)
        if synced.payment_id != payment_id:
            raise GatewayOutcomeUnknown("payment_service answered for another payment")
        return SyncAnswer(synced.seen(), synced.changed)

    def _problem(self, answer: HttpAnswer) -> PayrailError:
        """Whom the problem concerns: this payment, its gateway, or payment_service as a whole."""
        code = _problem_code(answer)
        if code == GatewayUnavailable.code:  # its breaker is open, or it cannot be reached: no payment of it can be
            seconds = parse_retry_after(answer.headers.get("retry-after"), self._caller.clock.now())
            return GatewayUnavailable(retry_after_seconds=seconds)
        if code in _SERVICE_IS_AWAY:
            return ServiceUnavailable("payment_service cannot work now")
        if answer.status >= 500 and code != GatewayRejected.code:
            return GatewayOutcomeUnknown()
        return SyncRefused(code)

    async def not_final(self, cursor: str | None) -> PaymentsPage:
        params = {"final": "false", "limit": str(PAGE_SIZE)} | ({"cursor": cursor} if cursor is not None else {})
        answer = await self._send("GET", "/api/v1/payments", params, self._pull_policy)
        if answer.status != 200:
            raise ServiceUnavailable(f"payment_service answered {answer.status} to the list of payments")
        page = _read(_PageAnswer, answer)
        return PaymentsPage(tuple(payment.seen() for payment in page.data), page.next_cursor)

    async def _send(self, method: str, path: str, params: dict[str, str], policy: CallPolicy) -> HttpAnswer:
        headers = {"authorization": f"Bearer {self._token()}"}
        correlation = current_correlation()
        if correlation is not None:
            headers["x-request-id"] = correlation.request_id
        try:
            answer = await self._caller.send(
                method, self._base_url + path, policy=policy, headers=headers, params=params
            )
        except GatewayUnavailable as error:  # the caller's word for "never reached, or told to slow down"
            raise ServiceUnavailable("payment_service cannot be reached, or limits our rate") from error
        if answer.status in (401, 403):
            raise ServiceUnavailable("payment_service does not take our token")
        return answer


def _read(model: type[A], answer: HttpAnswer) -> A:
    try:
        return model.model_validate(json.loads(answer.body, parse_float=Decimal))
    except (ValueError, ValidationError) as error:
        raise GatewayOutcomeUnknown("the payment service's answer is not understood") from error


def _problem_code(answer: HttpAnswer) -> str:
    try:
        return _read(_Problem, answer).code
    except GatewayOutcomeUnknown:
        return f"http_{answer.status}"
