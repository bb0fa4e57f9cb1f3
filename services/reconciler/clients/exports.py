"""The owners' exports over HTTP: NDJSON streams, read by lines, handed out in batches (contracts/exports.py).

Memory is bounded by a line and a batch, whatever an export's size. A stream counts as whole only with its end line, and
with as many documents before it as that says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from services.reconciler.domain.errors import ExportBroken
from services.reconciler.domain.mirror import KnownOrder, KnownOrderPayment, KnownPayment, Movement, MovementKind
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.mirror_ports import ParkedEvent
from shared.clock import to_rfc3339
from shared.contracts.exports import NDJSON, EndOfExport, ExportedOrder, ExportedParkedEvent, ExportedPayment
from shared.correlation import current_correlation
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable, InvalidAmount, ServiceUnavailable
from shared.http import HttpCaller, StreamPolicy
from shared.money import Money

MAX_LINE_BYTES = 1024 * 1024
BATCH = 1_000
WITHHELD = "withheld"
MAX_REFERENCE = 255
"""A gateway's id is never longer; what is cannot be matched, and no index takes it."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    payment: ExportedPayment | None = None
    order: ExportedOrder | None = None
    parked_event: ExportedParkedEvent | None = None
    end: EndOfExport | None = None


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Owner:
    """A service that exports. ``token`` makes a short-lived service token for each call."""

    name: str
    base_url: str
    caller: HttpCaller
    token: Callable[[], str]


class HttpExportsClient:
    """Satisfies ExportsClient."""

    def __init__(self, payments: Owner, orders: Owner, *, policy: StreamPolicy) -> None:
        self._payments = payments
        self._orders = orders
        self._policy = policy

    def payments(self, since: datetime | None) -> AsyncGenerator[Sequence[KnownPayment], None]:
        return self._read(self._payments, "payments", since, _payment)

    def orders(self, since: datetime | None) -> AsyncGenerator[Sequence[KnownOrder], None]:
        return self._read(self._orders, "orders", since, _order)

    def parked_events(self) -> AsyncGenerator[Sequence[ParkedEvent], None]:
        return self._read(self._payments, "parked-events", None, _parked_event)

    async def _read(
        self, owner: Owner, what: str, since: datetime | None, read: Callable[[_Line], T | None]
    ) -> AsyncGenerator[Sequence[T], None]:
        batch: list[T] = []
        count = 0
        async with aclosing(self._lines(owner, what, since)) as lines:  # the connection ends with the end line
            async for line in lines:
                document = _parsed(line, what)
                if document.end is not None:
                    if document.end.count != count:
                        raise ExportBroken(f"the export of {what} is to have {document.end.count}, and had {count}")
                    if batch:
                        yield batch
                    return
                batch.append(_understood(document, read, what))
                count += 1
                if len(batch) == BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch
        raise ExportBroken(f"the export of {what} broke off after {count}")

    async def _lines(self, owner: Owner, what: str, since: datetime | None) -> AsyncGenerator[bytes, None]:
        url = f"{owner.base_url.rstrip('/')}/api/v1/exports/{what}"
        headers = {"authorization": f"Bearer {owner.token()}", "accept": NDJSON}
        correlation = current_correlation()
        if correlation is not None:
            headers["x-request-id"] = correlation.request_id
        params = {"updated_since": to_rfc3339(since)} if since is not None else None
        try:
            async with owner.caller.stream(url, policy=self._policy, headers=headers, params=params) as answer:
                if answer.status != 200:
                    raise ServiceUnavailable(f"{owner.name} answered {answer.status} to the export of {what}")
                async for line in _split(answer.chunks, what):
                    yield line
        except GatewayUnavailable as error:  # the caller's word for "never reached, or told to slow down"
            raise ServiceUnavailable(f"{owner.name} cannot be reached, or limits our rate") from error
        except GatewayOutcomeUnknown as error:
            raise ExportBroken(f"the export of {what} broke off") from error


async def _split(chunks: AsyncIterator[bytes], what: str) -> AsyncIterator[bytes]:
    """Whole lines; what follows the last line end is none, because it may be a part of one."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                raise ExportBroken(f"a line of the export of {what} is longer than is accepted")
            if line:
                yield line
        if len(rest) > MAX_LINE_BYTES:
            raise ExportBroken(f"a line of the export of {what} is longer than is accepted")


def _parsed(line: bytes, what: str) -> _Line:
    try:
        return _Line.model_validate_json(line)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, each["loc"])) for each in error.errors()}))
        raise ExportBroken(f"a line of the export of {what} is not understood: {fields[:200]}") from None


def _understood(document: _Line, read: Callable[[_Line], T | None], what: str) -> T:
    try:
        found = read(document)
    except InvalidAmount as error:  # a currency that this release does not know
        raise ExportBroken(f"a line of the export of {what} is not understood: {error.detail}") from None
    if found is None:
        raise ExportBroken(f"a line of the export of {what} says something else")
    return found


def _payment(line: _Line) -> KnownPayment | None:
    payment = line.payment
    if payment is None:
        return None
    return KnownPayment(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        gateway=payment.gateway,
        account=payment.account or "",
        status=PaymentStatus(payment.status),
        version=payment.version,
        amount=payment.money,
        standing=Standing(
            amount_authorized=payment.amount_authorized,
            amount_captured=payment.amount_captured,
            amount_refund_pending=payment.amount_refund_pending,
            amount_refunded=payment.amount_refunded,
            amount_disputed=payment.amount_disputed,
            amount_dispute_lost=payment.amount_dispute_lost,
            outcome_unknown=payment.outcome_unknown,
        ),
        amount_excess=payment.amount_excess,
        conflict=payment.conflict,
        duplicate_of=payment.duplicate_of,
        unknown_since=payment.unknown_since,
        created_at=payment.created_at,
        updated_at=payment.updated_at,
        references=tuple(each for each in payment.references if 0 < len(each) <= MAX_REFERENCE),
        movements=tuple(
            Movement(
                MovementKind.CHARGEBACK if each.kind == WITHHELD else MovementKind(each.kind),
                each.reference,
                each.our_reference,
                Money(each.amount_minor, each.currency),
                each.occurred_at,
                is_withheld=each.kind == WITHHELD,
            )
            for each in payment.movements
        ),
        gateway_reference=payment.gateway_reference,
    )


def _order(line: _Line) -> KnownOrder | None:
    order = line.order
    if order is None:
        return None
    return KnownOrder(
        order_id=order.order_id,
        status=order.status,
        payment_status=order.payment_status,
        attention=order.attention,
        total=Money(order.total.amount_minor, order.total.currency),
        confirmed_by=order.confirmed_by,
        version=order.version,
        created_at=order.created_at,
        updated_at=order.updated_at,
        payments=tuple(
            KnownOrderPayment(
                each.payment_id,
                PaymentStatus(each.status),
                each.version,
                each.amount_captured,
                each.amount_refunded,
                each.resolution,
            )
            for each in order.payments
        ),
    )


def _parked_event(line: _Line) -> ParkedEvent | None:
    event = line.parked_event
    if event is None:
        return None
    return ParkedEvent(
        parked_id=event.parked_id,
        gateway=event.gateway,
        account=event.account or "",
        delivery_id=event.delivery_id,
        event_type=event.event_type,
        status=event.status,
        references=tuple(each for each in event.references if 0 < len(each) <= MAX_REFERENCE),
        received_at=event.received_at,
    )
