"""Every query of order_service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.order_service.db import tables as t
from services.order_service.domain.errors import StockBelowReserved
from services.order_service.domain.models import (
    AskedBack,
    Attention,
    Customer,
    LineItem,
    Order,
    OrderPayment,
    OrderPaymentStatus,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    PaymentTerms,
    Product,
    ReconcilePolicy,
    Refund,
    RefundStatus,
    ReservationStatus,
    Resolution,
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
from shared.money import Money

INVOICE_SERIES = "INV"


class ProductRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list_for_sale(self, *, after_sku: str | None, limit: int) -> list[Product]:
        query = _for_sale().order_by(t.products.c.sku).limit(limit)
        if after_sku is not None:
            query = query.where(t.products.c.sku > after_sku)
        return [_product(row) for row in await self._connection.execute(query)]

    async def find_for_sale(self, sku: str) -> Product | None:
        row = (await self._connection.execute(_for_sale().where(t.products.c.sku == sku))).first()
        return None if row is None else _product(row)

    async def lock(self, skus: Sequence[str]) -> dict[str, Product]:
        query = _for_sale().where(t.products.c.sku.in_(skus)).order_by(t.products.c.sku).with_for_update()
        return {row.sku: _product(row) for row in await self._connection.execute(query)}

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
        return _product((await self._connection.execute(statement)).one())

    async def retire(self, sku: str, *, now: datetime) -> bool:
        statement = (
            update(t.products)
            .where(t.products.c.sku == sku, t.products.c.retired_at.is_(None))
            .values(retired_at=now, updated_at=now, version=t.products.c.version + 1)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def hold(self, order_id: str, items: Sequence[LineItem], *, now: datetime) -> None:
        """Reserve stock for the order's lines; the caller holds the products' locks and has compared what is left."""
        reserve = text(
            """
            UPDATE products SET reserved = products.reserved + held.quantity
            FROM unnest(CAST(:skus AS text[]), CAST(:quantities AS bigint[])) AS held (sku, quantity)
            WHERE products.sku = held.sku
            """
        )
        values = {"skus": [item.sku for item in items], "quantities": [item.quantity for item in items]}
        await self._connection.execute(reserve, values)
        rows = [
            {
                "order_id": order_id,
                "sku": item.sku,
                "quantity": item.quantity,
                "status": ReservationStatus.RESERVED,
                "reserved_at": now,
            }
            for item in items
        ]
        await self._connection.execute(insert(t.stock_reservations), rows)

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
        values = _changing_values(order) | {
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
        return await self._one(select(t.orders).where(t.orders.c.id == order_id))

    async def versions_of(self, order_ids: Sequence[str]) -> dict[str, int]:
        query = select(t.orders.c.id, t.orders.c.version).where(t.orders.c.id.in_(order_ids))
        return {row.id: row.version for row in await self._connection.execute(query)}

    async def get_for_update(self, order_id: str) -> Order | None:
        return await self._one(select(t.orders).where(t.orders.c.id == order_id).with_for_update())

    async def save(self, order: Order) -> None:
        statement = update(t.orders).where(t.orders.c.id == order.id).values(_changing_values(order))
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
        rows = list(await self._connection.execute(query))
        lines = await self._lines_of([row.id for row in rows])
        return [_order(row, lines.get(row.id, ())) for row in rows]

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
        row = (await self._connection.execute(query)).first()
        if row is None:
            return None
        lines = await self._lines_of([row.id])
        return _order(row, lines.get(row.id, ()))

    async def _lines_of(self, order_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
        query = select(t.order_items).where(t.order_items.c.order_id.in_(order_ids))
        lines: dict[str, list[Row[Any]]] = {}
        for row in await self._connection.execute(query.order_by(t.order_items.c.order_id, t.order_items.c.position)):
            lines.setdefault(row.order_id, []).append(row)
        return lines


class OrderPaymentRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of_order(self, order_id: str) -> list[OrderPayment]:
        return (await self.of_orders([order_id])).get(order_id, [])

    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, list[OrderPayment]]:
        query = select(t.order_payments).where(t.order_payments.c.order_id.in_(order_ids))
        payments: dict[str, list[OrderPayment]] = {}
        for row in await self._connection.execute(query.order_by(t.order_payments.c.payment_id)):
            payments.setdefault(row.order_id, []).append(_payment(row))
        return payments

    async def add(self, payment: OrderPayment) -> None:
        await self._connection.execute(insert(t.order_payments).values(_payment_values(payment)))

    async def save(self, payment: OrderPayment) -> None:
        statement = update(t.order_payments).where(t.order_payments.c.payment_id == payment.payment_id)
        await self._connection.execute(statement.values(_payment_values(payment)))

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
        return [Leftover(_payment(row), row.close_attempts) for row in await self._connection.execute(claim)]

    async def close_later(self, payment_id: str, *, at: datetime) -> None:
        statement = update(t.order_payments).where(t.order_payments.c.payment_id == payment_id)
        await self._connection.execute(statement.values(next_close_attempt_at=at))

    async def still_there(self, *, now: datetime, limit: int) -> list[OrderPayment]:
        again_at = t.order_payments.c.ask_again_at
        due = select(t.order_payments).where(t.MONEY_IS_STILL_THERE, again_at <= now).order_by(again_at).limit(limit)
        return [_payment(row) for row in await self._connection.execute(due)]


class RefundRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, refund_id: str) -> Refund | None:
        row = (await self._connection.execute(select(t.refunds).where(t.refunds.c.refund_id == refund_id))).first()
        return None if row is None else _refund(row)

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
        for row in await self._connection.execute(query.order_by(t.refunds.c.refund_id)):
            records.setdefault(row.order_id, []).append(RefundRecord(_refund(row), row.created_at, row.updated_at))
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

    async def forget_expired(self, *, now: datetime) -> int:
        statement = delete(t.stream_tickets).where(t.stream_tickets.c.expires_at <= now)
        return (await self._connection.execute(statement)).rowcount


class MailboxRepository:
    """The embedded mode's mailbox: mails that would have gone out over SMTP."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, values: Mapping[str, Any]) -> None:
        await self._connection.execute(upsert(t.mailbox_messages).values(dict(values)).on_conflict_do_nothing())

    async def newest(self, *, limit: int) -> Sequence[Row[Any]]:
        query = select(t.mailbox_messages).order_by(t.mailbox_messages.c.position.desc()).limit(limit)
        return (await self._connection.execute(query)).all()


