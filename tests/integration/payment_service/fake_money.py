"""A gateway in memory, behind the adapters' port: its books are compared with ours, its calls go wrong when told to.

``open_shop`` puts it in the place of the real adapters; everything else is real, PostgreSQL first.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import Enum, auto
from typing import Any

import httpx

from services.payment_service.db.unit_of_work import PaymentTransaction
from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayAdapter,
    GatewayEvent,
    KeyUsedUp,
    ListPage,
    MoneyCall,
    Outcome,
    OutcomeStatus,
    Session,
    SettlementReport,
    Snapshot,
)
from services.payment_service.main import create_application
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.run_operations import run_one_due
from services.payment_service.use_cases.wake_parked import apply_one_ready
from shared.clock import to_rfc3339
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.money import Money
from shared.web.auth import build_signer
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.support.clock import FakeClock

ORDERED = 1999
KEY = "a-key-of-the-merchant-0001"
WRITER = "payments:read payments:write captures:write refunds:write"


class Crash(BaseException):
    """The process dies here: nothing that follows runs, nothing is answered."""


class Do(Enum):
    """How the gateway behaves at one call; without any it does the work and says so."""

    PENDING = auto()
    FAIL = auto()
    """It has a record of it that says failed."""
    REJECT = auto()
    UNAVAILABLE = auto()
    LOSE_BEFORE = auto()
    """It does not answer, and has done nothing."""
    LOSE_AFTER = auto()
    """It does the work and does not answer."""
    USE_UP_KEY = auto()
    CRASH_BEFORE = auto()
    CRASH_AFTER = auto()
    BREAK = auto()
    """A bug of the adapter."""


Behaviour = Do | asyncio.Event


@dataclass
class Refund:
    reference: str
    about: str
    amount: Money
    status: OutcomeStatus
    operation: str | None
    """Our reference, where it was made by us."""


@dataclass
class Account:
    """One session and its money."""

    reference: str
    amount: Money
    capture: CaptureMode
    our_reference: str
    payment_id: str
    order_id: str
    held: int = 0
    captured: int = 0
    is_held_no_more: str | None = None
    is_approved: bool = False
    is_closed: bool = False
    refunds: list[Refund] = field(default_factory=list)

    @property
    def refunded(self) -> int:
        return sum(r.amount.amount_minor for r in self.refunds if r.status is not OutcomeStatus.FAILED)


@dataclass
class FakeMoney:
    """Its idempotency keys live for ever, and a repeated key is answered from what was done under it."""

    facts: Facts = field(
        default_factory=lambda: Facts(
            "generic",
            "Fake",
            frozenset(Capability),
            None,
            authorization_valid_for=timedelta(days=7),
            key_valid_for=timedelta(hours=23),
            absence_proves_after=timedelta(minutes=5),
        )
    )
    accounts: dict[str, Account] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    """What was called, and under which key."""
    script: dict[str, list[Behaviour]] = field(default_factory=dict)
    echoes: bool = True
    """Whether its webhooks and lists name our references."""
    done: dict[str, Outcome] = field(default_factory=dict)
    """By key."""
    capture_before: datetime | None = None
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    # --- what tests do to it ---

    def will(self, kind: str, *behaviours: Behaviour) -> None:
        self.script.setdefault(kind, []).extend(behaviours)

    def called(self, kind: str) -> list[str]:
        """The keys of the calls of that kind, in order."""
        return [key for name, key in self.calls if name == kind]

    def refunds_by(self, account: Account, *, amount: int) -> Refund:
        """Somebody refunds in the gateway's dashboard."""
        assert account.captured - account.refunded >= amount
        return self._refund(account, Money(amount, account.amount.currency), account.reference, None)

    def observations(self, account: Account) -> tuple[Observation, ...]:
        reference, currency = account.reference, account.amount.currency
        found = [Observation(FactKind.SESSION_OPENED, reference)]
        if account.is_approved:
            found.append(Observation(FactKind.APPROVED, reference, reason="1"))
        if account.held:
            held = Money(account.held, currency)
            found.append(Observation(FactKind.AUTHORIZED, reference, held, capture_before=self.capture_before))
        if account.captured:
            found.append(Observation(FactKind.CAPTURED, reference, Money(account.captured, currency)))
        if account.is_held_no_more is not None:
            found.append(Observation(FactKind(account.is_held_no_more), reference))
        return (*found, *(self.of_refund(refund) for refund in account.refunds))

    def of_refund(self, refund: Refund) -> Observation:
        kinds = {
            OutcomeStatus.SUCCEEDED: FactKind.REFUND_SUCCEEDED,
            OutcomeStatus.PENDING: FactKind.REFUND_PENDING,
            OutcomeStatus.FAILED: FactKind.REFUND_FAILED,
        }
        operation = refund.operation if self.echoes else None
        return Observation(
            kinds[refund.status], refund.reference, refund.amount, about=refund.about, operation=operation
        )

    # --- the port ---

    def check(self, amount: Money, capture: CaptureMode) -> None:
        """It takes everything."""

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        """It takes everything."""

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        reference = f"gp_{request.reference}"
        self.accounts.setdefault(
            reference,
            Account(
                reference, request.amount, request.capture, request.reference, request.payment_id, request.order_id
            ),
        )
        action = NextAction("redirect", f"https://gateway.test/{reference}")
        opened = (Observation(FactKind.SESSION_OPENED, reference),)
        return Session(reference, action, request.expires_at, (reference,), opened)

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        self.calls.append(("retrieve", our_reference))
        account = next((self.accounts[each] for each in references if each in self.accounts), None)
        if account is None:
            raise GatewayObjectNotFound
        return Snapshot((account.reference,), self.observations(account))

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        account = self.accounts[gateway_reference]
        account.is_closed = True
        return Snapshot((gateway_reference,), self.observations(account))

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._run("capture", call)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._run("void", call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._run("refund", call)

    async def complete(self, call: MoneyCall) -> Outcome:
        return await self._run("complete", call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        self.calls.append(("find", call.reference))
        match await self._next("find"):
            case Do.UNAVAILABLE:
                raise GatewayUnavailable
            case Do.LOSE_BEFORE:
                raise GatewayOutcomeUnknown
            case Do.REJECT:
                raise GatewayRejected(gateway_code="unauthorized")
            case Do.CRASH_BEFORE:
                raise Crash
            case Do.FAIL:
                return None  # its list lags behind
            case _:
                return self._known(call)

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return ListPage(())

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        return ()

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        told = json.loads(delivery.payload)
        return GatewayEvent("fake", tuple(told["references"]), (), tuple(_observation(each) for each in told["facts"]))

    # --- its work ---

    async def _next(self, kind: str) -> Do | None:
        behaviours = self.script.get(kind)
        behaviour = behaviours.pop(0) if behaviours else None
        if isinstance(behaviour, asyncio.Event):
            await behaviour.wait()
            return await self._next(kind)
        return behaviour

    async def _run(self, kind: str, call: MoneyCall) -> Outcome:
        self.calls.append((kind, call.idempotency_key))
        behaviour = await self._next(kind)
        match behaviour:
            case Do.UNAVAILABLE:
                raise GatewayUnavailable
            case Do.REJECT:
                raise GatewayRejected(gateway_code="refused")
            case Do.LOSE_BEFORE:
                raise GatewayOutcomeUnknown
            case Do.USE_UP_KEY:
                raise KeyUsedUp
            case Do.CRASH_BEFORE:
                raise Crash
            case Do.BREAK:
                raise KeyError("a bug")
        if call.idempotency_key not in self.done:
            self.done[call.idempotency_key] = self._work(kind, call, behaviour)
        if behaviour is Do.LOSE_AFTER:
            raise GatewayOutcomeUnknown
        if behaviour is Do.CRASH_AFTER:
            raise Crash
        return self.done[call.idempotency_key]

    def _work(self, kind: str, call: MoneyCall, behaviour: Do | None) -> Outcome:
        account = self.accounts[call.target]
        status = OutcomeStatus.PENDING if behaviour is Do.PENDING else OutcomeStatus.SUCCEEDED
        if behaviour is Do.FAIL:
            return Outcome(OutcomeStatus.FAILED, f"xx_{next(self._numbers)}", "declined")
        amount = call.amount.amount_minor
        if kind == "refund":
            if account.captured - account.refunded < amount:
                raise GatewayRejected(gateway_code="amount_too_large")
            made = self._refund(account, call.amount, call.target, call.reference, status)
            return Outcome(status, made.reference, references=(made.reference,))
        if kind == "capture":
            if account.is_held_no_more is not None or account.held - account.captured < amount:
                raise GatewayRejected(gateway_code="amount_too_large")
            if status is OutcomeStatus.SUCCEEDED:
                account.captured += amount
            if call.is_final and account.captured < account.held:
                account.is_held_no_more = "released"
        if kind == "void":
            if account.is_held_no_more is not None or account.captured == account.held:
                raise GatewayRejected(gateway_code="nothing_held")
            account.is_held_no_more = "released" if account.captured else "canceled"
        if kind == "complete":
            account.held = amount
            account.captured = amount if call.capture is CaptureMode.AUTOMATIC else 0
        return Outcome(status, account.reference, observations=self.observations(account))

    def _refund(
        self,
        account: Account,
        amount: Money,
        about: str,
        operation: str | None,
        status: OutcomeStatus = OutcomeStatus.SUCCEEDED,
    ) -> Refund:
        refund = Refund(f"re_{next(self._numbers)}", about, amount, status, operation)
        account.refunds.append(refund)
        return refund

    def _known(self, call: MoneyCall) -> Outcome | None:
        outcome = next((self.done[key] for key in self.done if key.startswith(call.reference)), None)
        if outcome is None:
            return None
        account = self.accounts[call.target]
        made = next((r for r in account.refunds if r.operation == call.reference), None)
        status = made.status if made is not None else outcome.status
        return replace(outcome, status=status, observations=self.observations(account))


def told(observation: Observation) -> dict[str, Any]:
    amount = observation.amount
    return {
        "kind": observation.kind.value,
        "object": observation.object_reference,
        "amount": [amount.amount_minor, amount.currency] if amount else None,
        "reason": observation.reason,
        "about": observation.about,
        "operation": observation.operation,
    }


def _observation(each: dict[str, Any]) -> Observation:
    amount = Money(*each["amount"]) if each["amount"] else None
    return Observation(
        FactKind(each["kind"]),
        each["object"],
        amount,
        reason=each["reason"],
        about=each["about"],
        operation=each["operation"],
    )


@dataclass
class FakeGateways:
    adapters: dict[str, GatewayAdapter]
    is_available: bool = True

    def get(self, name: str, account: str | None = None) -> GatewayAdapter:
        if name not in self.adapters:
            raise GatewayNotEnabled
        return self.adapters[name]

    def has(self, name: str, account: str | None) -> bool:
        return name in self.adapters

    def reader_of(self, name: str, label: str | None) -> GatewayAdapter:
        return self.adapters[name]

    def account_for(self, name: str, currency: str) -> str | None:
        return None

    def account_of(self, name: str, label: str | None) -> str | None:
        return None

    def require_available(self, name: str, operation_class: OperationClass, account: str | None = None) -> None:
        self.get(name)
        if not self.is_available:
            raise GatewayUnavailable(retry_after_seconds=7)

    def __contains__(self, name: str) -> bool:
        return name in self.adapters


@dataclass
class CrashingUnitOfWork:
    """Dies at the ``at``-th commit counted from ``arm``: before it (what it wrote is lost) or right after it."""

    real: Any
    at: int | None = None
    is_after: bool = False
    count: int = 0

    def arm(self, at: int | None, *, is_after: bool = False) -> None:
        self.at, self.is_after, self.count = at, is_after, 0

    def __call__(self) -> Any:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[PaymentTransaction]:
        self.count += 1
        is_here = self.count == self.at
        async with self.real() as tx:
            yield tx
            if is_here and not self.is_after:
                raise Crash
        if is_here:
            raise Crash


@dataclass
class Shop:
    """payment_service with the fake gateway, virtual time, and what tests ask of them."""

    world: World
    gateway: FakeMoney
    gateways: FakeGateways
    context: Context
    clock: FakeClock
    uow: CrashingUnitOfWork
    http: httpx.AsyncClient

    def headers(self, *, subject: str = "back-office", scopes: str = WRITER) -> dict[str, str]:
        signer = build_signer(self.world.container.settings, ports=self.world.container.ports)
        token = signer.sign(subject=subject, audience="payment_service", scopes=scopes)
        return {"Authorization": f"Bearer {token}"}

    async def send(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        key: str | None = KEY,
        subject: str = "back-office",
        scopes: str = WRITER,
    ) -> httpx.Response:
        headers = self.headers(subject=subject, scopes=scopes)
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self.http.post(f"/api/v1/payments{path and '/'}{path}", json=body or {}, headers=headers)

    async def ask(self, path: str, *, scopes: str = WRITER) -> httpx.Response:
        return await self.http.get(f"/api/v1/{path}", headers=self.headers(scopes=scopes))

    async def opened(self, **changes: Any) -> str:
        answer = await self.send("", self.world.body(**changes), key=None)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["payment_id"])

    def account(self, payment_id: str) -> Account:
        return next(account for account in self.gateway.accounts.values() if account.payment_id == payment_id)

    async def sync(self, payment_id: str) -> dict[str, Any]:
        answer = await self.send(f"{payment_id}/sync", key=None)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def captured(self, **changes: Any) -> str:
        payment_id = await self.opened(**changes)
        account = self.account(payment_id)
        account.held = account.captured = account.amount.amount_minor
        assert (await self.sync(payment_id))["status"] == "captured"
        return payment_id

    async def held(self, **changes: Any) -> str:
        payment_id = await self.opened(**({"capture": "manual"} | changes))
        account = self.account(payment_id)
        account.held = account.amount.amount_minor
        assert (await self.sync(payment_id))["status"] == "authorized"
        return payment_id

    async def refund(self, payment_id: str, amount: int | None = None, **more: Any) -> httpx.Response:
        body = more.pop("body", {"reason": "returned"}) | _amount(amount)
        return await self.send(f"{payment_id}/refunds", body, **more)

    async def capture(self, payment_id: str, amount: int | None = None, **more: Any) -> httpx.Response:
        return await self.send(f"{payment_id}/captures", more.pop("body", {}) | _amount(amount), **more)

    async def void(self, payment_id: str, **more: Any) -> httpx.Response:
        return await self.send(f"{payment_id}/void", **more)

    async def tell(self, payment_id: str, *observations: Observation, message: str | None = None) -> None:
        """A verified webhook of the gateway arrives."""
        await self.tell_reference(self.account(payment_id).reference, *observations, message=message)

    async def tell_reference(self, reference: str, *observations: Observation, message: str | None = None) -> None:
        body = {"references": [reference], "facts": [told(each) for each in observations]}
        world = self.world
        saved, world.container = world.container, replace(world.container, context=self.context)
        try:
            await world.receive(world.delivery(body), message_id=message)
        finally:
            world.container = saved

    async def run_due(self) -> int:
        """The runner, until nothing is due."""
        for count in itertools.count():
            if not await run_one_due(self.context):
                return count
        raise AssertionError

    async def later(self, seconds: float) -> None:
        """Time passes, for leases too, which PostgreSQL's own clock decides."""
        self.clock.move(seconds)
        if seconds >= self.context.operations.lease_seconds:
            for table in ("operations", "payment_attempts"):
                await self.world.run(f"UPDATE {table} SET leased_until = now() - interval '1 second'")
            await self.world.run("UPDATE idempotency_keys SET locked_until = now() - interval '1 second'")

    async def settle_down(self, *, hours: float = 1) -> None:
        """Hours pass, with the runner at work."""
        for _ in range(int(hours * 2)):
            await self.later(1800)
            await self.run_due()

    async def wake_parked(self) -> None:
        while await apply_one_ready(self.context):
            pass

    async def operations(self, payment_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        sql = "SELECT * FROM operations WHERE payment_id = :p AND (kind = :k OR :k = '') ORDER BY operation_id"
        return await self.world.rows(sql, p=payment_id, k=kind or "")

    async def statuses(self, payment_id: str, kind: str | None = None) -> list[str]:
        return [row["status"] for row in await self.operations(payment_id, kind)]

    async def totals(self, payment_id: str) -> dict[str, int]:
        """Those that are not zero."""
        (row,) = await self.world.rows("SELECT * FROM payments WHERE payment_id = :p", p=payment_id)
        return {name.removeprefix("amount_"): row[name] for name in row if name in _TOTALS and row[name]}

    async def events(self, payment_id: str) -> Counter[str]:
        return Counter(await self.world.event_types(payment_id))

    async def assert_books_agree(self, payment_id: str) -> None:
        account, totals = self.account(payment_id), await self.totals(payment_id)
        assert totals.get("captured", 0) == account.captured
        assert totals.get("refunded", 0) + totals.get("refund_pending", 0) == account.refunded
        sums = await self.world.rows("SELECT coalesce(sum(amount_minor), 0) AS n FROM ledger_postings")
        assert sums == [{"n": 0}]


_TOTALS = (
    "amount_authorized",
    "amount_capture_pending",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_dispute_lost",
    "amount_excess",
)


def _amount(amount: int | None) -> dict[str, Any]:
    return {} if amount is None else {"amount": {"amount_minor": amount, "currency": "EUR"}}


async def open_shop(build_world: BuildWorld, gateway: FakeMoney | None = None, **settings: Any) -> Shop:
    clock = FakeClock()
    world = await build_world(clock=clock, **settings)
    gateway = gateway or FakeMoney()
    gateways = FakeGateways({"generic": gateway})
    uow = CrashingUnitOfWork(world.container.context.uow)
    context = replace(world.container.context, gateways=gateways, uow=uow)
    application = create_application(replace(world.container, context=context))
    transport = httpx.ASGITransport(app=application)
    http = httpx.AsyncClient(transport=transport, base_url="http://payments.test")
    return Shop(world, gateway, gateways, context, clock, uow, http)


def at(clock: FakeClock, **ahead: float) -> str:
    return to_rfc3339(clock.now() + timedelta(**ahead))
