"""Rows to values and back, whichever driver brought them: a row is read by the names of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

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
    Resolution,
)
from shared.money import Money


class Columns(Protocol):
    """A row of SQLAlchemy's mappings, of the driver, or a plain mapping."""

    def __getitem__(self, name: str, /) -> Any: ...


def product_of(row: Columns) -> Product:
    return Product(
        sku=row["sku"],
        name=row["name"],
        description=row["description"],
        image_url=row["image_url"],
        price=Money(row["price_minor"], row["currency"]),
        on_hand=row["on_hand"],
        reserved=row["reserved"],
        reconcile_policy=ReconcilePolicy(row["reconcile_policy"]),
        version=row["version"],
    )


def changing_values(order: Order) -> dict[str, Any]:
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


def order_of(row: Columns, lines: Sequence[Columns]) -> Order:
    items = (LineItem(x["sku"], x["name"], x["quantity"], Money(x["unit_price_minor"], row["currency"])) for x in lines)
    return order_with(row, tuple(items))


def order_with(row: Columns, items: tuple[LineItem, ...]) -> Order:
    return Order(
        id=row["id"],
        total=Money(row["total_minor"], row["currency"]),
        items=items,
        customer=Customer(row["customer_email"], row["customer_name"], row["customer_phone"]),
        customer_subject=row["customer_subject"],
        secret_digest=bytes(row["secret_digest"]),
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        shipping_address=row["shipping_address"],
        billing_address=row["billing_address"],
        metadata=row["metadata"],
        closed_as=OrderStatus(row["closed_as"]) if row["closed_as"] else None,
        reopened_by=row["reopened_by"],
        confirmed_by=row["confirmed_by"],
        status=OrderStatus(row["status"]),
        payment_status=OrderPaymentStatus(row["payment_status"]),
        attention=Attention(row["attention"]) if row["attention"] else None,
        confirmed_at=row["confirmed_at"],
        closed_at=row["closed_at"],
        refunded_at=row["refunded_at"],
        revoked_payment=row["revoked_payment"],
        revoked_at=row["revoked_at"],
        version=row["version"],
        expiry_attempts=row["expiry_attempts"],
    )


def payment_values(payment: OrderPayment) -> dict[str, Any]:
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


def payment_of(row: Columns) -> OrderPayment:
    snapshot = PaymentSnapshot(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        gateway=row["gateway"],
        status=PaymentStatus(row["status"]),
        version=row["version"],
        amount=Money(row["amount_minor"], row["currency"]),
        gateway_reference=row["gateway_reference"],
        amount_authorized=row["amount_authorized"],
        amount_captured=row["amount_captured"],
        amount_refund_pending=row["amount_refund_pending"],
        amount_refunded=row["amount_refunded"],
        amount_disputed=row["amount_disputed"],
        amount_excess=row["amount_excess"],
        outcome_unknown=row["outcome_unknown"],
    )
    terms = PaymentTerms(**row["terms"]) if row["terms"] else None
    resolution = Resolution(row["resolution"]) if row["resolution"] else None
    asked = None
    if row["ask_again_at"] is not None:
        asked = AskedBack(row["asked_number"], row["asked_attempt"], row["asked_captured"], row["ask_again_at"])
    return OrderPayment(snapshot, terms, row["created_at"], row["updated_at"], resolution, asked)


def refund_of(row: Columns) -> Refund:
    return Refund(
        refund_id=row["refund_id"],
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        amount=Money(row["amount_minor"], row["currency"]),
        status=RefundStatus(row["status"]),
        version=row["version"],
        reason=row["reason"],
        origin=row["origin"],
    )
