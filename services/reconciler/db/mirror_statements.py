"""The statements of the mirror: columns as arrays, what replaces what, and what of both sides may disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import TextClause, text

Columns = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""Of a table: the SQL type of each column, and how its value is read."""


def _unnest(columns: Columns) -> str:
    """A set of rows from one array parameter per column."""
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, (kind, _) in columns.items())
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


def arrays(columns: Columns, items: Iterable[Any]) -> dict[str, list[Any]]:
    listed = list(items)
    return {name: [read(item) for item in listed] for name, (_, read) in columns.items()}


def _put_newer(table: str, key: str, columns: Columns) -> TextClause:
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


def _insert(table: str, columns: Columns, order_by: str, on_conflict: str) -> TextClause:
    names = ", ".join(columns)
    return text(
        f"INSERT INTO {table} ({names}) SELECT {names} FROM {_unnest(columns)} ORDER BY {order_by} {on_conflict}"  # noqa: S608 - as above
    )


PAYMENT: Columns = {
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
MOVEMENT: Columns = {
    "payment_id": ("text", lambda pair: pair[0].payment_id),
    "kind": ("text", lambda pair: pair[1].kind.value),
    "reference": ("text", lambda pair: pair[1].reference),
    "gateway": ("text", lambda pair: pair[0].gateway),
    "account": ("text", lambda pair: pair[0].account),
    "our_reference": ("text", lambda pair: pair[1].our_reference),
    "amount_minor": ("bigint", lambda pair: pair[1].amount.amount_minor),
    "currency": ("text", lambda pair: pair[1].amount.currency),
    "occurred_at": ("timestamptz", lambda pair: pair[1].occurred_at),
    "is_withheld": ("boolean", lambda pair: pair[1].is_withheld),
}
REFERENCE: Columns = {
    "gateway": ("text", lambda pair: pair[0].gateway),
    "account": ("text", lambda pair: pair[0].account),
    "reference": ("text", lambda pair: pair[1]),
    "payment_id": ("text", lambda pair: pair[0].payment_id),
}
ORDER: Columns = {
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
ORDER_PAYMENT: Columns = {
    "payment_id": ("text", lambda pair: pair[1].payment_id),
    "order_id": ("text", lambda pair: pair[0].order_id),
    "status": ("text", lambda pair: pair[1].status.value),
    "version": ("bigint", lambda pair: pair[1].version),
    "amount_captured": ("bigint", lambda pair: pair[1].amount_captured),
    "amount_refunded": ("bigint", lambda pair: pair[1].amount_refunded),
    "resolution": ("text", lambda pair: pair[1].resolution),
}

PUT_PAYMENTS = _put_newer("known_payments", "payment_id", PAYMENT)
PUT_ORDERS = _put_newer("known_orders", "order_id", ORDER)
PUT_MOVEMENTS = _insert("known_movements", MOVEMENT, "payment_id, kind, reference", "ON CONFLICT DO NOTHING")
# Whoever names a reference first or last: of two payments with the same one it is always the same that has it.
PUT_REFERENCES = _insert(
    "known_references",
    REFERENCE,
    "gateway, account, reference, payment_id",
    "ON CONFLICT (gateway, account, reference) DO UPDATE"
    " SET payment_id = least(known_references.payment_id, excluded.payment_id)",
)
PUT_ORDER_PAYMENTS = _insert(
    "known_order_payments",
    ORDER_PAYMENT,
    "payment_id",
    "ON CONFLICT (payment_id) DO UPDATE SET order_id = excluded.order_id, status = excluded.status,"
    " version = excluded.version, amount_captured = excluded.amount_captured,"
    " amount_refunded = excluded.amount_refunded, resolution = excluded.resolution"
    " WHERE known_order_payments.version <= excluded.version",
)

MOVE_MARK = text(
    """
    INSERT INTO pull_marks AS known (source, pulled_until, whole_at) VALUES (:source, :until, :whole_at)
    ON CONFLICT (source) DO UPDATE SET
        pulled_until = CASE WHEN known.pulled_until > :now THEN excluded.pulled_until
            ELSE greatest(known.pulled_until, excluded.pulled_until) END,
        whole_at = CASE WHEN known.whole_at > :now THEN excluded.whole_at
            ELSE greatest(known.whole_at, excluded.whole_at) END
    """
)

PUT_PARKED = text(
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

SLICE_END = text(
    """
    SELECT min(ends.payment_id) FROM (
        (SELECT payment_id FROM known_payments WHERE payment_id > :after ORDER BY payment_id OFFSET :limit - 1 LIMIT 1)
        UNION ALL
        (SELECT payment_id FROM known_order_payments WHERE payment_id > :after
         ORDER BY payment_id OFFSET :limit - 1 LIMIT 1)) AS ends
    """
)
"""Neither side has more than the limit in a slice, also where one of them lacks what the other has."""

SUSPECTS = text(
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
                WHEN pairs.told_version <> pairs.version THEN true
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

ORDERS_OF_NOTHING = text(
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

CANDIDATES = text(
    """
    SELECT payment_id, order_id, status, created_at FROM known_payments
    WHERE gateway = :gateway AND amount_minor = :amount_minor AND currency = :currency
      AND created_at BETWEEN :earliest AND :latest
    ORDER BY abs(extract(epoch FROM created_at - CAST(:near AS timestamptz))), payment_id LIMIT :limit
    """
)

TOTALS = text(
    """
    SELECT gateway, currency,
        sum(amount) FILTER (WHERE NOT is_open)::bigint AS matched_minor, sum(pending)::bigint AS in_transit_minor,
        sum(disputed)::bigint AS disputed_minor, sum(amount) FILTER (WHERE is_open)::bigint AS unexplained_minor,
        count(*) FILTER (WHERE NOT is_open) AS matched, count(*) FILTER (WHERE pending > 0) AS in_transit,
        count(*) FILTER (WHERE disputed > 0) AS disputed, count(*) FILTER (WHERE is_open) AS unexplained
    FROM (
        SELECT p.gateway, p.currency,
            CASE WHEN c.payment_id IS NOT NULL AND p.amount_captured = 0 THEN coalesce(c.difference_minor, 0)
                ELSE p.amount_captured - p.amount_refunded - p.amount_disputed - p.amount_refund_pending END AS amount,
            p.amount_refund_pending AS pending, p.amount_disputed AS disputed, c.payment_id IS NOT NULL AS is_open
        FROM known_payments AS p
        LEFT JOIN (SELECT c.payment_id,
                sum(c.difference_minor) FILTER (WHERE c.currency = shown.currency) AS difference_minor
            FROM cases AS c JOIN known_payments AS shown USING (payment_id)
            WHERE c.kind = 'orders' AND c.status <> 'resolved' GROUP BY c.payment_id) AS c USING (payment_id)
        WHERE (CAST(:gateway AS text) IS NULL OR p.gateway = :gateway)
          AND (CAST(:window_from AS timestamptz) IS NULL OR p.created_at >= :window_from)
          AND (CAST(:window_to AS timestamptz) IS NULL OR p.created_at < :window_to)
        UNION ALL
        SELECT coalesce(c.gateway, ''), c.currency, c.difference_minor, 0, 0, true
        FROM cases AS c LEFT JOIN known_orders AS o USING (order_id)
        WHERE c.kind = 'orders' AND c.status <> 'resolved' AND c.currency IS NOT NULL
          AND NOT EXISTS (SELECT FROM known_payments AS p WHERE p.payment_id = c.payment_id)
          AND (CAST(:gateway AS text) IS NULL OR c.gateway = :gateway)
          AND (CAST(:window_from AS timestamptz) IS NULL OR coalesce(o.created_at, c.opened_at) >= :window_from)
          AND (CAST(:window_to AS timestamptz) IS NULL OR coalesce(o.created_at, c.opened_at) < :window_to)
    ) AS shares
    GROUP BY gateway, currency ORDER BY gateway, currency
    """
)
"""Where the money of the window is; what no payment here shows (an order without one, or whose payment has no money,
and money that only the gateway knows) is told by its case."""

WITHOUT_EFFECT = text(
    """
    SELECT c.key, min(a.at) AS since FROM cases AS c JOIN case_actions AS a USING (case_id)
    WHERE c.key = ANY(:keys) AND c.status <> 'resolved' AND a.verified_at IS NULL
    GROUP BY c.key HAVING min(a.at) < :before
    """
)
