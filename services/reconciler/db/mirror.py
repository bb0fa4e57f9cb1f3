"""The mirror in the database: what the owners say, and where the two sides disagree.

Batches are written by arrays (a statement per table, however many rows), in the order of ids, so that two pulls at once
wait for each other instead of deadlocking. A version never replaces a newer one, so they may come in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Column, RowMapping, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db import mirror_statements as sql
from services.reconciler.db.tables import (
    known_movements,
    known_order_payments,
    known_orders,
    known_parked_events,
    known_payments,
    known_references,
    pull_marks,
)
from services.reconciler.domain.mirror import KnownOrder, KnownOrderPayment, KnownPayment, Movement, MovementKind
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.mirror_ports import Candidate, Pair, PairKey, ParkedEvent, Scope, Slice, Source
from shared.money import Money

_STANDING = (
    "amount_authorized",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_dispute_lost",
)
_KEYS: Mapping[Source, Column[str]] = {
    Source.PAYMENTS: known_payments.c.payment_id,
    Source.ORDERS: known_orders.c.order_id,
}
_PARTS: Mapping[Source, tuple[Table, ...]] = {
    Source.PAYMENTS: (known_movements, known_references),
    Source.ORDERS: (known_order_payments,),
}


class Mirror:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put_payments(self, payments: Sequence[KnownPayment]) -> int:
        newest = _newest(payments, lambda each: each.payment_id)
        rows = await self._connection.execute(sql.PUT_PAYMENTS, sql.arrays(sql.PAYMENT, newest.values()))
        is_new = {row.payment_id: row.is_new for row in rows}
        ids = list(is_new)
        before = [payment_id for payment_id in ids if not is_new[payment_id]]
        for table in (known_movements, known_references) if before else ():
            await self._connection.execute(table.delete().where(table.c.payment_id == _any(before)))
        changed = [newest[payment_id] for payment_id in ids]
        movements = [(payment, each) for payment in changed for each in payment.movements]
        if movements:
            await self._connection.execute(sql.PUT_MOVEMENTS, sql.arrays(sql.MOVEMENT, movements))
        references = _one_of_each([(payment, each) for payment in changed for each in payment.references])
        if references:
            await self._connection.execute(sql.PUT_REFERENCES, sql.arrays(sql.REFERENCE, references))
        return len(ids)

    async def put_orders(self, orders: Sequence[KnownOrder]) -> int:
        newest = _newest(orders, lambda each: each.order_id)
        rows = await self._connection.execute(sql.PUT_ORDERS, sql.arrays(sql.ORDER, newest.values()))
        is_new = {row.order_id: row.is_new for row in rows}
        ids = list(is_new)
        before = [order_id for order_id in ids if not is_new[order_id]]
        if before:
            table = known_order_payments
            await self._connection.execute(table.delete().where(table.c.order_id == _any(before)))
        payments = {each.payment_id: (newest[id_], each) for id_ in sorted(ids) for each in newest[id_].payments}
        if payments:
            await self._connection.execute(sql.PUT_ORDER_PAYMENTS, sql.arrays(sql.ORDER_PAYMENT, payments.values()))
        return len(ids)

    async def put_parked_events(self, events: Sequence[ParkedEvent], *, seen_at: datetime) -> None:
        rows = [
            {
                "parked_id": each.parked_id,
                "gateway": each.gateway,
                "account": each.account,
                "delivery_id": each.delivery_id,
                "event_type": each.event_type,
                "status": each.status,
                "refs": list(each.references),
                "received_at": each.received_at,
                "seen_at": seen_at,
            }
            for each in sorted(events, key=lambda event: event.parked_id)
        ]
        if rows:
            await self._connection.execute(sql.PUT_PARKED, rows)

    async def forget_parked_events(self, *, not_seen_since: datetime) -> int:
        statement = known_parked_events.delete().where(known_parked_events.c.seen_at < not_seen_since)
        return (await self._connection.execute(statement)).rowcount

    async def marks(self) -> Mapping[Source, datetime]:
        rows = await self._connection.execute(select(pull_marks.c.source, pull_marks.c.pulled_until))
        return {Source(row.source): row.pulled_until for row in rows}

    async def whole_pulls(self) -> Mapping[Source, datetime]:
        columns = pull_marks.c
        rows = await self._connection.execute(
            select(columns.source, columns.whole_at).where(columns.whole_at.is_not(None))
        )
        return {Source(row.source): row.whole_at for row in rows}

    async def move_mark(self, source: Source, until: datetime, *, is_whole: bool, now: datetime) -> None:
        values = {"source": source.value, "until": until, "whole_at": until if is_whole else None, "now": now}
        await self._connection.execute(sql.MOVE_MARK, values)

    async def changed_between(self, source: Source, since: datetime, until: datetime) -> set[str]:
        key, columns = _KEYS[source], _KEYS[source].table.c
        found = await self._connection.execute(select(key).where(columns.updated_at.between(since, until)))
        return set(found.scalars())

    async def versions(self, source: Source, ids: Sequence[str], *, before: datetime) -> Mapping[str, int]:
        key, columns = _KEYS[source], _KEYS[source].table.c
        statement = select(key.label("id"), columns.version).where(key == _any(ids), columns.updated_at < before)
        return {row.id: row.version for row in await self._connection.execute(statement)}

    async def count(self, source: Source, *, before: datetime) -> int:
        table = _KEYS[source].table
        statement = select(func.count()).select_from(table).where(table.c.updated_at < before)
        return int((await self._connection.execute(statement)).scalar_one())

    async def ids(self, source: Source, *, before: datetime, after: str, limit: int) -> list[str]:
        key, columns = _KEYS[source], _KEYS[source].table.c
        statement = select(key).where(key > after, columns.updated_at < before).order_by(key).limit(limit)
        return list((await self._connection.execute(statement)).scalars())

    async def forget(self, source: Source, ids: Sequence[str]) -> None:
        key = _KEYS[source]
        for part in _PARTS[source]:
            await self._connection.execute(part.delete().where(part.c[key.name] == _any(ids)))
        await self._connection.execute(key.table.delete().where(key == _any(ids)))

    async def payment(self, payment_id: str) -> KnownPayment | None:
        found = await self._payments([payment_id])
        if payment_id not in found:
            return None
        columns = known_references.c
        references = select(columns.reference).where(columns.payment_id == payment_id).order_by(columns.reference)
        moved = known_movements.c
        movements = select(known_movements).where(moved.payment_id == payment_id)
        movements = movements.order_by(moved.occurred_at, moved.kind, moved.reference)
        return _payment(
            found[payment_id],
            references=tuple((await self._connection.execute(references)).scalars()),
            movements=tuple(_movement(row) for row in (await self._connection.execute(movements)).mappings()),
        )

    async def order(self, order_id: str) -> KnownOrder | None:
        return (await self._orders([order_id])).get(order_id)

    async def knows_orders(self) -> bool:
        return (await self._connection.execute(select(known_orders.c.order_id).limit(1))).first() is not None

    async def count_orders(self) -> int:
        return int((await self._connection.execute(select(func.count()).select_from(known_orders))).scalar_one())

    async def slice(self, scope: Scope, *, after: str, limit: int) -> Slice:
        until = (await self._connection.execute(sql.SLICE_END, {"after": after, "limit": limit})).scalar()
        found = await self._connection.execute(sql.SUSPECTS, _scope(scope) | {"after": after, "until": until})
        row = found.one()
        keys = zip(row.order_ids or (), row.payment_ids or (), strict=True)
        return Slice(row.scanned, tuple(PairKey(order_id, payment_id) for order_id, payment_id in keys), until)

    async def orders_of_nothing(self, scope: Scope, *, after: str, limit: int) -> list[PairKey]:
        if scope.gateway is not None:
            return []  # nobody knows by which gateway they were paid
        rows = await self._connection.execute(sql.ORDERS_OF_NOTHING, _scope(scope) | {"after": after, "limit": limit})
        return [PairKey(row.order_id, row.confirmed_by) for row in rows]

    async def pairs(self, keys: Sequence[PairKey]) -> list[Pair]:
        order_ids = sorted({key.order_id for key in keys})
        payments = await self._payments([key.payment_id for key in keys])
        siblings = await self._payments_of(order_ids)
        orders = await self._orders(order_ids)
        return [
            Pair(
                key,
                orders.get(key.order_id),
                _payment(payments[key.payment_id]) if key.payment_id in payments else None,
                tuple(each for each in siblings.get(key.order_id, ()) if each.payment_id != key.payment_id),
            )
            for key in keys
        ]

    async def unanswered(self, *, before: datetime, gateway: str | None, after: str, limit: int) -> list[KnownPayment]:
        columns = known_payments.c
        statement = select(known_payments).where(columns.unknown_since <= before, columns.payment_id > after)
        if gateway is not None:
            statement = statement.where(columns.gateway == gateway)
        statement = statement.order_by(columns.payment_id).limit(limit)
        return [_payment(row) for row in (await self._connection.execute(statement)).mappings()]

    async def parked_events(self, *, gateway: str | None, after: str, limit: int) -> list[ParkedEvent]:
        columns = known_parked_events.c
        statement = select(known_parked_events).where(columns.parked_id > after)
        if gateway is not None:
            statement = statement.where(columns.gateway == gateway)
        rows = (await self._connection.execute(statement.order_by(columns.parked_id).limit(limit))).mappings()
        return [_parked_event(row) for row in rows]

    async def parked_event(self, parked_id: str) -> ParkedEvent | None:
        statement = select(known_parked_events).where(known_parked_events.c.parked_id == parked_id)
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _parked_event(row)

    async def known_by(self, gateway: str, account: str, references: Collection[str]) -> Mapping[str, str]:
        columns = known_references.c
        statement = select(columns.reference, columns.payment_id).where(
            columns.gateway == gateway, columns.account == account, columns.reference == _any(list(references))
        )
        return {row.reference: row.payment_id for row in await self._connection.execute(statement)}

    async def candidates(
        self, gateway: str, money: Money, *, near: datetime, within: timedelta, limit: int
    ) -> list[Candidate]:
        values = {
            "gateway": gateway,
            "amount_minor": money.amount_minor,
            "currency": money.currency,
            "near": near,
            "earliest": near - within,
            "latest": near + within,
            "limit": limit,
        }
        return [Candidate(*row) for row in await self._connection.execute(sql.CANDIDATES, values)]

    async def accounts(self, gateway: str) -> list[str]:
        columns = known_payments.c
        statement = select(columns.account).where(columns.gateway == gateway).distinct().order_by(columns.account)
        return list((await self._connection.execute(statement)).scalars())

    async def totals(self, scope: Scope) -> list[Mapping[str, object]]:
        values = {name: value for name, value in _scope(scope).items() if name != "settled_before"}
        return [_totals(row) for row in (await self._connection.execute(sql.TOTALS, values)).mappings()]

    async def without_effect(self, keys: Sequence[str], *, before: datetime) -> Mapping[str, datetime]:
        rows = await self._connection.execute(sql.WITHOUT_EFFECT, {"keys": list(keys), "before": before})
        return {row.key: row.since for row in rows}

    async def _payments(self, payment_ids: Sequence[str]) -> Mapping[str, RowMapping]:
        statement = select(known_payments).where(known_payments.c.payment_id == _any(payment_ids))
        rows = (await self._connection.execute(statement)).mappings()
        return {row["payment_id"]: row for row in rows}

    async def _payments_of(self, order_ids: Sequence[str]) -> Mapping[str, list[KnownPayment]]:
        columns = known_payments.c
        statement = select(known_payments).where(columns.order_id == _any(order_ids)).order_by(columns.payment_id)
        found: dict[str, list[KnownPayment]] = {}
        for row in (await self._connection.execute(statement)).mappings():
            found.setdefault(row["order_id"], []).append(_payment(row))
        return found

    async def _orders(self, order_ids: Sequence[str]) -> Mapping[str, KnownOrder]:
        columns = known_order_payments.c
        statement = select(known_order_payments).where(columns.order_id == _any(order_ids)).order_by(columns.payment_id)
        payments: dict[str, list[KnownOrderPayment]] = {}
        for row in (await self._connection.execute(statement)).mappings():
            payments.setdefault(row["order_id"], []).append(_order_payment(row))
        statement = select(known_orders).where(known_orders.c.order_id == _any(order_ids))
        rows = (await self._connection.execute(statement)).mappings()
        return {row["order_id"]: _order(row, tuple(payments.get(row["order_id"], ()))) for row in rows}


D = TypeVar("D", KnownPayment, KnownOrder)


def _newest(items: Sequence[D], key: Callable[[D], str]) -> dict[str, D]:
    """One of each: an export may tell a document twice that changed while it was written."""
    newest: dict[str, D] = {}
    for item in items:
        known = newest.get(key(item))
        if known is None or (known.version, known.updated_at) < (item.version, item.updated_at):
            newest[key(item)] = item
    return newest


def _one_of_each(pairs: Sequence[tuple[KnownPayment, str]]) -> list[tuple[KnownPayment, str]]:
    """A reference that two payments of a batch name goes where ``sql.PUT_REFERENCES`` would send it."""
    chosen: dict[tuple[str, str, str], tuple[KnownPayment, str]] = {}
    for payment, reference in pairs:
        key = (payment.gateway, payment.account, reference)
        if key not in chosen or payment.payment_id < chosen[key][0].payment_id:
            chosen[key] = (payment, reference)
    return list(chosen.values())


def _any(values: Collection[str]) -> Any:
    return func.any(list(values))


def _scope(scope: Scope) -> dict[str, Any]:
    return {
        "settled_before": scope.settled_before,
        "gateway": scope.gateway,
        "window_from": scope.window_from,
        "window_to": scope.window_to,
    }


def _totals(row: RowMapping) -> Mapping[str, object]:
    places = ("matched", "in_transit", "disputed", "unexplained")
    amounts = {f"{place}_minor": row[f"{place}_minor"] or 0 for place in places}
    counts = {place: row[place] for place in places}
    return {"gateway": row["gateway"], "currency": row["currency"], **amounts, "counts": counts}


def _payment(
    row: RowMapping, *, references: tuple[str, ...] = (), movements: tuple[Movement, ...] = ()
) -> KnownPayment:
    return KnownPayment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        gateway=row["gateway"],
        account=row["account"],
        status=PaymentStatus(row["status"]),
        version=row["version"],
        amount=Money(row["amount_minor"], row["currency"]),
        standing=Standing(**{name: row[name] for name in _STANDING}, outcome_unknown=row["outcome_unknown"]),
        amount_excess=row["amount_excess"],
        conflict=row["conflict"],
        duplicate_of=row["duplicate_of"],
        unknown_since=row["unknown_since"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        references=references,
        movements=movements,
        gateway_reference=row["gateway_reference"],
    )


def _movement(row: RowMapping) -> Movement:
    amount = Money(row["amount_minor"], row["currency"])
    return Movement(
        MovementKind(row["kind"]),
        row["reference"],
        row["our_reference"],
        amount,
        row["occurred_at"],
        is_withheld=row["is_withheld"],
    )


def _order(row: RowMapping, payments: tuple[KnownOrderPayment, ...]) -> KnownOrder:
    return KnownOrder(
        order_id=row["order_id"],
        status=row["status"],
        payment_status=row["payment_status"],
        attention=row["attention"],
        total=Money(row["total_minor"], row["currency"]),
        confirmed_by=row["confirmed_by"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        payments=payments,
    )


def _order_payment(row: RowMapping) -> KnownOrderPayment:
    return KnownOrderPayment(
        payment_id=row["payment_id"],
        status=PaymentStatus(row["status"]),
        version=row["version"],
        amount_captured=row["amount_captured"],
        amount_refunded=row["amount_refunded"],
        resolution=row["resolution"],
    )


def _parked_event(row: RowMapping) -> ParkedEvent:
    return ParkedEvent(
        parked_id=row["parked_id"],
        gateway=row["gateway"],
        account=row["account"],
        delivery_id=row["delivery_id"],
        event_type=row["event_type"],
        status=row["status"],
        references=tuple(row["refs"]),
        received_at=row["received_at"],
    )
