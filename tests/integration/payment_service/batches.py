"""Webhooks in batches beside webhooks one by one: two databases with the same payments, and all that is in them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from services.payment_service.domain.models import (
    Attempt,
    AttemptStatus,
    CaptureMode,
    Customer,
    Fact,
    FactKind,
    FactSource,
    Item,
    Observation,
    Payment,
    PaymentState,
    Terms,
)
from services.payment_service.domain.operations import CallState, Operation, OperationKind, Origin
from services.payment_service.gateways.port import Delivery, GatewayEvent, UnreadableWebhook
from services.payment_service.messaging.handlers import WebhookBatchHandler, WebhookHandler
from services.payment_service.use_cases.record_facts import Learnt, settle
from shared.contracts.envelope import EventEnvelope
from shared.contracts.webhook_events import WebhookReceived
from shared.messaging.consumer import correlated_with
from shared.money import Money
from shared.unit_of_work import InboxClaim
from tests.integration.payment_service.conftest import World

CONSUMER = "payment.webhooks"
ClaimedEvent = tuple[EventEnvelope, InboxClaim]


@dataclass
class Town:
    """Gateway events by the name that is their delivery's payload: whatever a gateway may say, without its JSON."""

    events: dict[str, GatewayEvent | None] = field(default_factory=dict)
    """None: it cannot be read."""
    numbers: int = 0

    def translate(self, delivery: Delivery) -> GatewayEvent:
        event = self.events[delivery.payload]
        if event is None:
            raise UnreadableWebhook("garbled")
        return event

    def message(
        self, world: World, event: GatewayEvent | None, *, gateway: str = "generic", trust: str = "full"
    ) -> ClaimedEvent:
        self.numbers += 1
        name = f"whd_{self.numbers}"
        self.events[name] = event
        received = WebhookReceived.model_validate(
            {
                "delivery_id": name,
                "gateway": gateway,
                "trust": trust,
                "received_at": world.clock.now() + timedelta(seconds=self.numbers),
                "content_type": "application/json",
                "payload": name,
            }
        )
        envelope = EventEnvelope(
            id=f"evt_{self.numbers}",
            type=WebhookReceived.TYPE,
            source="/payrail/webhook_ingest",
            subject=name,
            time=world.clock.now(),
            sequence=1,
            traceparent=f"00-{self.numbers:032x}-{self.numbers:016x}-01",
            data=received.model_dump(mode="json"),
        )
        return envelope, InboxClaim(CONSUMER, envelope.id)


def observed(
    kind: FactKind, reference: str, amount: int | None = None, currency: str = "EUR", **more: Any
) -> Observation:
    return Observation(kind, reference, None if amount is None else Money(amount, currency), **more)


def about(*observations: Observation, refs: Sequence[str] = (), ours: Sequence[str] = ()) -> GatewayEvent:
    return GatewayEvent("event", tuple(refs), tuple(ours), observations)


def captured(payment: Payment, amount: int = 1999) -> GatewayEvent:
    reference = payment.gateway_reference or ""
    return about(observed(FactKind.CAPTURED, reference, amount), refs=[reference], ours=[payment.payment_id])


async def apply_one_by_one(world: World, messages: Sequence[ClaimedEvent]) -> None:
    handler = WebhookHandler(world.container.context)
    for envelope, claim in messages:
        with correlated_with(envelope, claim.consumer):
            await handler(envelope, claim)


async def apply_batch(world: World, messages: Sequence[ClaimedEvent]) -> None:
    handler = WebhookBatchHandler(world.container.context)
    assert all(handler.takes(envelope) for envelope, _ in messages)
    await handler(messages)


# --- the same payments in every world ------------------------------------------------------------------------------


def a_payment(world: World, number: int, *, order: int | None = None, manual: bool = False) -> Payment:
    now = world.clock.now()
    return Payment(
        payment_id=f"pay_{number:026d}",
        order_id=f"ord_{order if order is not None else number:026d}",
        gateway="generic",
        terms=Terms(Money(1999, "EUR"), CaptureMode.MANUAL if manual else CaptureMode.AUTOMATIC),
        state=PaymentState(),
        version=1,
        description="Order",
        customer=Customer("ada@example.com", "Ada"),
        items=(Item("Tea", 1, 1999),),
        success_url="https://shop.example/thanks",
        failure_url="https://shop.example/failed",
        cancel_url="https://shop.example/cart",
        request_digest=b"digest",
        created_at=now,
        updated_at=now,
        expires_at=now + timedelta(hours=1),
        authorization_valid_for=timedelta(days=7),
        gateway_reference=f"gp_{number}",
    )


