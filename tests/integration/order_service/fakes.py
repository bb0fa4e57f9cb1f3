"""The payment service and the mail server as fakes behind their ports, and builders of what the tests need."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from services.order_service.bootstrap import Container
from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.invoicing.page import as_html
from services.order_service.messaging.handlers import PaymentEventsHandler
from services.order_service.use_cases.ports import InvoiceRecord, Mail, MailNotSent, OpenedPayment, PaymentRequest
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import STATUS_EVENTS, PaymentEventData, RefundEventData
from shared.unit_of_work import InboxClaim, in_transaction

GATEWAY_PAGE = "https://gateway.example/page/"


class FakePayments:
    """payment_service with its own memory: one session per payment id, whatever is asked how often."""

    def __init__(self) -> None:
        self.sessions: dict[str, PaymentSnapshot] = {}
        self.requests: dict[str, PaymentRequest] = {}
        self.calls: list[tuple[str, str]] = []
        self.sessions_created: Counter[str] = Counter()
        self._failures: dict[str, list[Exception]] = {"open": [], "close": [], "find": []}
        self._found_at_closing: PaymentStatus | None = None
        self.before_open: Callable[[PaymentRequest], Awaitable[None]] | None = None
        self.before_close: Callable[[str], Awaitable[None]] | None = None

    def fails_once(self, operation: str, error: Exception) -> None:
        self._failures[operation].append(error)

    def finds_at_closing(self, status: PaymentStatus) -> None:
        """What the gateway says about an open session when it is asked to close it."""
        self._found_at_closing = status

    async def open(self, request: PaymentRequest) -> OpenedPayment:
        self.calls.append(("open", request.payment_id))
        if self.before_open is not None:
            await self.before_open(request)
        self._maybe_fail("open")
        known = self.requests.setdefault(request.payment_id, request)
        assert known == request, "one payment id was sent with two bodies"
        if request.payment_id not in self.sessions:
            self.sessions_created[request.order_id] += 1
            self.sessions[request.payment_id] = PaymentSnapshot(
                payment_id=request.payment_id,
                order_id=request.order_id,
                gateway=request.gateway,
                status=PaymentStatus.REQUIRES_ACTION,
                version=2,
                amount=request.amount,
                gateway_reference=f"cs_{request.payment_id}",
            )
        snapshot = self.sessions[request.payment_id]
        action = {"type": "redirect", "url": GATEWAY_PAGE + request.payment_id}
        return OpenedPayment(snapshot, action if snapshot.status is PaymentStatus.REQUIRES_ACTION else None, None)

    async def close(self, payment_id: str, *, reason: str) -> PaymentSnapshot | None:
        self.calls.append(("close", payment_id))
        if self.before_close is not None:
            await self.before_close(payment_id)
        self._maybe_fail("close")
        if payment_id not in self.sessions:
            return None
        if self.sessions[payment_id].status is PaymentStatus.REQUIRES_ACTION:
            return self.becomes(payment_id, self._found_at_closing or PaymentStatus.CANCELED)
        return self.sessions[payment_id]

    async def find(self, payment_id: str) -> PaymentSnapshot | None:
        assert not in_transaction()
        self.calls.append(("find", payment_id))
        self._maybe_fail("find")
        return self.sessions.get(payment_id)

    def loses(self, payment_id: str) -> PaymentSnapshot:
        """Its database was restored, or it is the wrong one. Returns what was known."""
        return self.sessions.pop(payment_id)

    def becomes(self, payment_id: str, status: PaymentStatus, **totals: Any) -> PaymentSnapshot:
        """What the gateway did; the payment's version grows."""
        before = self.sessions[payment_id]
        if status in (PaymentStatus.CAPTURED, PaymentStatus.AUTHORIZED):
            totals.setdefault("amount_authorized", before.amount.amount_minor)
        if status is PaymentStatus.CAPTURED:
            totals.setdefault("amount_captured", before.amount.amount_minor)
        after = replace(before, status=status, version=before.version + 1, **totals)
        self.sessions[payment_id] = after
        return after

    def _maybe_fail(self, operation: str) -> None:
        if self._failures[operation]:
            raise self._failures[operation].pop(0)


