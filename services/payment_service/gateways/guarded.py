"""Any adapter behind the circuit breakers of its gateway, with its calls counted and timed.

What a gateway does slowly or not at all in one class of operations says little about the others, so each class has a
breaker of its own: refunds go on while hosted pages cannot be opened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import TypeVar

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import (
    CreateSession,
    Delivery,
    GatewayAdapter,
    GatewayEvent,
    ListPage,
    MoneyCall,
    Outcome,
    Session,
    SettlementReport,
    Snapshot,
)
from services.payment_service.use_cases.breakers import Breakers
from shared.money import Money

T = TypeVar("T")


class GuardedAdapter:
    """Raises what the adapter raises, and GatewayUnavailable at once (nothing was sent) while a breaker is open."""

    def __init__(
        self, adapter: GatewayAdapter, gateway: str, breakers: Breakers, *, only_currencies: Sequence[str] = ()
    ) -> None:
        """``gateway``: what the breakers are called. ``only_currencies``: of those of the gateway, what this account
        takes; none named: all."""
        self.facts = adapter.facts
        self._only = frozenset(only_currencies)
        if self._only:
            self.facts = replace(adapter.facts, currencies=self._only & (adapter.facts.currencies or self._only))
        self._adapter = adapter
        self._gateway = gateway
        self._breakers = breakers
        breakers.watch_over(gateway)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        if self._only and amount.currency not in self._only:
            raise CurrencyNotSupported(f"this account does not take {amount.currency}")
        self._adapter.check(amount, capture)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        self._adapter.check_operation(kind, amount)

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        return await self._session("create_session", lambda: self._adapter.create_session(request, repeated=repeated))

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        return await self._session(
            "close_session", lambda: self._adapter.close_session(gateway_reference, our_reference=our_reference)
        )

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        return await self._read("retrieve", lambda: self._adapter.retrieve(references, our_reference=our_reference))

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        return await self._read("find_operation", lambda: self._adapter.find_operation(call))

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return await self._read("list_window", lambda: self._adapter.list_window(since, until, cursor=cursor))

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        return await self._read("settlement_report", lambda: self._adapter.settlement_report(day))

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._money("capture", lambda: self._adapter.capture(call))

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._money("void", lambda: self._adapter.void(call))

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._money("refund", lambda: self._adapter.refund(call))

    async def complete(self, call: MoneyCall) -> Outcome:
        return await self._money("complete", lambda: self._adapter.complete(call))

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        return self._adapter.translate_webhook(delivery)

    async def _session(self, operation: str, send: Callable[[], Awaitable[T]]) -> T:
        return await self._breakers.call(self._gateway, OperationClass.SESSION, operation, send)

    async def _read(self, operation: str, send: Callable[[], Awaitable[T]]) -> T:
        return await self._breakers.call(self._gateway, OperationClass.READ, operation, send)

    async def _money(self, operation: str, send: Callable[[], Awaitable[T]]) -> T:
        return await self._breakers.call(self._gateway, OperationClass.MONEY, operation, send)
