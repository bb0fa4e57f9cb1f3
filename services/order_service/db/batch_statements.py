"""The statements of ``payment_batch``, the same however many rows they are about.

What is written is given as JSON, an array of objects for each table: an array for each column would be fifty of them,
and this driver looks at every element of an array several times in Python.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

Columns = Mapping[str, str]
"""Names and types of the columns that are given."""

LOCK_AND_READ = """
    SELECT id, status, payment_status, attention, closed_as, reopened_by, confirmed_by, total_minor, currency,
        secret_digest, customer_subject, customer_email, customer_name, customer_phone, shipping_address,
        billing_address, metadata, expires_at, expiry_attempts, created_at, updated_at, confirmed_at, closed_at,
        refunded_at, revoked_payment, revoked_at, version, lines, payments
    FROM lock_and_read_orders($1::text[])
    """
"""Two statements on the server (migration 0006), so that what is read is what those have left who held the locks."""

REFUNDS = """
    SELECT refund_id, payment_id, order_id, amount_minor, currency, status, version, reason, origin
    FROM refunds WHERE refund_id = ANY($1::text[])
    """

LOCK_SHELF = """
    SELECT sku, name, description, image_url, price_minor, currency, on_hand, reserved, reconcile_policy, version,
        retired_at
    FROM products WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE
    """

MARK_LEFTOVERS = """
    UPDATE order_payments SET next_close_attempt_at = marked.at
    FROM unnest($1::text[], $2::timestamptz[]) AS marked (payment_id, at)
    WHERE order_payments.payment_id = marked.payment_id AND next_close_attempt_at IS NULL
    """


@dataclass(frozen=True, slots=True)
class Part:
    """What a writing statement may do, as data-modifying CTEs: the last is named like the part and returns its rows.

    ``{given}`` stands for the rows that are given to it. ``is_complete``: each of these has to be written.
    """

    columns: Columns
    sql: str
    is_complete: bool = True


def _update(name: str, columns: Columns, *, key: Collection[str]) -> str:
    changes = ", ".join(f"{column} = given.{column}" for column in columns if column not in key)
    same = " AND ".join(f"kept.{column} = given.{column}" for column in key)
    return f"{name}_ AS (UPDATE {name} AS kept SET {changes} FROM {{given}} WHERE {same} RETURNING 1)"  # noqa: S608


def _put(name: str, columns: Columns, *, key: str, fixed: Collection[str]) -> str:
    """Insert or change. A row with another value of a ``fixed`` column is left alone, and is missing in the count."""
    names = ", ".join(columns)
    changing = [column for column in columns if column not in (key, "created_at", *fixed)]
    changes = ", ".join(f"{column} = excluded.{column}" for column in changing)
    same = " AND ".join(f"{name}.{column} = excluded.{column}" for column in fixed)
    return (
        f"{name}_ AS (INSERT INTO {name} ({names}) SELECT {names} FROM {{given}}"  # noqa: S608
        f" ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE {same} RETURNING 1)"
    )


ORDER_COLUMNS = {
    "id": "text",
    "status": "text",
    "payment_status": "text",
    "attention": "text",
    "closed_as": "text",
    "reopened_by": "text",
    "confirmed_by": "text",
    "updated_at": "timestamptz",
    "confirmed_at": "timestamptz",
    "closed_at": "timestamptz",
    "refunded_at": "timestamptz",
    "revoked_payment": "text",
    "revoked_at": "timestamptz",
    "version": "bigint",
}

# But for the terms: whoever opens a payment chooses them, and no event brings or changes them.
PAYMENT_COLUMNS = {
    "payment_id": "text",
    "order_id": "text",
    "gateway": "text",
    "gateway_reference": "text",
    "status": "text",
    "version": "bigint",
    "amount_minor": "bigint",
    "currency": "text",
    "amount_authorized": "bigint",
    "amount_captured": "bigint",
    "amount_refund_pending": "bigint",
    "amount_refunded": "bigint",
    "amount_disputed": "bigint",
    "amount_excess": "bigint",
    "outcome_unknown": "boolean",
    "resolution": "text",
    "asked_number": "integer",
    "asked_attempt": "integer",
    "asked_captured": "bigint",
    "ask_again_at": "timestamptz",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}

REFUND_COLUMNS = {
    "refund_id": "text",
    "payment_id": "text",
    "order_id": "text",
    "amount_minor": "bigint",
    "currency": "text",
    "status": "text",
    "version": "bigint",
    "reason": "text",
    "origin": "text",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}

STOCK_COLUMNS = {"sku": "text", "reserved": "bigint", "on_hand": "bigint"}

_MOVE_STOCK = """
    shelf AS MATERIALIZED (
        SELECT sku, given.reserved, given.on_hand FROM {given} JOIN products USING (sku)
        ORDER BY sku FOR UPDATE OF products
    ), products_ AS (
        UPDATE products AS kept SET reserved = kept.reserved + shelf.reserved, on_hand = kept.on_hand + shelf.on_hand
        FROM shelf WHERE kept.sku = shelf.sku RETURNING 1
    )"""

RESERVATION_COLUMNS = {
    "order_id": "text",
    "sku": "text",
    "status": "text",
    "reserved_at": "timestamptz",
    "ended_at": "timestamptz",
}

_MOVE_RESERVATIONS = """
    stock_reservations_ AS (
        UPDATE stock_reservations AS kept SET status = given.status, ended_at = given.ended_at,
            reserved_at = coalesce(given.reserved_at, kept.reserved_at)
        FROM {given} WHERE kept.order_id = given.order_id AND kept.sku = given.sku RETURNING 1
    )"""

NOTIFICATION_COLUMNS = {"order_id": "text", "kind": "text", "reference": "text", "at": "timestamptz"}

_ADD_NOTIFICATIONS = """
    notifications_ AS (
        INSERT INTO notifications (order_id, kind, reference, created_at, next_attempt_at)
        SELECT order_id, kind, reference, at, at FROM {given} ON CONFLICT DO NOTHING RETURNING 1
    )"""

PARTS: Mapping[str, Part] = {
    "orders": Part(ORDER_COLUMNS, _update("orders", ORDER_COLUMNS, key=("id",))),
    "order_payments": Part(
        PAYMENT_COLUMNS,
        _put("order_payments", PAYMENT_COLUMNS, key="payment_id", fixed=("order_id",)),
    ),
    "refunds": Part(
        REFUND_COLUMNS,
        _put("refunds", REFUND_COLUMNS, key="refund_id", fixed=("payment_id", "order_id", "currency")),
    ),
    "products": Part(STOCK_COLUMNS, _MOVE_STOCK),
    "stock_reservations": Part(RESERVATION_COLUMNS, _MOVE_RESERVATIONS),
    "notifications": Part(NOTIFICATION_COLUMNS, _ADD_NOTIFICATIONS, is_complete=False),
}
"""In the order in which they are done."""

# As arrays: PostgreSQL would read an invoice twice as a part of a larger document.
# The counter's lock holds up every other sale until the commit: it depends on all that is counted, so it comes last.
_ISSUE_INVOICES = """
    numbered AS (
        INSERT INTO invoice_counters (series, last_number)
        SELECT 'INV', cardinality({order_ids}) FROM written
        ON CONFLICT (series) DO UPDATE SET last_number = invoice_counters.last_number + excluded.last_number
        RETURNING last_number
    ), invoices_ AS (
        INSERT INTO invoices (number, order_id, snapshot, issued_at)
        SELECT last_number - cardinality({order_ids}) + place, order_id, CAST(snapshot AS jsonb), at
        FROM numbered, unnest({order_ids}, {snapshots}, {moments})
            WITH ORDINALITY AS given (order_id, snapshot, at, place)
    )"""


@cache
def writing(parts: tuple[str, ...], *, with_invoices: bool) -> str:
    """One statement that does these parts, in this order, and issues invoices at the end; it returns how many rows of
    each were written. Its arguments are the parts' rows, and then the invoices' order ids, snapshots and
    moments."""
    done = [
        PARTS[name].sql.format(given=f"json_to_recordset(${place}::json) AS given ({_typed(PARTS[name].columns)})")
        for place, name in enumerate(parts, 1)
    ]
    counts = ", ".join(f"(SELECT count(*) FROM {name}_) AS {name}" for name in parts)  # noqa: S608
    done.append(f"written AS MATERIALIZED (SELECT {counts})")
    if with_invoices:
        first = len(parts) + 1
        done.append(
            _ISSUE_INVOICES.format(
                order_ids=f"${first}::text[]", snapshots=f"${first + 1}::text[]", moments=f"${first + 2}::timestamptz[]"
            )
        )
    return f"WITH {', '.join(done)} SELECT {', '.join(parts)} FROM written"  # noqa: S608 - names from our own code


def _typed(columns: Columns) -> str:
    return ", ".join(f"{name} {type_}" for name, type_ in columns.items())
