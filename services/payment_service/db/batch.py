"""A transaction over memory: what many webhooks need is loaded, and what they change is written, together.

It offers the repositories that recording facts needs (``recording_ports``), so the use cases are the same as for one
webhook at a time, and reads see what was written before in the same batch. Messages are claimed and locks are taken on
loading, in one call of a function of ours (migration 0007), each kind in one order and the kinds in the order in which
a single webhook takes them: claims, references, payments, orders (ADR 0022).
What is rare (operations, disputes) goes through the ordinary repositories at once; it touches none of the rows that
wait to be written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import asyncpg

from services.payment_service.db.batch_statements import (
    BatchStatements,
    Found,
    entry_rows,
    fact_row,
    ledger_row,
    parked_row,
    payment_row,
)
from services.payment_service.db.operations import operation_of
from services.payment_service.db.rows import fact_of, payment_with
from services.payment_service.domain.ledger import Posting
from services.payment_service.domain.models import Customer, Fact, ParkedEvent, Payment
from services.payment_service.domain.operations import Operation
from services.payment_service.domain.timeline import TimelineEntry
from services.payment_service.use_cases.recording_ports import (
    NotTogether,
    RecordingDisputes,
    RecordingOperations,
    Wanted,
)
from shared.db.json_rows import with_moments
from shared.replacing import replaced
from shared.unit_of_work import NewEvent


class UnderlyingOutbox(Protocol):
    def arguments(self, events: Sequence[NewEvent]) -> Sequence[Any]: ...


class Underlying(Protocol):
    """What is used of the transaction that it is part of."""

    def new_id(self, prefix: str) -> str: ...

    def new_reference(self) -> str: ...

    def hint(self, channel: str, payload: str = "") -> None: ...

    @property
    def operations(self) -> RecordingOperations: ...

    @property
    def disputes(self) -> RecordingDisputes: ...

    @property
    def outbox(self) -> UnderlyingOutbox: ...


BY_PAYMENT_ID, BY_OUR_REFERENCE, BY_REFERENCE, BY_ORDER_ID = 1, 2, 3, 4
"""What a name is, best first. The rule stands in three places that must say the same: ``_FIND`` in repositories.py for
one webhook, ``claim_and_load_webhooks`` (migration 0007) for many, and ``Names`` for what a batch learns on its way."""


class Names:
    """Which payment is meant by which name: what was found, and what was learnt since."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, str | None, str], str] = {}

    def learn(self, found: Iterable[Found]) -> None:
        for rank, name, gateway, account, payment_id in found:
            key = (rank, gateway, account, name)
            self._known[key] = max(payment_id, self._known.get(key, ""))

    def find(self, wanted: Wanted) -> str | None:
        """The newest payment of the best rank, as ``Payments.find``."""
        ours = wanted.our_references
        of_rank = (
            (BY_PAYMENT_ID, ours),
            (BY_OUR_REFERENCE, ours),
            (BY_REFERENCE, (*wanted.references, *ours)),
            (BY_ORDER_ID, ours),
        )
        for rank, names in of_rank:
            found = [self._known.get((rank, wanted.gateway, wanted.account, name)) for name in names]
            payment_ids = [each for each in found if each is not None]
            if payment_ids:
                return max(payment_ids)
        return None

    def is_reference(self, gateway: str, account: str | None, reference: str) -> bool:
        return (BY_REFERENCE, gateway, account, reference) in self._known


@dataclass(frozen=True, slots=True)
class Sibling:
    payment_id: str
    is_duplicate: bool
    has_money: bool


@dataclass(slots=True)
class Memory:
    """What was loaded, as it is by now, and what waits to be written."""

    claimed: Collection[str] = ()
    names: Names = field(default_factory=Names)
    locked_references: Collection[tuple[str, str]] = ()
    payments: dict[str, Payment] = field(default_factory=dict)
    siblings: dict[str, dict[str, Sibling]] = field(default_factory=lambda: defaultdict(dict))
    facts: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    natural_keys: set[tuple[str, str]] = field(default_factory=set)
    operations: dict[str, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    changed: dict[str, None] = field(default_factory=dict)
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))
    """To be written, by the part of the statement that writes them."""
    events: list[NewEvent] = field(default_factory=list)


