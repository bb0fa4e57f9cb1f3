"""Every query of order_service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, RowMapping, Select, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.order_service.db import tables as t
from services.order_service.db.rows import changing_values, order_of, payment_of, payment_values, product_of, refund_of
from services.order_service.domain.errors import StockBelowReserved
from services.order_service.domain.models import (
    LineItem,
    Order,
    OrderPayment,
    OrderStatus,
    Product,
    Refund,
    ReservationStatus,
)
from services.order_service.domain.transitions import CLOSABLE
from services.order_service.use_cases.ports import (
    DueNotification,
    InvoiceRecord,
    Leftover,
    NotificationKey,
    OrderFilter,
    RefundRecord,
)

INVOICE_SERIES = "INV"


_HOLD = text(
    """
    WITH held AS (
        SELECT sku, CAST(quantity AS integer) AS quantity
        FROM unnest(CAST(:skus AS text[]), CAST(:quantities AS text[])) AS given (sku, quantity)
    ), counted AS (
        UPDATE products SET reserved = products.reserved + held.quantity FROM held WHERE products.sku = held.sku
    )
    INSERT INTO stock_reservations (order_id, sku, quantity, status, reserved_at)
    SELECT :order_id, sku, quantity, 'reserved', CAST(:now AS timestamptz) FROM held
    """
)


class ProductRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list_for_sale(self, *, after_sku: str | None, limit: int) -> list[Product]:
        query = _for_sale().order_by(t.products.c.sku).limit(limit)
        if after_sku is not None:
            query = query.where(t.products.c.sku > after_sku)
        return [product_of(row) for row in (await self._connection.execute(query)).mappings()]

    async def find_for_sale(self, sku: str) -> Product | None:
        row = (await self._connection.execute(_for_sale().where(t.products.c.sku == sku))).mappings().first()
        return None if row is None else product_of(row)

    async def lock(self, skus: Sequence[str]) -> dict[str, Product]:
        query = _for_sale().where(t.products.c.sku.in_(skus)).order_by(t.products.c.sku).with_for_update()
        return {row["sku"]: product_of(row) for row in (await self._connection.execute(query)).mappings()}

    async def put(self, product: Product, *, now: datetime) -> Product:
        """Create or change; a retired product comes back. Raises StockBelowReserved."""
        current = select(t.products.c.reserved).where(t.products.c.sku == product.sku).with_for_update()
        reserved = (await self._connection.execute(current)).scalar() or 0
        if product.on_hand < reserved:
            raise StockBelowReserved(
                f"{reserved} pieces are held by open orders; the stock cannot be {product.on_hand}"
            )
        values = {
            "name": product.name,
            "description": product.description,
            "image_url": product.image_url,
            "price_minor": product.price.amount_minor,
            "currency": product.price.currency,
            "on_hand": product.on_hand,
            "reconcile_policy": product.reconcile_policy,
            "updated_at": now,
            "retired_at": None,
        }
        statement = (
            upsert(t.products)
            .values(sku=product.sku, created_at=now, **values)
            .on_conflict_do_update(index_elements=["sku"], set_={**values, "version": t.products.c.version + 1})
            .returning(t.products)
        )
        return product_of((await self._connection.execute(statement)).mappings().one())

    async def retire(self, sku: str, *, now: datetime) -> bool:
        statement = (
            update(t.products)
            .where(t.products.c.sku == sku, t.products.c.retired_at.is_(None))
            .values(retired_at=now, updated_at=now, version=t.products.c.version + 1)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def hold(self, order_id: str, items: Sequence[LineItem], *, now: datetime) -> None:
        """Reserve stock for the order's lines; the caller holds the products' locks and has compared what is left."""
        values = {
            "order_id": order_id,
            "skus": [item.sku for item in items],
            # As text: the driver looks up arrays of other types, once on each new connection, and we hold locks here.
            "quantities": [str(item.quantity) for item in items],
            "now": now,
        }
        await self._connection.execute(_HOLD, values)

    async def end_reservations(self, order_id: str, as_: ReservationStatus, *, now: datetime) -> int:
        await self._lock_of_order(order_id)
        # Only rows that leave 'reserved' here are counted back, so a second call moves nothing (failure O7).
        ended = text(
            """
            WITH ended AS (
                UPDATE stock_reservations SET status = :status, ended_at = :now
                WHERE order_id = :order_id AND status = 'reserved' RETURNING sku, quantity
            )
            UPDATE products SET reserved = reserved - ended.quantity,
                on_hand = on_hand - CASE WHEN :sold THEN ended.quantity ELSE 0 END
            FROM ended WHERE products.sku = ended.sku
            """
        )
        values = {"order_id": order_id, "status": as_.value, "now": now, "sold": as_ is ReservationStatus.DEDUCTED}
        return (await self._connection.execute(ended, values)).rowcount

    async def hold_again(self, order_id: str, *, now: datetime) -> int:
        again = text(
            """
            WITH again AS (
                UPDATE stock_reservations SET status = 'reserved', reserved_at = :now, ended_at = NULL
                WHERE order_id = :order_id AND status = 'released' RETURNING sku, quantity
            )
            UPDATE products SET reserved = reserved + again.quantity FROM again WHERE products.sku = again.sku
            """
        )
        return (await self._connection.execute(again, {"order_id": order_id, "now": now})).rowcount

    async def restore(self, order_id: str, *, now: datetime) -> int:
        await self._lock_of_order(order_id)
        # 'restored' is left by nothing, so the goods of one order come back once, however often it is refunded.
        restored = text(
            """
            WITH restored AS (
                UPDATE stock_reservations SET status = 'restored', ended_at = :now
                WHERE order_id = :order_id AND status = 'deducted' RETURNING sku, quantity
            )
            UPDATE products SET on_hand = on_hand + restored.quantity FROM restored WHERE products.sku = restored.sku
            """
        )
        return (await self._connection.execute(restored, {"order_id": order_id, "now": now})).rowcount

    async def _lock_of_order(self, order_id: str) -> None:
        locked = text(
            """
            SELECT products.sku FROM products JOIN stock_reservations USING (sku)
            WHERE stock_reservations.order_id = :order_id ORDER BY products.sku FOR UPDATE OF products
            """
        )
        await self._connection.execute(locked, {"order_id": order_id})


class OrderRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, order: Order) -> None:
        values = changing_values(order) | {
            "id": order.id,
            "total_minor": order.total.amount_minor,
            "currency": order.total.currency,
            "secret_digest": order.secret_digest,
            "customer_subject": order.customer_subject,
            "customer_email": order.customer.email,
            "customer_name": order.customer.name,
            "customer_phone": order.customer.phone,
            "shipping_address": order.shipping_address,
            "billing_address": order.billing_address,
            "metadata": dict(order.metadata),
            "expires_at": order.expires_at,
            "next_expiry_attempt_at": order.expires_at,
            "created_at": order.created_at,
        }
        await self._connection.execute(insert(t.orders).values(values))
        lines = [
            {
                "order_id": order.id,
                "position": position,
                "sku": item.sku,
                "name": item.name,
                "quantity": item.quantity,
                "unit_price_minor": item.unit_price.amount_minor,
            }
            for position, item in enumerate(order.items)
        ]
        await self._connection.execute(insert(t.order_items), lines)

    async def find(self, order_id: str) -> Order | None:
        return await self._one(_with_lines(order_id))

    async def versions_of(self, order_ids: Sequence[str]) -> dict[str, int]:
        query = select(t.orders.c.id, t.orders.c.version).where(t.orders.c.id.in_(order_ids))
        return {row.id: row.version for row in await self._connection.execute(query)}

    async def get_for_update(self, order_id: str) -> Order | None:
        return await self._one(_with_lines(order_id).with_for_update(of=t.orders))

    async def save(self, order: Order) -> None:
        statement = update(t.orders).where(t.orders.c.id == order.id).values(changing_values(order))
        result = await self._connection.execute(statement)
        assert result.rowcount == 1, f"order {order.id} is not there to be saved"

    async def search(self, criteria: OrderFilter) -> list[Order]:
        query = select(t.orders).order_by(t.orders.c.id.desc()).limit(criteria.limit)
        for name in ("customer_subject", "status", "payment_status", "attention"):
            wanted = getattr(criteria, name)
            if wanted is not None:
                query = query.where(t.orders.c[name] == wanted)
        if criteria.customer_email is not None:
            query = query.where(func.lower(t.orders.c.customer_email) == criteria.customer_email.lower())
        if criteria.before_id is not None:
            query = query.where(t.orders.c.id < criteria.before_id)
        rows = (await self._connection.execute(query)).mappings().all()
        lines = await self._lines_of([row["id"] for row in rows])
        return [order_of(row, lines.get(row["id"], ())) for row in rows]

    async def count_open_of(self, email: str) -> int:
        # Without the lock, a hundred orders at once would all see none of the others (failure XS36).
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended('open-orders:' || lower(:email), 0))")
        await self._connection.execute(lock, {"email": email})
        query = select(func.count()).where(
            func.lower(t.orders.c.customer_email) == email.lower(), t.orders.c.status == OrderStatus.OPEN
        )
        return int((await self._connection.execute(query)).scalar_one())

    async def claim_due(self, *, now: datetime, next_attempt_at: datetime, limit: int) -> list[str]:
        claim = text(
            """
            UPDATE orders SET next_expiry_attempt_at = :next_attempt_at WHERE id IN (
                SELECT id FROM orders WHERE status = 'open' AND next_expiry_attempt_at <= :now
                ORDER BY next_expiry_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED
            ) RETURNING id
            """
        )
        values = {"now": now, "next_attempt_at": next_attempt_at, "limit": limit}
        return [row.id for row in await self._connection.execute(claim, values)]

    async def postpone_expiry(self, order_id: str, *, next_attempt_at: datetime, attempts: int) -> None:
        statement = update(t.orders).where(t.orders.c.id == order_id)
        await self._connection.execute(
            statement.values(next_expiry_attempt_at=next_attempt_at, expiry_attempts=attempts)
        )

    async def _one(self, query: Select[Any]) -> Order | None:
        rows = (await self._connection.execute(query)).mappings().all()
        return order_of(rows[0], [row for row in rows if row["sku"] is not None]) if rows else None

    async def _lines_of(self, order_ids: Sequence[str]) -> dict[str, list[RowMapping]]:
        query = select(t.order_items).where(t.order_items.c.order_id.in_(order_ids))
        lines: dict[str, list[RowMapping]] = {}
        query = query.order_by(t.order_items.c.order_id, t.order_items.c.position)
        for row in (await self._connection.execute(query)).mappings():
            lines.setdefault(row["order_id"], []).append(row)
        return lines


class OrderPaymentRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of_order(self, order_id: str) -> list[OrderPayment]:
        return (await self.of_orders([order_id])).get(order_id, [])

    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, list[OrderPayment]]:
        query = select(t.order_payments).where(t.order_payments.c.order_id.in_(order_ids))
        payments: dict[str, list[OrderPayment]] = {}
        rows = await self._connection.execute(query.order_by(t.order_payments.c.payment_id))
        for row in rows.mappings():
            payments.setdefault(row["order_id"], []).append(payment_of(row))
        return payments

    async def add(self, payment: OrderPayment) -> None:
        await self._connection.execute(insert(t.order_payments).values(payment_values(payment)))

    async def save(self, payment: OrderPayment) -> None:
        statement = update(t.order_payments).where(t.order_payments.c.payment_id == payment.payment_id)
        await self._connection.execute(statement.values(payment_values(payment)))

    async def mark_leftovers(self, order_id: str, *, now: datetime) -> int:
        columns = t.order_payments.c
        statement = update(t.order_payments).where(
            columns.order_id == order_id, columns.status.in_(CLOSABLE), columns.next_close_attempt_at.is_(None)
        )
        return (await self._connection.execute(statement.values(next_close_attempt_at=now))).rowcount

    async def claim_leftovers(self, *, now: datetime, next_attempt_at: datetime, limit: int) -> list[Leftover]:
        columns = t.order_payments.c
        due = (
            select(columns.payment_id)
            .where(t.PAYMENT_IS_CLOSABLE, columns.next_close_attempt_at <= now)
            .order_by(columns.next_close_attempt_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claim = (
            update(t.order_payments)
            .where(columns.payment_id.in_(due))
            .values(next_close_attempt_at=next_attempt_at, close_attempts=columns.close_attempts + 1)
            .returning(t.order_payments)
        )
        rows = (await self._connection.execute(claim)).mappings()
        return [Leftover(payment_of(row), row["close_attempts"]) for row in rows]

    async def close_later(self, payment_id: str, *, at: datetime) -> None:
        statement = update(t.order_payments).where(t.order_payments.c.payment_id == payment_id)
        await self._connection.execute(statement.values(next_close_attempt_at=at))

    async def still_there(self, *, now: datetime, limit: int) -> list[OrderPayment]:
        again_at = t.order_payments.c.ask_again_at
        due = select(t.order_payments).where(t.MONEY_IS_STILL_THERE, again_at <= now).order_by(again_at).limit(limit)
        return [payment_of(row) for row in (await self._connection.execute(due)).mappings()]


class RefundRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, refund_id: str) -> Refund | None:
        query = select(t.refunds).where(t.refunds.c.refund_id == refund_id)
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else refund_of(row)

    async def put(self, refund: Refund, *, now: datetime) -> None:
        changing = {
            "amount_minor": refund.amount.amount_minor,
            "status": refund.status,
            "version": refund.version,
            "reason": refund.reason,
            "origin": refund.origin,
            "updated_at": now,
        }
        fixed = {
            "refund_id": refund.refund_id,
            "payment_id": refund.payment_id,
            "order_id": refund.order_id,
            "currency": refund.amount.currency,
            "created_at": now,
        }
        statement = upsert(t.refunds).values(**fixed, **changing)
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["refund_id"], set_=changing))

    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, list[RefundRecord]]:
        query = select(t.refunds).where(t.refunds.c.order_id.in_(order_ids))
        records: dict[str, list[RefundRecord]] = {}
        for row in (await self._connection.execute(query.order_by(t.refunds.c.refund_id))).mappings():
            record = RefundRecord(refund_of(row), row["created_at"], row["updated_at"])
            records.setdefault(row["order_id"], []).append(record)
        return records


class InvoiceRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def issue(self, order_id: str, snapshot: Mapping[str, Any], *, now: datetime) -> int:
        counted = upsert(t.invoice_counters).values(series=INVOICE_SERIES, last_number=1)
        counted = counted.on_conflict_do_update(
            index_elements=["series"], set_={"last_number": t.invoice_counters.c.last_number + 1}
        )
        number: int = (await self._connection.execute(counted.returning(t.invoice_counters.c.last_number))).scalar_one()
        values = {"number": number, "order_id": order_id, "snapshot": dict(snapshot), "issued_at": now}
        await self._connection.execute(insert(t.invoices).values(values))
        return number

    async def find(self, order_id: str) -> InvoiceRecord | None:
        row = (await self._connection.execute(select(t.invoices).where(t.invoices.c.order_id == order_id))).first()
        return None if row is None else InvoiceRecord(row.number, row.order_id, row.snapshot, row.issued_at)

    async def numbers_of(self, order_ids: Sequence[str]) -> dict[str, int]:
        query = select(t.invoices.c.order_id, t.invoices.c.number).where(t.invoices.c.order_id.in_(order_ids))
        return {row.order_id: row.number for row in await self._connection.execute(query)}


class NotificationRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, order_id: str, kind: str, *, now: datetime, reference: str = "") -> None:
        values = {
            "order_id": order_id,
            "kind": kind,
            "reference": reference,
            "created_at": now,
            "next_attempt_at": now,
        }
        await self._connection.execute(upsert(t.notifications).values(values).on_conflict_do_nothing())

    async def claim_due(self, *, now: datetime, lease_until: datetime, limit: int) -> list[DueNotification]:
        claim = text(
            """
            UPDATE notifications SET next_attempt_at = :lease_until, attempts = attempts + 1
            WHERE (order_id, kind, reference) IN (
                SELECT order_id, kind, reference FROM notifications
                WHERE sent_at IS NULL AND given_up_at IS NULL AND next_attempt_at <= :now
                ORDER BY next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED
            ) RETURNING order_id, kind, reference, attempts
            """
        )
        values = {"now": now, "lease_until": lease_until, "limit": limit}
        return [
            DueNotification(NotificationKey(row.order_id, row.kind, row.reference), row.attempts)
            for row in await self._connection.execute(claim, values)
        ]

    async def release(self, due: DueNotification, *, next_attempt_at: datetime) -> None:
        columns, key = t.notifications.c, due.key
        statement = update(t.notifications).where(
            columns.order_id == key.order_id,
            columns.kind == key.kind,
            columns.reference == key.reference,
            columns.sent_at.is_(None),
            columns.attempts == due.attempts,
        )
        values = {"next_attempt_at": next_attempt_at, "attempts": due.attempts - 1}
        await self._connection.execute(statement.values(values))

    async def mark_sent(self, key: NotificationKey, *, now: datetime) -> None:
        await self._update(key, {"sent_at": now, "last_error": None})

    async def mark_failed(
        self, key: NotificationKey, *, next_attempt_at: datetime, error: str, given_up_at: datetime | None
    ) -> None:
        values = {"next_attempt_at": next_attempt_at, "last_error": error[:500], "given_up_at": given_up_at}
        await self._update(key, values)

    async def _update(self, key: NotificationKey, values: Mapping[str, Any]) -> None:
        columns = t.notifications.c
        statement = update(t.notifications).where(
            columns.order_id == key.order_id,
            columns.kind == key.kind,
            columns.reference == key.reference,
            columns.sent_at.is_(None),
        )
        await self._connection.execute(statement.values(values))


class StreamTicketRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, digest: bytes, order_id: str, *, expires_at: datetime) -> None:
        values = {"digest": digest, "order_id": order_id, "expires_at": expires_at}
        await self._connection.execute(insert(t.stream_tickets).values(values))

    async def redeem(self, digest: bytes, order_id: str, *, now: datetime) -> bool:
        columns = t.stream_tickets.c
        used = delete(t.stream_tickets).where(
            columns.digest == digest, columns.order_id == order_id, columns.expires_at > now
        )
        return (await self._connection.execute(used)).rowcount == 1


class MailboxRepository:
    """The embedded mode's mailbox: mails that would have gone out over SMTP."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, values: Mapping[str, Any]) -> None:
        await self._connection.execute(upsert(t.mailbox_messages).values(dict(values)).on_conflict_do_nothing())

    async def newest(self, *, limit: int) -> Sequence[Row[Any]]:
        query = select(t.mailbox_messages).order_by(t.mailbox_messages.c.position.desc()).limit(limit)
        return (await self._connection.execute(query)).all()


def _with_lines(order_id: str) -> Select[Any]:
    """A row for each line of the order, each with the order in it. Lines never change, so they may be read together
    with a lock on their order; what does change has to be read after it."""
    lines = t.order_items.c
    return (
        select(t.orders, lines.sku, lines.name, lines.quantity, lines.unit_price_minor)
        .outerjoin_from(t.orders, t.order_items, lines.order_id == t.orders.c.id)
        .where(t.orders.c.id == order_id)
        .order_by(lines.position)
    )


def _for_sale() -> Select[Any]:
    return select(t.products).where(t.products.c.retired_at.is_(None))