def _for_sale() -> Select[Any]:
    return select(t.products).where(t.products.c.retired_at.is_(None))


def _product(row: Row[Any]) -> Product:
    return Product(
        sku=row.sku,
        name=row.name,
        description=row.description,
        image_url=row.image_url,
        price=Money(row.price_minor, row.currency),
        on_hand=row.on_hand,
        reserved=row.reserved,
        reconcile_policy=ReconcilePolicy(row.reconcile_policy),
        version=row.version,
    )


def _changing_values(order: Order) -> dict[str, Any]:
    return {
        "status": order.status,
        "payment_status": order.payment_status,
        "attention": order.attention,
        "closed_as": order.closed_as,
        "reopened_by": order.reopened_by,
        "confirmed_by": order.confirmed_by,
        "updated_at": order.updated_at,
        "confirmed_at": order.confirmed_at,
        "closed_at": order.closed_at,
        "refunded_at": order.refunded_at,
        "revoked_payment": order.revoked_payment,
        "revoked_at": order.revoked_at,
        "version": order.version,
    }


def _order(row: Row[Any], lines: Sequence[Row[Any]]) -> Order:
    return Order(
        id=row.id,
        total=Money(row.total_minor, row.currency),
        items=tuple(LineItem(x.sku, x.name, x.quantity, Money(x.unit_price_minor, row.currency)) for x in lines),
        customer=Customer(row.customer_email, row.customer_name, row.customer_phone),
        customer_subject=row.customer_subject,
        secret_digest=bytes(row.secret_digest),
        expires_at=row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        shipping_address=row.shipping_address,
        billing_address=row.billing_address,
        metadata=row.metadata,
        closed_as=OrderStatus(row.closed_as) if row.closed_as else None,
        reopened_by=row.reopened_by,
        confirmed_by=row.confirmed_by,
        status=OrderStatus(row.status),
        payment_status=OrderPaymentStatus(row.payment_status),
        attention=Attention(row.attention) if row.attention else None,
        confirmed_at=row.confirmed_at,
        closed_at=row.closed_at,
        refunded_at=row.refunded_at,
        revoked_payment=row.revoked_payment,
        revoked_at=row.revoked_at,
        version=row.version,
        expiry_attempts=row.expiry_attempts,
    )


def _payment_values(payment: OrderPayment) -> dict[str, Any]:
    snapshot, asked = payment.snapshot, payment.asked
    return {
        "payment_id": snapshot.payment_id,
        "order_id": snapshot.order_id,
        "gateway": snapshot.gateway,
        "gateway_reference": snapshot.gateway_reference,
        "status": snapshot.status,
        "version": snapshot.version,
        "amount_minor": snapshot.amount.amount_minor,
        "currency": snapshot.amount.currency,
        "amount_authorized": snapshot.amount_authorized,
        "amount_captured": snapshot.amount_captured,
        "amount_refund_pending": snapshot.amount_refund_pending,
        "amount_refunded": snapshot.amount_refunded,
        "amount_disputed": snapshot.amount_disputed,
        "amount_excess": snapshot.amount_excess,
        "outcome_unknown": snapshot.outcome_unknown,
        "resolution": payment.resolution,
        "asked_number": asked.number if asked else None,
        "asked_attempt": asked.attempt if asked else None,
        "asked_captured": asked.amount_captured if asked else None,
        "ask_again_at": asked.again_at if asked else None,
        "terms": asdict(payment.terms) if payment.terms else None,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
    }


def _payment(row: Row[Any]) -> OrderPayment:
    snapshot = PaymentSnapshot(
        payment_id=row.payment_id,
        order_id=row.order_id,
        gateway=row.gateway,
        status=PaymentStatus(row.status),
        version=row.version,
        amount=Money(row.amount_minor, row.currency),
        gateway_reference=row.gateway_reference,
        amount_authorized=row.amount_authorized,
        amount_captured=row.amount_captured,
        amount_refund_pending=row.amount_refund_pending,
        amount_refunded=row.amount_refunded,
        amount_disputed=row.amount_disputed,
        amount_excess=row.amount_excess,
        outcome_unknown=row.outcome_unknown,
    )
    terms = PaymentTerms(**row.terms) if row.terms else None
    resolution = Resolution(row.resolution) if row.resolution else None
    asked = None
    if row.ask_again_at is not None:
        asked = AskedBack(row.asked_number, row.asked_attempt, row.asked_captured, row.ask_again_at)
    return OrderPayment(snapshot, terms, row.created_at, row.updated_at, resolution, asked)


def _refund(row: Row[Any]) -> Refund:
    return Refund(
        refund_id=row.refund_id,
        payment_id=row.payment_id,
        order_id=row.order_id,
        amount=Money(row.amount_minor, row.currency),
        status=RefundStatus(row.status),
        version=row.version,
        reason=row.reason,
        origin=row.origin,
    )
