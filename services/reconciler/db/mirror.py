"""The mirror in the database: what the owners say, and where the two sides disagree.

Batches are written by arrays (a statement per table, however many rows), in the order of ids, so that two pulls at once
wait for each other instead of deadlocking. A version never replaces a newer one, so they may come in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import RowMapping, TextClause, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

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

_Columns = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""Of a table: the SQL type of each column, and how its value is read."""


def _unnest(columns: _Columns) -> str:
    """A set of rows from one array parameter per column."""
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, (kind, _) in columns.items())
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


def _arrays(columns: _Columns, items: Iterable[Any]) -> dict[str, list[Any]]:
    listed = list(items)
    return {name: [read(item) for item in listed] for name, (_, read) in columns.items()}


def _put_newer(table: str, key: str, columns: _Columns) -> TextClause:
    """Of the same version the one that was changed later wins: owners may add to a document without counting it."""
    names = ", ".join(columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return text(
        f"""
        INSERT INTO {table} AS known ({names}) SELECT {names} FROM {_unnest(columns)} ORDER BY {key}
        ON CONFLICT ({key}) DO UPDATE SET {changes}
        WHERE (known.version, known.updated_at) < (excluded.version, excluded.updated_at)
        RETURNING {key}, xmax = 0 AS is_new
        """  # noqa: S608 - every name in it is this module's
    )


def _insert(table: str, columns: _Columns, order_by: str, on_conflict: str) -> TextClause:
    names = ", ".join(columns)
    return text(
        f"INSERT INTO {table} ({names}) SELECT {names} FROM {_unnest(columns)} ORDER BY {order_by} {on_conflict}"  # noqa: S608 - as above
    )


_STANDING = (
    "amount_authorized",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_dispute_lost",
)

_PAYMENT: _Columns = {
    "payment_id": ("text", lambda each: each.payment_id),
    "order_id": ("text", lambda each: each.order_id),
    "gateway": ("text", lambda each: each.gateway),
    "account": ("text", lambda each: each.account),
    "status": ("text", lambda each: each.status.value),
    "version": ("integer", lambda each: each.version),
    "amount_minor": ("bigint", lambda each: each.amount.amount_minor),
    "currency": ("text", lambda each: each.amount.currency),
    "amount_authorized": ("bigint", lambda each: each.standing.amount_authorized),
    "amount_captured": ("bigint", lambda each: each.standing.amount_captured),
    "amount_refund_pending": ("bigint", lambda each: each.standing.amount_refund_pending),
    "amount_refunded": ("bigint", lambda each: each.standing.amount_refunded),
    "amount_disputed": ("bigint", lambda each: each.standing.amount_disputed),
    "amount_dispute_lost": ("bigint", lambda each: each.standing.amount_dispute_lost),
    "amount_excess": ("bigint", lambda each: each.amount_excess),
    "outcome_unknown": ("boolean", lambda each: each.standing.outcome_unknown),
    "unknown_since": ("timestamptz", lambda each: each.unknown_since),
    "conflict": ("text", lambda each: each.conflict),
    "duplicate_of": ("text", lambda each: each.duplicate_of),
    "gateway_reference": ("text", lambda each: each.gateway_reference),
    "created_at": ("timestamptz", lambda each: each.created_at),
    "updated_at": ("timestamptz", lambda each: each.updated_at),
}
_MOVEMENT: _Columns = {
    "payment_id": ("text", lambda pair: pair[0].payment_id),
    "kind": ("text", lambda pair: pair[1].kind.value),
    "reference": ("text", lambda pair: pair[1].reference),
    "gateway": ("text", lambda pair: pair[0].gateway),
    "account": ("text", lambda pair: pair[0].account),
    "our_reference": ("text", lambda pair: pair[1].our_reference),
    "amount_minor": ("bigint", lambda pair: pair[1].amount.amount_minor),
    "currency": ("text", lambda pair: pair[1].amount.currency),
    "occurred_at": ("timestamptz", lambda pair: pair[1].occurred_at),
}
_REFERENCE: _Columns = {
    "gateway": ("text", lambda pair: pair[0].gateway),
    "account": ("text", lambda pair: pair[0].account),
    "reference": ("text", lambda pair: pair[1]),
    "payment_id": ("text", lambda pair: pair[0].payment_id),
}
_ORDER: _Columns = {
    "order_id": ("text", lambda each: each.order_id),
    "status": ("text", lambda each: each.status),
    "payment_status": ("text", lambda each: each.payment_status),
    "attention": ("text", lambda each: each.attention),
    "total_minor": ("bigint", lambda each: each.total.amount_minor),
    "currency": ("text", lambda each: each.total.currency),
    "confirmed_by": ("text", lambda each: each.confirmed_by),
    "version": ("bigint", lambda each: each.version),
    "created_at": ("timestamptz", lambda each: each.created_at),
    "updated_at": ("timestamptz", lambda each: each.updated_at),
}
_ORDER_PAYMENT: _Columns = {
    "payment_id": ("text", lambda pair: pair[1].payment_id),
    "order_id": ("text", lambda pair: pair[0].order_id),
    "status": ("text", lambda pair: pair[1].status.value),
    "version": ("bigint", lambda pair: pair[1].version),
    "amount_captured": ("bigint", lambda pair: pair[1].amount_captured),
    "amount_refunded": ("bigint", lambda pair: pair[1].amount_refunded),
    "resolution": ("text", lambda pair: pair[1].resolution),
}

_PUT_PAYMENTS = _put_newer("known_payments", "payment_id", _PAYMENT)
_PUT_ORDERS = _put_newer("known_orders", "order_id", _ORDER)
_PUT_MOVEMENTS = _insert("known_movements", _MOVEMENT, "payment_id, kind, reference", "ON CONFLICT DO NOTHING")
# Whoever names a reference first or last: of two payments with the same one it is always the same that has it.
_PUT_REFERENCES = _insert(
    "known_references",
    _REFERENCE,
    "gateway, account, reference, payment_id",
    "ON CONFLICT (gateway, account, reference) DO UPDATE"
    " SET payment_id = least(known_references.payment_id, excluded.payment_id)",
)
_PUT_ORDER_PAYMENTS = _insert(
    "known_order_payments",
    _ORDER_PAYMENT,
    "payment_id",
    "ON CONFLICT (payment_id) DO UPDATE SET order_id = excluded.order_id, status = excluded.status,"
    " version = excluded.version, amount_captured = excluded.amount_captured,"
    " amount_refunded = excluded.amount_refunded, resolution = excluded.resolution"
    " WHERE known_order_payments.version <= excluded.version",
)

_PUT_PARKED = text(
    """
    INSERT INTO known_parked_events AS known
        (parked_id, gateway, account, delivery_id, event_type, status, refs, received_at, seen_at)
    VALUES (:parked_id, :gateway, :account, :delivery_id, :event_type, :status, :refs, :received_at, :seen_at)
    ON CONFLICT (parked_id) DO UPDATE SET
        gateway = excluded.gateway, account = excluded.account, delivery_id = excluded.delivery_id,
        event_type = excluded.event_type, status = excluded.status, refs = excluded.refs,
        received_at = excluded.received_at, seen_at = greatest(known.seen_at, excluded.seen_at)
    """
)

_SLICE_END = text(
    """
    SELECT min(ends.payment_id) FROM (
        (SELECT payment_id FROM known_payments WHERE payment_id > :after ORDER BY payment_id OFFSET :limit - 1 LIMIT 1)
        UNION ALL
        (SELECT payment_id FROM known_order_payments WHERE payment_id > :after
         ORDER BY payment_id OFFSET :limit - 1 LIMIT 1)) AS ends
    """
)
"""Neither side has more than the limit in a slice, also where one of them lacks what the other has."""

_SUSPECTS = text(
    """
    WITH pairs AS (
        SELECT coalesce(op.order_id, p.order_id) AS order_id,
            coalesce(p.payment_id, op.payment_id) AS payment_id,
            p.payment_id IS NULL AS is_absent, op.payment_id IS NULL AS is_untold,
            p.status, p.version, p.amount_minor, p.currency, p.amount_authorized, p.amount_captured, p.amount_excess,
            p.amount_captured - p.amount_refunded - p.amount_disputed AS remaining, p.conflict,
            op.version AS told_version, op.amount_captured - op.amount_refunded AS told_money,
            p.gateway, p.created_at, p.updated_at
        FROM (SELECT * FROM known_payments
              WHERE payment_id > :after AND (CAST(:until AS text) IS NULL OR payment_id <= :until)) AS p
        FULL JOIN (SELECT * FROM known_order_payments
              WHERE payment_id > :after AND (CAST(:until AS text) IS NULL OR payment_id <= :until)) AS op
            ON op.payment_id = p.payment_id
    ),
    judged AS (
        SELECT pairs.payment_id, pairs.order_id,
            CASE
                WHEN o.order_id IS NULL THEN
                    pairs.status IN ('authorized', 'partially_captured', 'captured', 'conflicted')
                WHEN pairs.is_absent THEN o.confirmed_by = pairs.payment_id OR pairs.told_money > 0
                WHEN pairs.told_version > pairs.version THEN false
                WHEN pairs.told_version < pairs.version THEN true
                WHEN pairs.status = 'conflicted' OR pairs.amount_excess > 0 THEN true
                WHEN pairs.status IN ('authorized', 'partially_captured', 'captured') THEN
                    pairs.is_untold OR pairs.conflict IS NOT NULL
                    OR (pairs.amount_minor, pairs.currency) IS DISTINCT FROM (o.total_minor, o.currency)
                    OR pairs.amount_captured > o.total_minor
                    OR CASE WHEN o.confirmed_by = pairs.payment_id
                        THEN pairs.amount_captured = 0 OR pairs.status <> 'captured'
                            AND pairs.amount_captured <> pairs.amount_authorized
                        ELSE (o.status <> 'open' OR pairs.amount_captured > 0)
                            AND NOT (pairs.status = 'captured' AND pairs.remaining <= 0) END
                ELSE o.confirmed_by = pairs.payment_id
            END AS is_suspect
        FROM pairs LEFT JOIN known_orders AS o ON o.order_id = pairs.order_id
        WHERE (CAST(:settled_before AS timestamptz) IS NULL
                OR greatest(pairs.updated_at, o.updated_at) <= :settled_before)
          AND (CAST(:gateway AS text) IS NULL OR pairs.gateway = :gateway)
          AND (CAST(:window_from AS timestamptz) IS NULL OR coalesce(pairs.created_at, o.created_at) >= :window_from)
          AND (CAST(:window_to AS timestamptz) IS NULL OR coalesce(pairs.created_at, o.created_at) < :window_to)
    )
    SELECT count(*) AS scanned, array_agg(order_id ORDER BY payment_id) FILTER (WHERE is_suspect) AS order_ids,
        array_agg(payment_id ORDER BY payment_id) FILTER (WHERE is_suspect) AS payment_ids
    FROM judged
    """
)
"""What could disagree by the table of domain/decisions.py, which alone says what does: a pair that is left out here is
never judged, so this must let through whatever it gives a verdict on (tests compare the two on every combination)."""

_ORDERS_OF_NOTHING = text(
    """
    SELECT o.order_id, o.confirmed_by FROM known_orders AS o
    WHERE o.confirmed_by IS NOT NULL AND o.order_id > :after
      AND NOT EXISTS (SELECT FROM known_order_payments AS op WHERE op.payment_id = o.confirmed_by)
      AND NOT EXISTS (SELECT FROM known_payments AS p WHERE p.payment_id = o.confirmed_by)
      AND (CAST(:settled_before AS timestamptz) IS NULL OR o.updated_at <= :settled_before)
      AND (CAST(:window_from AS timestamptz) IS NULL OR o.created_at >= :window_from)
      AND (CAST(:window_to AS timestamptz) IS NULL OR o.created_at < :window_to)
    ORDER BY o.order_id LIMIT :limit
    """
)

_CANDIDATES = text(
    """
    SELECT payment_id, order_id, status, created_at FROM known_payments
    WHERE gateway = :gateway AND amount_minor = :amount_minor AND currency = :currency
      AND created_at BETWEEN :earliest AND :latest
    ORDER BY abs(extract(epoch FROM created_at - CAST(:near AS timestamptz))), payment_id LIMIT :limit
    """
)

_TOTALS = text(
    """
    SELECT gateway, currency,
        sum(amount) FILTER (WHERE NOT is_open)::bigint AS matched_minor, sum(pending)::bigint AS in_transit_minor,
        sum(disputed)::bigint AS disputed_minor, sum(amount) FILTER (WHERE is_open)::bigint AS unexplained_minor,
        count(*) FILTER (WHERE NOT is_open) AS matched, count(*) FILTER (WHERE pending > 0) AS in_transit,
        count(*) FILTER (WHERE disputed > 0) AS disputed, count(*) FILTER (WHERE is_open) AS unexplained
    FROM (
        SELECT p.gateway, p.currency, p.amount_captured - p.amount_refunded - p.amount_disputed
                - p.amount_refund_pending AS amount,
            p.amount_refund_pending AS pending, p.amount_disputed AS disputed, c.payment_id IS NOT NULL AS is_open
        FROM known_payments AS p
        LEFT JOIN (SELECT DISTINCT payment_id FROM cases
            WHERE kind = 'orders' AND status <> 'resolved' AND payment_id IS NOT NULL) AS c USING (payment_id)
        WHERE (CAST(:gateway AS text) IS NULL OR p.gateway = :gateway)
          AND (CAST(:window_from AS timestamptz) IS NULL OR p.created_at >= :window_from)
          AND (CAST(:window_to AS timestamptz) IS NULL OR p.created_at < :window_to)
        UNION ALL
        SELECT coalesce(c.gateway, ''), c.currency, c.difference_minor, 0, 0, true
        FROM cases AS c
        WHERE c.kind = 'orders' AND c.status <> 'resolved' AND c.currency IS NOT NULL
          AND NOT EXISTS (SELECT FROM known_payments AS p WHERE p.payment_id = c.payment_id)
          AND (CAST(:gateway AS text) IS NULL OR c.gateway = :gateway)
    ) AS shares
    GROUP BY gateway, currency ORDER BY gateway, currency
    """
)
"""Where the money of the window is; what no payment here has (an order without one, money that only the gateway knows)
is told by its case."""

_WITHOUT_EFFECT = text(
    """
    SELECT c.key, min(a.at) AS since FROM cases AS c JOIN case_actions AS a USING (case_id)
    WHERE c.key = ANY(:keys) AND c.status <> 'resolved' AND a.verified_at IS NULL
    GROUP BY c.key HAVING min(a.at) < :before
    """
)


class Mirror:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put_payments(self, payments: Sequence[KnownPayment]) -> int:
        newest = _newest(payments, lambda each: each.payment_id)
        rows = await self._connection.execute(_PUT_PAYMENTS, _arrays(_PAYMENT, newest.values()))
        is_new = {row.payment_id: row.is_new for row in rows}
        ids = list(is_new)
        before = [payment_id for payment_id in ids if not is_new[payment_id]]
        for table in (known_movements, known_references) if before else ():
            await self._connection.execute(table.delete().where(table.c.payment_id == _any(before)))
        changed = [newest[payment_id] for payment_id in ids]
        movements = [(payment, each) for payment in changed for each in payment.movements]
        if movements:
            await self._connection.execute(_PUT_MOVEMENTS, _arrays(_MOVEMENT, movements))
        references = _one_of_each([(payment, each) for payment in changed for each in payment.references])
        if references:
            await self._connection.execute(_PUT_REFERENCES, _arrays(_REFERENCE, references))
        return len(ids)

    async def put_orders(self, orders: Sequence[KnownOrder]) -> int:
        newest = _newest(orders, lambda each: each.order_id)
        rows = await self._connection.execute(_PUT_ORDERS, _arrays(_ORDER, newest.values()))
        is_new = {row.order_id: row.is_new for row in rows}
        ids = list(is_new)
        before = [order_id for order_id in ids if not is_new[order_id]]
        if before:
            table = known_order_payments
            await self._connection.execute(table.delete().where(table.c.order_id == _any(before)))
        payments = {each.payment_id: (newest[id_], each) for id_ in sorted(ids) for each in newest[id_].payments}
        if payments:
            await self._connection.execute(_PUT_ORDER_PAYMENTS, _arrays(_ORDER_PAYMENT, payments.values()))
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
            await self._connection.execute(_PUT_PARKED, rows)

    async def forget_parked_events(self, *, not_seen_since: datetime) -> int:
        statement = known_parked_events.delete().where(known_parked_events.c.seen_at < not_seen_since)
        return (await self._connection.execute(statement)).rowcount

    async def marks(self) -> Mapping[Source, datetime]:
        rows = await self._connection.execute(select(pull_marks.c.source, pull_marks.c.pulled_until))
        return {Source(row.source): row.pulled_until for row in rows}

    async def move_mark(self, source: Source, until: datetime) -> None:
        statement = text(
            "INSERT INTO pull_marks AS known (source, pulled_until) VALUES (:source, :until) ON CONFLICT (source)"
            " DO UPDATE SET pulled_until = greatest(known.pulled_until, excluded.pulled_until)"
        )
        await self._connection.execute(statement, {"source": source.value, "until": until})

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

    async def slice(self, scope: Scope, *, after: str, limit: int) -> Slice:
        until = (await self._connection.execute(_SLICE_END, {"after": after, "limit": limit})).scalar()
        found = await self._connection.execute(_SUSPECTS, _scope(scope) | {"after": after, "until": until})
        row = found.one()
        keys = zip(row.order_ids or (), row.payment_ids or (), strict=True)
        return Slice(row.scanned, tuple(PairKey(order_id, payment_id) for order_id, payment_id in keys), until)

    async def orders_of_nothing(self, scope: Scope, *, after: str, limit: int) -> list[PairKey]:
        if scope.gateway is not None:
            return []  # nobody knows by which gateway they were paid
        rows = await self._connection.execute(_ORDERS_OF_NOTHING, _scope(scope) | {"after": after, "limit": limit})
        return [PairKey(row.order_id, row.confirmed_by) for row in rows]

    async def pairs(self, keys: Sequence[PairKey]) -> list[Pair]:
        payments = await self._payments([key.payment_id for key in keys])
        orders = await self._orders(sorted({key.order_id for key in keys}))
        return [
            Pair(
                key,
                orders.get(key.order_id),
                _payment(payments[key.payment_id]) if key.payment_id in payments else None,
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
        return [Candidate(*row) for row in await self._connection.execute(_CANDIDATES, values)]

    async def accounts(self, gateway: str) -> list[str]:
        columns = known_payments.c
        statement = select(columns.account).where(columns.gateway == gateway).distinct().order_by(columns.account)
        return list((await self._connection.execute(statement)).scalars())

    async def totals(self, scope: Scope) -> list[Mapping[str, object]]:
        values = {name: value for name, value in _scope(scope).items() if name != "settled_before"}
        return [_totals(row) for row in (await self._connection.execute(_TOTALS, values)).mappings()]

    async def without_effect(self, keys: Sequence[str], *, before: datetime) -> Mapping[str, datetime]:
        rows = await self._connection.execute(_WITHOUT_EFFECT, {"keys": list(keys), "before": before})
        return {row.key: row.since for row in rows}

    async def _payments(self, payment_ids: Sequence[str]) -> Mapping[str, RowMapping]:
        statement = select(known_payments).where(known_payments.c.payment_id == _any(payment_ids))
        rows = (await self._connection.execute(statement)).mappings()
        return {row["payment_id"]: row for row in rows}

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
    """A reference that two payments of a batch name goes where ``_PUT_REFERENCES`` would send it."""
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
    return Movement(MovementKind(row["kind"]), row["reference"], row["our_reference"], amount, row["occurred_at"])


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
