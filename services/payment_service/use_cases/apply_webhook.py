"""Apply a verified webhook exactly once, or park it until its payment is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.domain.models import FactSource, Observation, ParkedEvent, ParkedStatus, Payment
from services.payment_service.gateways.port import Delivery, GatewayEvent, Snapshot, UnreadableWebhook
from services.payment_service.use_cases.ports import PARKED_CHANNEL, Context
from services.payment_service.use_cases.record_facts import Learnt, record_facts
from services.payment_service.use_cases.recording_ports import RecordingTransaction
from shared.contracts.webhook_events import WebhookParked, WebhookReceived
from shared.correlation import current_correlation
from shared.errors import GatewayObjectNotFound
from shared.unit_of_work import InboxClaim, NewEvent

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Webhook:
    """A delivery on its way to its payment, the first time or out of the parking place."""

    delivery_id: str
    gateway: str
    account: str | None
    event_type: str | None
    trust: str
    content_type: str
    payload: str
    received_at: datetime

    @classmethod
    def from_event(cls, event: WebhookReceived) -> Webhook:
        return cls(
            event.delivery_id,
            event.gateway,
            event.account,
            event.event_type,
            event.trust,
            event.content_type,
            event.payload,
            event.received_at,
        )

    @classmethod
    def from_parked(cls, parked: ParkedEvent) -> Webhook:
        return cls(
            parked.delivery_id,
            parked.gateway,
            parked.account,
            parked.event_type,
            parked.trust,
            parked.content_type,
            parked.payload,
            parked.received_at,
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """A webhook as its gateway's adapter reads it, before anything is looked up. Without an event it could not be
    read: its gateway is not enabled, or ``unreadable`` says why."""

    webhook: Webhook
    event: GatewayEvent | None = None
    unreadable: str | None = None

    @property
    def is_of_interest(self) -> bool:
        """Whether there is more to do than to claim it."""
        return self.unreadable is not None or (self.event is not None and self.event.ignored is None)

    @property
    def speaks_for_itself(self) -> bool:
        """Whether the gateway need not be asked what has happened."""
        return self.webhook.trust == "full" and self.event is not None and not self.event.must_ask

    @property
    def names_its_objects(self) -> bool:
        return self.event is not None and all(observation.object_reference for observation in self.event.observations)


def read_webhook(event: WebhookReceived, context: Context) -> Reading:
    """Pure; raises nothing that the webhook's content could be the reason of."""
    webhook = Webhook.from_event(event)
    if webhook.gateway not in context.gateways:
        return Reading(webhook)
    try:
        return Reading(webhook, _translate(webhook, context))
    except UnreadableWebhook as error:
        return Reading(webhook, unreadable=str(error))


def tell_of(reading: Reading) -> None:
    """The log's line about a webhook that changes no payment."""
    webhook = reading.webhook
    about = {"gateway": webhook.gateway, "delivery_id": webhook.delivery_id}
    if reading.unreadable is not None:
        log.error("webhook_unreadable", reason=reading.unreadable, **about)
    elif reading.event is None:
        log.warning("webhook_of_disabled_gateway", **about)
    elif reading.event.ignored is not None:
        log.info(
            "webhook_ignored",
            gateway=webhook.gateway,
            event_type=reading.event.event_type,
            reason=reading.event.ignored,
        )


async def apply_webhook(event: WebhookReceived, claim: InboxClaim, context: Context) -> None:
    """Translate, ask where the event alone is not to be believed, then claim, record and announce in one transaction.

    A gateway that is not enabled, or an event type of no interest, is only claimed. What cannot be read is parked for a
    person. Raises GatewayUnavailable or GatewayOutcomeUnknown where asking failed: the message is then tried again.
    """
    reading = read_webhook(event, context)
    tell_of(reading)
    believed = None
    if reading.event is not None and reading.is_of_interest:
        believed = await ask_if_needed(reading.webhook, reading.event, context)
    async with context.uow() as tx:
        if await tx.inbox.claim(claim):
            await apply_reading(tx, reading, believed, context)


async def apply_reading(
    tx: RecordingTransaction, reading: Reading, believed: GatewayEvent | None, context: Context
) -> None:
    """What a claimed webhook does. ``believed``: what is to be believed of it; None where its payment is not known."""
    webhook, event = reading.webhook, reading.event
    if reading.unreadable is not None:
        await tx.parked.add(_parked(webhook, (), ParkedStatus.UNREADABLE, context))
    if event is None or not reading.is_of_interest:
        return
    if believed is None or not await apply_translated(tx, webhook, believed, context):
        await _park(tx, webhook, event, context)


async def apply_translated(tx: RecordingTransaction, webhook: Webhook, event: GatewayEvent, context: Context) -> bool:
    """Record the event's facts; False where no payment of that account is known by any of its references."""
    payment_id = await _find(tx, webhook, event, context)
    if payment_id is None:
        # Again, now against a payment that is being created at this moment (failure PY5).
        await tx.parked.lock_references(webhook.gateway, (*event.references, *event.our_references))
        payment_id = await _find(tx, webhook, event, context)
        if payment_id is None:
            return False
    payment = await tx.payments.get_for_update(payment_id)
    assert payment is not None
    now = context.clock.now()
    learnt = Learnt(FactSource.WEBHOOK, webhook.received_at, by=webhook.delivery_id, recorded_at=now)
    observations = _about(payment, event.observations)
    await record_facts(tx, payment, observations, learnt, references=event.references)
    return True