async def load(
    consumer: str, message_ids: Sequence[str], wanted: Mapping[str, Wanted], statements: BatchStatements
) -> Memory:
    """Claim these messages; find, lock and read all that those of them are about that were not claimed before."""
    loaded = await statements.claim_and_load(consumer, message_ids, wanted)
    memory = Memory(claimed=loaded.claimed, locked_references=loaded.locked_references)
    memory.names.learn(loaded.found)
    have_operations = []
    for row in loaded.payments:
        payment_id = row["payment_id"]
        memory.payments[payment_id] = payment_with(row, **_NO_PAGE)
        _remember_siblings(row, memory.siblings[row["order_id"]])
        if row["facts"] is not None:
            for natural_key, *columns in json.loads(row["facts"]):
                memory.facts[payment_id].append(_fact(columns))
                memory.natural_keys.add((payment_id, natural_key))
        if row["has_operations"]:
            have_operations.append(payment_id)
    if have_operations:
        for row in await statements.operations(have_operations):
            memory.operations[row["payment_id"]].append(operation_of(row))
    return memory


def _remember_siblings(row: asyncpg.Record, known: dict[str, Sibling]) -> None:
    """Of an order with one payment there is nothing to remember: nobody is its sibling."""
    if row["siblings"] is not None:
        for payment_id, is_duplicate, has_money in json.loads(row["siblings"]):
            known[payment_id] = Sibling(payment_id, is_duplicate, has_money)


_NO_PAGE: Mapping[str, Any] = {
    "description": "",
    "customer": Customer("", ""),
    "items": (),
    "success_url": "",
    "failure_url": "",
    "cancel_url": "",
    "request_digest": b"",
}
"""Instead of what was given for the page where it is paid: nothing that is learnt later depends on it or changes it."""

_FACT_NAMES = (
    "kind",
    "source",
    "object_reference",
    "amount_minor",
    "currency",
    "reason",
    "about",
    "operation",
    "capture_before",
    "occurred_at",
    "received_at",
)
"""In the order in which the database's function gives them, after the natural key."""


def _fact(columns: Sequence[Any]) -> Fact:
    row = dict(zip(_FACT_NAMES, columns, strict=True))
    return fact_of(with_moments(row, "capture_before", "occurred_at", "received_at"))


class BatchTransaction:
    """``RecordingTransaction`` over memory; ``write`` at its end."""

    def __init__(self, underlying: Underlying, memory: Memory, statements: BatchStatements) -> None:
        self._underlying = underlying
        self._memory = memory
        self._statements = statements
        self.claimed = memory.claimed
        self.payments = _Payments(memory)
        self.facts = _Facts(memory)
        self.operations = _Operations(memory, underlying.operations)
        self.disputes = underlying.disputes
        self.timeline = _Timeline(memory)
        self.ledger = _Ledger(memory)
        self.parked = _Parked(memory)
        self.outbox = _Outbox(memory)
        self.new_id = underlying.new_id
        self.new_reference = underlying.new_reference
        self.hint = underlying.hint

    async def write(self) -> None:
        """Raises NotTogether where a delivery is parked already: what was announced about it is then wrong."""
        memory = self._memory
        if memory.changed:
            memory.rows["payments"] = [payment_row(memory.payments[payment_id]) for payment_id in memory.changed]
        events = self._underlying.outbox.arguments(memory.events) if memory.events else ()
        parked = await self._statements.write(memory.rows, events)
        if "parked" in memory.rows and parked != len(memory.rows["parked"]):
            raise NotTogether("a delivery is parked already")


