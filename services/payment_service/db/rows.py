"""What the tables hold of a payment, as the models of the domain: rows as whichever driver has read them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from services.payment_service.domain.models import (
    Attempt,
    AttemptStatus,
    CaptureMode,
    Customer,
    Fact,
    FactKind,
    FactSource,
    Item,
    NextAction,
    Observation,
    ParkedEvent,
    ParkedStatus,
    Payment,
    PaymentState,
    PaymentStatus,
    Terms,
)
from shared.money import Money


class Row(Protocol):
    """A row by the names of its columns: SQLAlchemy's mapping or asyncpg's record."""

    def __getitem__(self, name: str, /) -> Any: ...


def payment_values(payment: Payment) -> dict[str, Any]:
    return {
        "payment_id": payment.payment_id,
        "order_id": payment.order_id,
        "gateway": payment.gateway,
        "amount_minor": payment.amount.amount_minor,
        "currency": payment.amount.currency,
        "capture": payment.terms.capture.value,
        "tolerance_minor": payment.terms.tolerance_minor,
        "status": payment.status.value,
        "version": payment.version,
        "description": payment.description,
        "customer": asdict(payment.customer),
        "items": [asdict(item) for item in payment.items],
        "success_url": payment.success_url,
        "failure_url": payment.failure_url,
        "cancel_url": payment.cancel_url,
        "request_digest": payment.request_digest,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
        "expires_at": payment.expires_at,
        "authorization_valid_for": payment.authorization_valid_for,
        "account": payment.account,
        "method": payment.method,
    }


def payment_of(row: Row) -> Payment:
    """``row`` holds every column."""
    return payment_with(
        row,
        description=row["description"],
        customer=Customer(**row["customer"]),
        items=tuple(Item(**item) for item in row["items"]),
        success_url=row["success_url"],
        failure_url=row["failure_url"],
        cancel_url=row["cancel_url"],
        request_digest=bytes(row["request_digest"]),
    )


def payment_with(row: Row, **page: Any) -> Payment:
    """``page``: what was given for the page where it is paid; ``row`` holds every other column."""
    return Payment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        gateway=row["gateway"],
        terms=Terms(Money(row["amount_minor"], row["currency"]), CaptureMode(row["capture"]), row["tolerance_minor"]),
        state=PaymentState(
            status=PaymentStatus(row["status"]),
            amount_authorized=row["amount_authorized"],
            amount_capture_pending=row["amount_capture_pending"],
            amount_captured=row["amount_captured"],
            amount_refund_pending=row["amount_refund_pending"],
            amount_refunded=row["amount_refunded"],
            amount_disputed=row["amount_disputed"],
            amount_dispute_lost=row["amount_dispute_lost"],
            amount_excess=row["amount_excess"],
            has_unknown_operation=row["has_unknown_operation"],
            failure_code=row["failure_code"],
            conflict=row["conflict"],
        ),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        expires_at=row["expires_at"],
        account=row["account"],
        method=row["method"],
        gateway_reference=row["gateway_reference"],
        duplicate_of=row["duplicate_of"],
        asked_at=row["asked_at"],
        session_unknown=row["session_unknown"],
        authorization_valid_for=row["authorization_valid_for"],
        capture_before=row["capture_before"],
        capture_warned_at=row["capture_warned_at"],
        given_up_at=row["given_up_at"],
        **page,
    )


def attempt_of(row: Row) -> Attempt:
    action = row["next_action"]
    return Attempt(
        attempt_id=row["attempt_id"],
        payment_id=row["payment_id"],
        reference=row["reference"],
        idempotency_key=row["idempotency_key"],
        status=AttemptStatus(row["status"]),
        session_expires_at=row["session_expires_at"],
        created_at=row["created_at"],
        gateway_reference=row["gateway_reference"],
        next_action=NextAction(action["type"], action["url"], action.get("fields", {})) if action else None,
        lease_token=row["lease_token"],
    )


def fact_of(row: Row) -> Fact:
    amount = Money(row["amount_minor"], row["currency"]) if row["currency"] is not None else None
    observation = Observation(
        FactKind(row["kind"]),
        row["object_reference"],
        amount,
        row["occurred_at"],
        row["reason"],
        row["about"],
        row["operation"],
        row["capture_before"],
    )
    return Fact(observation, FactSource(row["source"]), row["received_at"])


def parked_of(row: Row) -> ParkedEvent:
    return ParkedEvent(
        parked_id=row["parked_id"],
        gateway=row["gateway"],
        account=row["account"],
        delivery_id=row["delivery_id"],
        event_type=row["event_type"],
        trust=row["trust"],
        content_type=row["content_type"],
        payload=row["payload"],
        received_at=row["received_at"],
        references=tuple(row["refs"]),
        status=ParkedStatus(row["status"]),
    )
