"""The Stripe and generic adapters against the sandbox over real HTTP: money moves once, whatever goes wrong, and what
the adapters tell is what the gateway's books say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode, Customer, FactKind, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.generic import Generic, GenericSettings
from services.payment_service.gateways.port import (
    CreateSession,
    Delivery,
    GatewayAdapter,
    KeyUsedUp,
    MoneyCall,
    OutcomeStatus,
)
from services.payment_service.gateways.stripe import Stripe, StripeSettings
from shared.clock import SystemClock
from shared.errors import GatewayOutcomeUnknown, GatewayRejected
from shared.http import HttpCaller, build_http_client
from shared.masking import redact_body
from shared.money import Money
from shared.ports import system_ports
from tests.support.gateway_sandbox import GENERIC_KEY, RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

CAPTURE, VOID, REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND
ATTEMPT = "PR00000000000000001A"


@dataclass
class Bench:
    """One payment at one gateway, and the calls that the core would make about it."""

    gateway: str
    adapter: GatewayAdapter
    sandbox: RunningSandbox
    amount: Money = field(default_factory=lambda: Money(1999, "EUR"))
    session: str = ""
    target: str = ""
    made: int = 0

    async def pay(self, capture: CaptureMode, amount: Money | None = None) -> None:
        self.amount = amount or self.amount
        now = SystemClock().now()
        request = CreateSession(
            reference=ATTEMPT,
            idempotency_key="att_1",
            payment_id="pay_1",
            order_id="ord_1",
            amount=self.amount,
            capture=capture,
            description="Order ord_1",
            customer=Customer("ada@example.com", "Ada"),
            items=(),
            return_url="https://pay.example/return",
            cancel_url="https://pay.example/cancel",
            expires_at=now + timedelta(minutes=40),
            attempted_at=now,
        )
        self.session = (await self.adapter.create_session(request, repeated=False)).gateway_reference
        assert (await self.sandbox.outcome(self.gateway, self.session, "succeed")).status_code == 200
        wanted = FactKind.AUTHORIZED if capture is CaptureMode.MANUAL else FactKind.CAPTURED
        self.target = next(o.object_reference for o in await self.look() if o.kind is wanted)

    def call(self, kind: OperationKind, amount_minor: int, *, is_whole: bool = False, **more: Any) -> MoneyCall:
        self.made += 1
        reference = f"PO{self.made:018d}"
        call = MoneyCall(
            kind=kind,
            reference=reference,
            idempotency_key=reference,
            amount=Money(amount_minor, self.amount.currency),
            target=self.target,
            is_whole=is_whole,
            is_final=False,
            reason=None,
            payment_id="pay_1",
            order_id="ord_1",
            our_reference=ATTEMPT,
            capture=CaptureMode.MANUAL,
            references=(self.session, self.target),
            first_sent_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        return replace(call, **more)

    async def look(self) -> tuple[Observation, ...]:
        references = tuple(dict.fromkeys((self.session, *((self.target,) if self.target else ()))))
        return (await self.adapter.retrieve(references, our_reference=ATTEMPT)).observations

    async def told(self) -> set[tuple[str, int | None, str | None]]:
        return {(str(o.kind), o.amount.amount_minor if o.amount else None, o.operation) for o in await self.look()}

    async def books(self) -> dict[str, Any]:
        (entry,) = (await self.sandbox.books(self.gateway))["payments"]
        found: dict[str, Any] = entry
        return found

    async def fault(self, operation: OperationKind, kind: str, **more: Any) -> None:
        await self.sandbox.faults(self.gateway, {"operation": operation.value, "kind": kind, **more})

    async def webhooks(self, is_there: Callable[[set[str]], bool]) -> set[tuple[str, int | None, str | None]]:
        """What all webhooks so far say, masked as webhook_ingest does."""

        def said() -> set[tuple[str, int | None, str | None]]:
            found = set()
            for request in self.sandbox.receiver.requests:
                payload = redact_body("application/json", request.content)
                delivery = Delivery("application/json", payload, None, SystemClock().now())
                for o in self.adapter.translate_webhook(delivery).observations:
                    found.add((str(o.kind), o.amount.amount_minor if o.amount else None, o.operation))
            return found

        await until(lambda: is_there({kind for kind, _, _ in said()}), what="the sandbox's webhooks")
        return said()


@pytest.fixture(params=["stripe", "generic"])
async def bench(request: pytest.FixtureRequest, service_database: ServiceDatabase) -> AsyncIterator[Bench]:
    ports = system_ports()
    async with (
        running_sandbox(service_database("gateway_sandbox")) as sandbox,
        build_http_client(ports, transport=httpx.AsyncHTTPTransport()) as client,
    ):
        base = f"{sandbox.url}/sandbox/{request.param}"
        http = HttpCaller(client, ports)
        adapter: GatewayAdapter = (
            Stripe(StripeSettings(api_key=SecretStr("sk_test_sandbox"), api_base=base), http)
            if request.param == "stripe"
            else Generic(GenericSettings(api_base=base, api_key=SecretStr(GENERIC_KEY)), http)
        )
        yield Bench(request.param, adapter, sandbox)


async def send(bench: Bench, call: MoneyCall) -> Any:
    return await {CAPTURE: bench.adapter.capture, VOID: bench.adapter.void, REFUND: bench.adapter.refund}[call.kind](
        call
    )


async def test_several_captures_a_final_one_and_refunds(bench: Bench) -> None:
    await bench.pay(CaptureMode.MANUAL)
    first, last = bench.call(CAPTURE, 700), bench.call(CAPTURE, 300, is_final=True)
    assert (await send(bench, first)).status is OutcomeStatus.SUCCEEDED
    assert {("authorized", 1999, None), ("captured", 700, None)} <= await bench.told()
    outcome = await send(bench, last)
    assert {o.kind for o in outcome.observations} >= {FactKind.CAPTURED, FactKind.RELEASED}

    refund = bench.call(REFUND, 400, reason="requested_by_customer")
    assert (await send(bench, refund)).status is OutcomeStatus.SUCCEEDED
    told = await bench.told()
    assert {("captured", 1000, None), ("released", None, None), ("refund_succeeded", 400, refund.reference)} == told
    books = await bench.books()
    assert (books["captured_minor"], books["refunded_minor"]) == (1000, 400)
    assert [each["reference"] for each in books["captures"]] == [first.reference, last.reference]
    for call in (first, last, refund):
        found = await bench.adapter.find_operation(call)
        assert found is not None
        assert found.status is OutcomeStatus.SUCCEEDED
    assert await bench.adapter.find_operation(bench.call(CAPTURE, 700)) is None
    assert await bench.adapter.find_operation(bench.call(REFUND, 400)) is None


async def test_a_void_ends_the_hold_and_a_void_after_a_capture_its_rest(bench: Bench) -> None:
    await bench.pay(CaptureMode.MANUAL)
    void = bench.call(VOID, 1999)
    assert await bench.adapter.find_operation(void) is None
    await send(bench, bench.call(CAPTURE, 500))
    assert (await send(bench, void)).status is OutcomeStatus.SUCCEEDED
    assert await bench.told() == {("captured", 500, None), ("released", None, None)}
    assert (await bench.adapter.find_operation(void)) is not None
    with pytest.raises(GatewayRejected):
        await send(bench, bench.call(CAPTURE, 1))


@pytest.mark.parametrize("kind", [CAPTURE, VOID, REFUND])
async def test_a_timeout_after_the_work_is_answered_by_repeating(bench: Bench, kind: OperationKind) -> None:
    await bench.pay(CaptureMode.AUTOMATIC if kind is REFUND else CaptureMode.MANUAL)
    await bench.fault(kind, "timeout_after", seconds=0.05, count=2)
    call = bench.call(kind, 1999, is_whole=True)
    assert (await send(bench, call)).status is OutcomeStatus.SUCCEEDED
    books = await bench.books()
    assert len([each for each in books["operations"] if each["operation"] == kind.value]) == 1


@pytest.mark.parametrize("kind", [CAPTURE, VOID, REFUND])
@pytest.mark.parametrize("after_work", [True, False])
async def test_a_silent_call_is_found_or_proved_absent(bench: Bench, kind: OperationKind, after_work: bool) -> None:
    await bench.pay(CaptureMode.AUTOMATIC if kind is REFUND else CaptureMode.MANUAL)
    await bench.fault(kind, "timeout_after" if after_work else "timeout_before", seconds=0.05, count=3)
    call = bench.call(kind, 1999, is_whole=True)
    with pytest.raises(GatewayOutcomeUnknown):
        await send(bench, call)
    found = await bench.adapter.find_operation(call)
    assert (found is not None) is after_work
    assert (await send(bench, call)).status is OutcomeStatus.SUCCEEDED
    books = await bench.books()
    assert len([each for each in books["operations"] if each["operation"] == kind.value]) == 1


@pytest.mark.parametrize("kind", [CAPTURE, REFUND])
async def test_a_stored_failure_uses_its_key_up_only_where_nothing_ran(bench: Bench, kind: OperationKind) -> None:
    await bench.pay(CaptureMode.AUTOMATIC if kind is REFUND else CaptureMode.MANUAL)
    await bench.fault(kind, "error_5xx", status=500)
    call = bench.call(kind, 500)
    with pytest.raises(KeyUsedUp):
        await send(bench, call)
    again = replace(call, idempotency_key=f"{call.reference}-2")
    await bench.fault(kind, "error_5xx", status=500, after_work=True)
    assert (await send(bench, again)).status is OutcomeStatus.SUCCEEDED
    assert len((await bench.books())["captures" if kind is CAPTURE else "refunds"]) == 1


@pytest.mark.parametrize("kind", [CAPTURE, VOID, REFUND])
async def test_a_business_refusal_keeps_its_code(bench: Bench, kind: OperationKind) -> None:
    await bench.pay(CaptureMode.AUTOMATIC if kind is REFUND else CaptureMode.MANUAL)
    await bench.fault(kind, "reject")
    with pytest.raises(GatewayRejected) as raised:
        await send(bench, bench.call(kind, 1999, is_whole=True))
    assert raised.value.gateway_code


async def test_done_already_under_another_key_is_answered_with_what_is_there(bench: Bench) -> None:
    await bench.pay(CaptureMode.MANUAL)
    for kind in (CAPTURE, REFUND):
        call = bench.call(kind, 1999, is_whole=True)
        await send(bench, call)
        again = await send(bench, replace(call, idempotency_key=f"{call.reference}-2"))
        assert again.status is OutcomeStatus.SUCCEEDED
        with pytest.raises(GatewayRejected):
            await send(bench, bench.call(kind, 1999, is_whole=True))


async def test_what_is_done_in_the_dashboard_is_imported_by_webhook_and_by_asking(bench: Bench) -> None:
    await bench.pay(CaptureMode.AUTOMATIC)
    refunded = await bench.sandbox.control(bench.gateway, f"sessions/{bench.session}/refunds", amount_minor=500)
    assert refunded.status_code == 201, refunded.text
    disputed = await bench.sandbox.control(bench.gateway, f"sessions/{bench.session}/disputes", amount_minor=1000)
    assert disputed.status_code == 201, disputed.text
    facts = {("refund_succeeded", 500, None), ("dispute_opened", 1000, None)}
    assert facts <= await bench.told()
    assert facts <= await bench.webhooks(lambda kinds: {"refund_succeeded", "dispute_opened"} <= kinds)

    dispute = disputed.json()["disputes"][0]["dispute_id"]
    closed = await bench.sandbox.control(bench.gateway, f"disputes/{dispute}", status="lost")
    assert closed.status_code == 200, closed.text
    assert ("dispute_lost", 1000, None) in await bench.told()
    assert ("dispute_lost", 1000, None) in await bench.webhooks(lambda kinds: "dispute_lost" in kinds)


async def test_a_refund_that_is_pending_and_then_fails(bench: Bench) -> None:
    await bench.pay(CaptureMode.AUTOMATIC)
    await bench.fault(REFUND, "pending")
    call = bench.call(REFUND, 500)
    outcome = await send(bench, call)
    assert outcome.status is OutcomeStatus.PENDING
    assert ("refund_pending", 500, call.reference) in await bench.told()
    failed = await bench.sandbox.control(bench.gateway, f"refunds/{outcome.gateway_reference}", status="failed")
    assert failed.status_code == 200, failed.text
    found = await bench.adapter.find_operation(call)
    assert found is not None
    assert (found.status, bool(found.failure_code)) == (OutcomeStatus.FAILED, True)
    assert ("refund_failed", 500, call.reference) in await bench.webhooks(lambda kinds: "refund_failed" in kinds)


@pytest.mark.parametrize("status", ["succeeded", "failed"])
async def test_a_capture_that_is_pending_and_then_settles(bench: Bench, status: str) -> None:
    await bench.pay(CaptureMode.MANUAL)
    await bench.fault(CAPTURE, "pending")
    call = bench.call(CAPTURE, 1999, is_whole=True)
    assert (await send(bench, call)).status is OutcomeStatus.PENDING
    capture = (await bench.books())["captures"][0]["capture_id"]
    settled = await bench.sandbox.control(bench.gateway, f"captures/{capture}", status=status)
    assert settled.status_code == 200, settled.text
    found = await bench.adapter.find_operation(call)
    assert found is not None
    assert found.status == status


async def test_a_hold_that_lapses(bench: Bench) -> None:
    await bench.pay(CaptureMode.MANUAL)
    lapsed = await bench.sandbox.control(bench.gateway, f"sessions/{bench.session}/hold", expire=True)
    assert lapsed.status_code == 200, lapsed.text
    assert ("expired", None, None) in await bench.told()
    with pytest.raises(GatewayRejected):
        await send(bench, bench.call(CAPTURE, 1999, is_whole=True))
    await bench.webhooks(lambda kinds: "expired" in kinds)


@pytest.mark.parametrize("amount", [Money(500, "JPY"), Money(5120, "KWD"), Money(4999, "INR"), Money(300, "ISK")])
async def test_amounts_agree_with_the_books_in_every_exponent(bench: Bench, amount: Money) -> None:
    await bench.pay(CaptureMode.MANUAL, amount)
    part = amount.amount_minor // 10 * 5 if amount.currency != "KWD" else 2560
    bench.adapter.check_operation(CAPTURE, Money(part, amount.currency))
    await send(bench, bench.call(CAPTURE, part, is_final=True))
    await send(bench, bench.call(REFUND, part, is_whole=True))
    books = await bench.books()
    assert (books["captured_minor"], books["refunded_minor"]) == (part, part)
    assert {("captured", part), ("refund_succeeded", part)} <= {(kind, minor) for kind, minor, _ in await bench.told()}