class _Payments:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def get_for_update(self, payment_id: str) -> Payment | None:
        return self._memory.payments.get(payment_id)

    async def save(self, payment: Payment) -> None:
        self._memory.payments[payment.payment_id] = payment
        self._memory.changed[payment.payment_id] = None

    async def find(
        self, gateway: str, references: Sequence[str], our_references: Sequence[str], *, account: str | None = None
    ) -> str | None:
        return self._memory.names.find(Wanted(gateway, account, tuple(references), tuple(our_references)))

    async def add_references(self, payment: Payment, references: Sequence[str]) -> bool:
        names, account = self._memory.names, payment.account
        new = [each for each in dict.fromkeys(references) if not names.is_reference(payment.gateway, account, each)]
        for each in new:
            self._memory.rows["references"].append((payment.gateway, account or "", each, payment.payment_id))
        names.learn((BY_REFERENCE, each, payment.gateway, account, payment.payment_id) for each in new)
        return bool(new)

    async def siblings_with_money(self, payment: Payment) -> list[str]:
        siblings = self._memory.siblings.get(payment.order_id)
        if not siblings:
            return []
        now = (self._now(sibling) for sibling in siblings.values())
        others = [each for each in now if each.has_money and each.payment_id != payment.payment_id]
        return [each.payment_id for each in sorted(others, key=lambda each: (each.is_duplicate, each.payment_id))]

    def _now(self, sibling: Sibling) -> Sibling:
        payment = self._memory.payments.get(sibling.payment_id)
        if payment is None:
            return sibling
        has_money = payment.state.amount_captured > 0 or payment.state.amount_authorized > 0
        return Sibling(payment.payment_id, payment.duplicate_of is not None, has_money)

    async def touch(self, payment_id: str, at: datetime) -> None:
        payment = self._memory.payments[payment_id]
        await self.save(replaced(payment, updated_at=max(payment.updated_at, at)))


class _Facts:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def add(self, payment_id: str, fact: Fact, *, learnt_by: str | None) -> bool:
        natural_key = fact.observation.natural_key
        if (payment_id, natural_key) in self._memory.natural_keys:
            return False
        self._memory.natural_keys.add((payment_id, natural_key))
        self._memory.facts[payment_id].append(fact)
        self._memory.rows["facts"].append(fact_row(payment_id, natural_key, fact, learnt_by))
        return True

    async def all(self, payment_id: str) -> list[Fact]:
        return list(self._memory.facts[payment_id])


class _Operations:
    """Reads from memory; writes at once, and reads anew what it has written."""

    def __init__(self, memory: Memory, real: RecordingOperations) -> None:
        self._memory = memory
        self._real = real

    async def add(self, operation: Operation) -> None:
        await self._real.add(operation)
        await self._read_again(operation.payment_id)

    async def of_payment(self, payment_id: str) -> list[Operation]:
        return list(self._memory.operations[payment_id])

    async def save(self, operation: Operation) -> None:
        await self._real.save(operation)
        await self._read_again(operation.payment_id)

    async def look_now(self, payment_id: str, now: datetime) -> int:
        due = await self._real.look_now(payment_id, now)
        await self._read_again(payment_id)
        return due

    async def _read_again(self, payment_id: str) -> None:
        self._memory.operations[payment_id] = await self._real.of_payment(payment_id)


class _Timeline:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def add(self, payment_id: str, *entries: TimelineEntry) -> None:
        self._memory.rows["timeline"] += entry_rows(payment_id, entries)


class _Ledger:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def post(self, payment: Payment, lines: Sequence[Posting], *, cause: str, at: datetime) -> None:
        assert sum(line.amount_minor for line in lines) == 0, "an entry sums to zero"
        if lines:
            self._memory.rows["ledger"].append(ledger_row(payment, lines, cause, at))


class _Parked:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._deliveries: set[str] = set()

    async def add(self, parked: ParkedEvent) -> bool:
        if parked.delivery_id in self._deliveries:
            return False
        self._deliveries.add(parked.delivery_id)
        self._memory.rows["parked"].append(parked_row(parked))
        return True

    async def lock_references(self, gateway: str, references: Sequence[str]) -> None:
        """They are locked on loading, before any payment is. What was known then need not be."""
        if any((gateway, each) not in self._memory.locked_references for each in references):
            raise NotTogether("a webhook whose payment was known")


class _Outbox:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def add_many(self, events: Sequence[NewEvent]) -> None:
        self._memory.events.extend(events)