async def store(world: World, payment: Payment, *operations: Operation, opened: bool = True) -> None:
    """As if it had been created, and its page opened."""
    attempt = Attempt(
        attempt_id=payment.payment_id.replace("pay_", "att_"),
        payment_id=payment.payment_id,
        reference=f"REF{payment.payment_id[-8:]}",
        idempotency_key=payment.payment_id,
        status=AttemptStatus.CREATED,
        session_expires_at=payment.expires_at,
        created_at=payment.created_at,
    )
    async with world.container.context.uow() as tx:
        await tx.payments.add(payment)
        await tx.attempts.add(attempt)
        reference = payment.gateway_reference
        if not opened or reference is None:
            return
        await tx.payments.add_references(payment, [reference])
        fact = Fact(observed(FactKind.SESSION_OPENED, reference), FactSource.API, payment.created_at)
        await tx.facts.add(payment.payment_id, fact, learnt_by=attempt.attempt_id)
        learnt = Learnt(FactSource.API, payment.created_at, by=attempt.attempt_id)
        await settle(tx, replace(payment, gateway_reference=None), learnt, after=payment, added=operations)


def an_operation(payment: Payment, kind: OperationKind, amount: int, call: CallState, number: int) -> Operation:
    return Operation(
        operation_id=f"{kind.value[:3]}_{number:026d}",
        payment_id=payment.payment_id,
        kind=kind,
        reference=f"OURS{number:016d}",
        amount=Money(amount, "EUR"),
        origin=Origin.API,
        actor="shop",
        created_at=payment.created_at,
        updated_at=payment.created_at,
        target=payment.gateway_reference,
        call=call,
        calls=0 if call is CallState.UNSENT else 1,
        next_look_at=payment.created_at + timedelta(hours=1),
    )


# --- chance --------------------------------------------------------------------------------------------------------

_AMOUNTS = (1999, 1999, 1999, 1999, 1000, 999, 2500, 0)
_MONEY = (FactKind.CAPTURED, FactKind.CAPTURED, FactKind.CAPTURED, FactKind.AUTHORIZED, FactKind.CAPTURE_REVERSED)
_PLAIN = (
    FactKind.PROCESSING,
    FactKind.DECLINED,
    FactKind.FAILED,
    FactKind.CANCELED,
    FactKind.EXPIRED,
    FactKind.RELEASED,
    FactKind.APPROVED,
    FactKind.SESSION_OPENED,
)
_REFUNDS = (FactKind.REFUND_PENDING, FactKind.REFUND_SUCCEEDED, FactKind.REFUND_FAILED, FactKind.REFUND_REVERSED)
_DISPUTES = (FactKind.DISPUTE_OPENED, FactKind.DISPUTE_WON, FactKind.DISPUTE_LOST)


