"""The books of one gateway inside one transaction, and the sending of what was announced in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from services.gateway_sandbox.domain.deliveries import Delivery, DeliveryState
from services.gateway_sandbox.domain.faults import WEBHOOK, Fault, FaultKind
from services.gateway_sandbox.domain.models import BookCapture, BookDispute, BookEntry, BookRefund, Operation
from services.gateway_sandbox.gateways.port import Announcement, EntryFilter, SettlementLine
from services.gateway_sandbox.use_cases.movements import movements
from services.gateway_sandbox.use_cases.ports import SandboxTransaction
from shared.ports import Ports

_LETTERS_AND_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

UNKNOWN_WORD = "zz_unheard_of"
"""A status that no gateway documents."""

Lens = Callable[[BookEntry], BookEntry]


class TransactionBooks:
    """``Books`` over a transaction. ``fault``: the one that hit this call; it may bend what reads show."""

    def __init__(
        self,
        tx: SandboxTransaction,
        *,
        gateway: str,
        ports: Ports,
        idempotency_key: str | None = None,
        fault: Fault | None = None,
    ) -> None:
        self.now = ports.clock.now()
        self.answers_later = fault is not None and fault.kind is FaultKind.PENDING
        self.pending_code = fault.code if fault is not None and self.answers_later else None
        self._tx = tx
        self._gateway = gateway
        self._ports = ports
        self._idempotency_key = idempotency_key
        self._lens = _lens_for(fault)
        self._speaks_unknown = fault is not None and fault.kind is FaultKind.UNKNOWN_STATUS
        self._announced: list[Announcement] = []

    def new_id(self, prefix: str, length: int = 24) -> str:
        """With a digit in it: by that the ids in a line's details are told from other words (``sow_settlement``)."""
        text = random_text(self._ports, length)
        if not any(map(str.isdigit, text)):  # one in twelve of 14 characters
            text = f"{text[:-1]}{ord(text[-1]) % 10}"
        return prefix + text

    def word(self, text: str) -> str:
        return UNKNOWN_WORD if self._speaks_unknown else text

    async def find(self, reference: str, *, for_update: bool = False) -> BookEntry | None:
        entry = await self._tx.entries.find(self._gateway, reference, for_update=for_update)
        return entry if entry is None or for_update else self._lens(entry)

    async def search(self, wanted: EntryFilter) -> list[BookEntry]:
        return [self._lens(entry) for entry in await self._tx.entries.search(self._gateway, wanted)]

    async def alias(self, entry: BookEntry, other_id: str) -> None:
        await self._tx.entries.add_alias(entry, other_id)

    async def open(self, entry: BookEntry) -> None:
        await self._tx.entries.add(entry)
        await self._record(entry, "create_session", entry.amount_minor)

    async def record(self, entry: BookEntry, operation: str, amount_minor: int | None = None, **details: Any) -> None:
        await self._tx.entries.save(entry)
        await self._record(entry, operation, amount_minor, **details)

    async def add_refund(self, entry: BookEntry, refund: BookRefund) -> None:
        refund.idempotency_key = self._idempotency_key
        await self._tx.entries.save(entry)
        await self._tx.refunds.add(refund)
        await self.alias(entry, refund.refund_id)
        await self._record_refund(entry, refund, "refund")

    async def save_refund(self, entry: BookEntry, refund: BookRefund, operation: str) -> None:
        await self._tx.entries.save(entry)
        await self._tx.refunds.save(refund)
        await self._record_refund(entry, refund, operation)

    async def find_refund(self, refund_id: str) -> BookRefund | None:
        return await self._tx.refunds.find(self._gateway, refund_id)

    async def refunds_of(self, entry: BookEntry) -> list[BookRefund]:
        return (await self._tx.refunds.of(self._gateway, [entry.gateway_reference]))[entry.gateway_reference]

    async def add_capture(self, entry: BookEntry, capture: BookCapture) -> None:
        capture.idempotency_key = self._idempotency_key
        await self._tx.entries.save(entry)
        await self._tx.captures.add(capture)
        await self.alias(entry, capture.capture_id)
        await self._record_capture(entry, capture, "capture")

    async def save_capture(self, entry: BookEntry, capture: BookCapture, operation: str) -> None:
        await self._tx.entries.save(entry)
        await self._tx.captures.save(capture)
        await self._record_capture(entry, capture, operation)

    async def find_capture(self, capture_id: str) -> BookCapture | None:
        return await self._tx.captures.find(self._gateway, capture_id)

    async def captures_of(self, entry: BookEntry) -> list[BookCapture]:
        return (await self._tx.captures.of(self._gateway, [entry.gateway_reference]))[entry.gateway_reference]

    async def add_dispute(self, entry: BookEntry, dispute: BookDispute) -> None:
        await self._tx.entries.save(entry)
        await self._tx.disputes.add(dispute)
        await self.alias(entry, dispute.dispute_id)
        await self._record(entry, "dispute", dispute.amount_minor, dispute_id=dispute.dispute_id)

    async def save_dispute(self, entry: BookEntry, dispute: BookDispute, operation: str) -> None:
        await self._tx.entries.save(entry)
        await self._tx.disputes.save(dispute)
        await self._record(entry, operation, dispute.amount_minor, dispute_id=dispute.dispute_id)

    async def find_dispute(self, dispute_id: str) -> BookDispute | None:
        return await self._tx.disputes.find(self._gateway, dispute_id)

    async def disputes_of(self, entry: BookEntry) -> list[BookDispute]:
        return (await self._tx.disputes.of(self._gateway, [entry.gateway_reference]))[entry.gateway_reference]

    async def movements(self, since: datetime, until: datetime) -> list[SettlementLine]:
        return await movements(self._gateway, self._tx, since=since, until=until)

    def announce(self, announcement: Announcement) -> None:
        self._announced.append(announcement)

    async def enqueue_announced(self) -> int:
        """Turn announcements into deliveries, in this transaction; a fault for webhooks is used up here."""
        ready: list[Delivery] = []
        for announcement in self._announced:
            fault = await self._tx.faults.take(self._gateway, (WEBHOOK,))
            ready += self._deliveries_of(announcement, fault)
        if ready:
            await self._tx.deliveries.add(ready)
        self._announced.clear()
        return len(ready)

    def _deliveries_of(self, announcement: Announcement, fault: Fault | None) -> list[Delivery]:
        entry = announcement.entry
        if fault is not None and fault.kind is FaultKind.WRONG_AMOUNT:
            entry = entry.showing(fault.amount_instead_of(entry.amount_minor), fault.currency)
        delivery = Delivery(
            gateway=self._gateway,
            event_id=announcement.event_id,
            event_type=announcement.event_type,
            gateway_reference=entry.gateway_reference,
            body=announcement.render(entry),
            created_at=self.now,
            next_try_at=self.now,
        )
        return _distorted(delivery, fault) if fault is not None else [delivery]

    async def _record_refund(self, entry: BookEntry, refund: BookRefund, operation: str) -> None:
        details = {"refund_id": refund.refund_id, "reference": refund.reference}
        await self._record(entry, operation, refund.amount_minor, **details)

    async def _record_capture(self, entry: BookEntry, capture: BookCapture, operation: str) -> None:
        details = {"capture_id": capture.capture_id, "reference": capture.reference}
        await self._record(entry, operation, capture.amount_minor, **details)

    async def _record(self, entry: BookEntry, operation: str, amount_minor: int | None, **details: Any) -> None:
        record = Operation(operation, self.now, amount_minor, self._idempotency_key, details)
        await self._tx.operations.add(entry, record)


def _lens_for(fault: Fault | None) -> Lens:
    """What ``wrong_amount`` does to reads: they show something else than what is written."""
    if fault is None or fault.kind is not FaultKind.WRONG_AMOUNT:
        return lambda entry: entry
    return lambda entry: entry.showing(fault.amount_instead_of(entry.amount_minor), fault.currency)


def random_text(ports: Ports, length: int) -> str:
    """Letters and digits; the slight bias of the modulo does not help anybody guess an id of this length."""
    return "".join(_LETTERS_AND_DIGITS[byte % 62] for byte in ports.randomness.token_bytes(length))


def _distorted(delivery: Delivery, fault: Fault) -> list[Delivery]:
    later = delivery.created_at + timedelta(seconds=fault.seconds)
    match fault.kind:
        case FaultKind.DUPLICATE:
            return [delivery, *(replace(delivery) for _ in range(fault.copies))]
        case FaultKind.LOSE:
            return [replace(delivery, state=DeliveryState.LOST)]
        case FaultKind.LATE:
            return [replace(delivery, next_try_at=later)]
        case FaultKind.REORDER:  # released by the next delivery, or by time when no other event comes
            return [replace(delivery, next_try_at=later, held=True)]
        case _:
            return [delivery]