class QuickInvoices:
    """Draws nothing, at once."""

    async def as_pdf(self, record: InvoiceRecord) -> bytes:
        return f"%PDF of {record.label}".encode()

    def as_html(self, record: InvoiceRecord) -> str:
        return as_html(record)


@dataclass
class FakeMailer:
    sent: list[Mail] = field(default_factory=list)
    failures: list[MailNotSent] = field(default_factory=list)

    async def send(self, mail: Mail) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(mail)


def an_event(snapshot: PaymentSnapshot, type_: type[PaymentEventData] | None = None, **more: Any) -> PaymentEventData:
    """The event that payment_service publishes about this state."""
    return (type_ or STATUS_EVENTS[snapshot.status.value])(
        payment_id=snapshot.payment_id,
        order_id=snapshot.order_id,
        gateway=snapshot.gateway,
        gateway_reference=snapshot.gateway_reference,
        status=snapshot.status.value,
        version=snapshot.version,
        amount=snapshot.amount.amount_minor,
        currency=snapshot.amount.currency,
        amount_authorized=snapshot.amount_authorized,
        amount_captured=snapshot.amount_captured,
        amount_refund_pending=snapshot.amount_refund_pending,
        amount_refunded=snapshot.amount_refunded,
        amount_disputed=snapshot.amount_disputed,
        amount_excess=snapshot.amount_excess,
        outcome_unknown=snapshot.outcome_unknown,
        **more,
    )


def a_refund_event(
    snapshot: PaymentSnapshot,
    type_: type[RefundEventData],
    *,
    refund_id: str = "ref_1",
    amount: int | None = None,
    status: str | None = None,
    **more: Any,
) -> PaymentEventData:
    """What payment_service publishes about a refund, with the payment as it is after it."""
    named = type_.TYPE.split(".")[1]
    return an_event(
        snapshot,
        type_,
        refund_id=refund_id,
        refund_amount=snapshot.amount_captured if amount is None else amount,
        refund_status=status or ("pending" if named == "created" else named),
        **more,
    )


def an_envelope(container: Container, event: PaymentEventData) -> EventEnvelope:
    return EventEnvelope(
        id=container.ports.ids.new("evt"),
        type=event.TYPE,
        source="/payrail/payment_service",
        subject=event.payment_id,
        time=container.ports.clock.now(),
        sequence=event.version,
        correlationid=event.order_id,
        data=event.model_dump(mode="json"),
    )


async def deliver(container: Container, *events: PaymentEventData) -> None:
    """Hand events to the consumer, one after the other, as the bus does."""
    for event in events:
        envelope = an_envelope(container, event)
        await PaymentEventsHandler(container.deps)(envelope, a_claim(envelope))


async def deliver_envelope(container: Container, envelope: EventEnvelope) -> None:
    await PaymentEventsHandler(container.deps)(envelope, a_claim(envelope))


def a_claim(envelope: EventEnvelope) -> InboxClaim:
    return InboxClaim("order_service.payments", envelope.id)


def an_order_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "items": [{"sku": "moka-pot", "quantity": 1}],
        "currency": "EUR",
        "customer": {"email": "ada@example.com", "name": "Ada Lovelace", "phone": "+44 20 7946 0000"},
    }
    return body | changes


def a_pay_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "gateway": "stripe",
        "success_url": "https://shop.example/paid",
        "failure_url": "https://shop.example/failed",
        "cancel_url": "https://shop.example/cart",
    }
    return body | changes


async def all_together(*actions: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Start all of them at the same barrier; results in order, exceptions raised."""
    barrier = asyncio.Barrier(len(actions))

    async def run(action: Callable[[], Awaitable[Any]]) -> Any:
        await barrier.wait()
        return await action()

    return await asyncio.gather(*(run(action) for action in actions))