class Chance:
    """What gateways say about a few payments, in any order and of any sense."""

    def __init__(self, seed: int, payments: Sequence[Payment], operations: Sequence[Operation]) -> None:
        self._random = random.Random(seed)
        self._payments = payments
        self._operations = operations

    def event(self) -> GatewayEvent | None:
        pick = self._random.random()
        if pick < 0.03:
            return None
        if pick < 0.06:
            return GatewayEvent("of no interest", ignored="it moves nothing")
        payment = self._random.choice(self._payments)
        number = int(payment.payment_id[4:])
        known_as = self._names(payment, number)
        count = self._random.choice((1, 1, 1, 2, 3, 0))
        observations = [self._observation(payment, number) for _ in range(count)]
        return about(*observations, **known_as)

    def split(self, messages: Sequence[ClaimedEvent]) -> list[list[ClaimedEvent]]:
        batches, rest = [], list(messages)
        while rest:
            size = self._random.choice((1, 2, 5, 20, 60))
            batches.append(rest[:size])
            rest = rest[size:]
        return batches

    def chosen(self, messages: Sequence[ClaimedEvent]) -> ClaimedEvent:
        return self._random.choice(messages)

    def happens(self, share: float) -> bool:
        return self._random.random() < share

    def _names(self, payment: Payment, number: int) -> dict[str, Any]:
        pick = self._random.random()
        if pick < 0.1:  # nobody's; or one that an event of another name makes known
            return {"refs": [f"pi_{number}_{self._random.randint(1, 2)}"], "ours": ["unheard of"]}
        if pick < 0.4:
            return {"refs": [f"pi_{number}_{self._random.randint(1, 2)}", f"gp_{number}"]}
        if pick < 0.5:
            return {"ours": [payment.order_id]}
        if pick < 0.6:
            return {"refs": ["shared by several"], "ours": [f"REF{payment.payment_id[-8:]}"]}
        return {"refs": [f"gp_{number}"], "ours": [payment.payment_id]}

    def _observation(self, payment: Payment, number: int) -> Observation:
        choose = self._random.choice
        reference = choose((f"gp_{number}", f"gp_{number}", f"pi_{number}_1", ""))
        currency = "USD" if self.happens(0.04) else "EUR"
        at = payment.created_at + timedelta(minutes=self._random.randint(0, 3)) if self.happens(0.5) else None
        pick = self._random.random()
        if pick < 0.5:
            ends = payment.created_at + timedelta(days=9) if self.happens(0.2) else None
            return observed(choose(_MONEY), reference, choose(_AMOUNTS), currency, occurred_at=at, capture_before=ends)
        if pick < 0.65:
            return observed(choose(_PLAIN), reference, reason=choose((None, "declined", "Free text")), occurred_at=at)
        if pick < 0.9:
            return self._refund(number, currency)
        return observed(
            choose(_DISPUTES), f"dp_{number}_{self._random.randint(1, 2)}", choose(_AMOUNTS), currency, reason="fraud"
        )

    def _refund(self, number: int, currency: str) -> Observation:
        choose = self._random.choice
        ours = [each.reference for each in self._operations if each.payment_id.endswith(f"{number:08d}")]
        return observed(
            choose(_REFUNDS),
            f"re_{number}_{self._random.randint(1, 3)}",
            choose((300, 500, 1999)),
            currency,
            about=choose((None, f"gp_{number}")),
            operation=choose((None, None, *ours)),
        )


# --- all that is there ---------------------------------------------------------------------------------------------

_TABLES = {
    "payments": "SELECT * FROM payments ORDER BY payment_id",
    "operations": "SELECT * FROM operations ORDER BY payment_id, created_at, kind, gateway_reference, request_key, "
    "amount_minor, reference",
    "disputes": "SELECT * FROM disputes ORDER BY payment_id, gateway_reference",
    "parked": "SELECT parked_id, gateway, account, delivery_id, event_type, trust, payload, refs, status, received_at "
    "FROM parked_events ORDER BY delivery_id",
    "facts": "SELECT payment_id, natural_key, kind, source, object_reference, amount_minor, currency, reason, "
    "learnt_by, about, operation, capture_before, occurred_at, received_at "
    "FROM payment_facts ORDER BY payment_id, position",
    "references": "SELECT gateway, account, reference, payment_id FROM payment_references "
    "ORDER BY payment_id, position",
    "timeline": "SELECT payment_id, at, kind, summary, source, actor, reference, amount_minor, currency, request_id, "
    "details FROM payment_timeline ORDER BY payment_id, position",
    "ledger": "SELECT payment_id, payment_version, cause, at, line, account, gateway, currency, amount_minor "
    "FROM ledger_entries JOIN ledger_postings USING (entry_id) ORDER BY payment_id, ledger_entries.entry_id, line",
    "outbox": "SELECT convert_from(body, 'UTF8')::jsonb - 'id' AS event FROM outbox_messages "
    "ORDER BY convert_from(body, 'UTF8')::jsonb ->> 'correlationid', "
    "convert_from(body, 'UTF8')::jsonb #>> '{data,delivery_id}', subject, sequence",
    "sequences": "SELECT last_sequence FROM outbox_sequences WHERE subject LIKE 'pay%' ORDER BY subject",
    "inbox": "SELECT consumer, message_id, status, attempts FROM inbox_messages ORDER BY message_id",
}
_MADE = re.compile(r"\b(?:(?:ref|cmp|dsp|prk)_[0-9a-hjkmnp-tv-z]{26}|[0-9A-HJKMNP-TV-Z]{20})\b")


async def everything(world: World) -> dict[str, list[str]]:
    """Every row, with the ids that chance has made replaced by their number in the order of rows."""
    names: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        made = match.group()
        if made.startswith("OURS") or re.search("_0{9}", made):
            return made
        return names.setdefault(made, f"made-{len(names)}")

    return {
        table: [_MADE.sub(name, str(sorted(row.items()))) for row in await world.rows(sql)]
        for table, sql in _TABLES.items()
    }