async def ask_if_needed(webhook: Webhook, event: GatewayEvent, context: Context) -> GatewayEvent | None:
    """Replace what must not be believed by what the gateway answers when asked (``trust: hint``, design.md §6).

    None where it must be asked about and its payment is not known yet, or is of an account that is not enabled here
    (any more): then it waits, and a person is called after the deadline. The gateway is asked about references that a
    hint brings only if they are known as this payment's: else a forged hint could lend it another payment's money.
    """
    reading = Reading(webhook, event)
    if reading.speaks_for_itself and reading.names_its_objects:
        return event
    async with context.uow() as tx:
        payment_id = await _find(tx, webhook, event, context)
        if payment_id is None:
            return None
        payment = await tx.payments.get(payment_id)
        known = await tx.payments.references(payment_id)
        attempt = await tx.attempts.latest(payment_id)
    assert payment is not None
    assert attempt is not None
    if not context.gateways.has(payment.gateway, payment.account):
        return None
    if reading.speaks_for_itself and payment.gateway_reference is not None:
        return event
    believed = event.references if webhook.trust == "full" else ()
    asked_about = tuple(dict.fromkeys((*believed, *known, *event.asks_about)))
    adapter = context.gateways.get(payment.gateway, payment.account)
    try:
        snapshot = await adapter.retrieve(asked_about, our_reference=attempt.reference)
    except GatewayObjectNotFound:
        snapshot = Snapshot(believed, ())
    # Named by our id, so that the answer is recorded on the payment that was asked about, and on no other.
    return replace(
        event, references=snapshot.references, our_references=(payment_id,), observations=snapshot.observations
    )


def _translate(webhook: Webhook, context: Context) -> GatewayEvent:
    if webhook.gateway not in context.gateways:
        raise GatewayNotEnabled(f"the gateway {webhook.gateway!r} is not enabled here")
    adapter = context.gateways.reader_of(webhook.gateway, webhook.account)
    delivery = Delivery(webhook.content_type, webhook.payload, webhook.event_type, webhook.received_at)
    return adapter.translate_webhook(delivery)


def retranslate(webhook: Webhook, context: Context) -> GatewayEvent:
    """Of a parked event. Raises UnreadableWebhook."""
    return _translate(webhook, context)


async def _find(tx: RecordingTransaction, webhook: Webhook, event: GatewayEvent, context: Context) -> str | None:
    """Only a payment of the account that the webhook was verified for: who holds one account's secret says nothing
    about another's money (failure W15)."""
    account = context.gateways.account_of(webhook.gateway, webhook.account)
    return await tx.payments.find(webhook.gateway, event.references, event.our_references, account=account)


def _about(payment: Payment, observations: Sequence[Observation]) -> list[Observation]:
    """A gateway that names no object of its own speaks of the session that we know."""
    about = payment.gateway_reference or payment.payment_id
    return [o if o.object_reference else replace(o, object_reference=about) for o in observations]


async def _park(tx: RecordingTransaction, webhook: Webhook, event: GatewayEvent, context: Context) -> None:
    references = (*event.references, *event.our_references)
    await tx.parked.lock_references(webhook.gateway, references)
    # Its payment may have been created since it was looked for: then nobody else will wake it.
    known = await _find(tx, webhook, event, context)
    status = ParkedStatus.WAITING if known is None else ParkedStatus.READY
    parked = _parked(webhook, references, status, context)
    if not await tx.parked.add(parked):
        return
    if status is ParkedStatus.READY:
        tx.hint(PARKED_CHANNEL)
        return
    log.warning("webhook_parked", gateway=webhook.gateway, delivery_id=webhook.delivery_id)
    announced = WebhookParked(
        delivery_id=webhook.delivery_id,
        gateway=webhook.gateway,
        account=webhook.account,
        references=list(references),
        received_at=webhook.received_at,
    )
    correlation = current_correlation()
    traceparent = correlation.traceparent if correlation else None
    await tx.outbox.add_many(
        [NewEvent(announced, parked.parked_id, causation_id=webhook.delivery_id, traceparent=traceparent)]
    )


def _parked(webhook: Webhook, references: Sequence[str], status: ParkedStatus, context: Context) -> ParkedEvent:
    return ParkedEvent(
        parked_id=context.ids.new("prk"),
        gateway=webhook.gateway,
        account=context.gateways.account_of(webhook.gateway, webhook.account),
        delivery_id=webhook.delivery_id,
        event_type=webhook.event_type,
        trust=webhook.trust,
        content_type=webhook.content_type,
        payload=webhook.payload,
        received_at=webhook.received_at,
        references=tuple(references),
        status=status,
    )
