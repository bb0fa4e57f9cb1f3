"""Findings of the comparison of orders with payments: what a case of each scenario says about both sides. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.reconciler.domain.cases import Action, Case, CaseKind, Finding, Scenario, Subject
from services.reconciler.domain.decisions import Verdict, known_to
from services.reconciler.domain.mirror import KnownOrder, KnownPayment
from shared.clock import to_rfc3339
from shared.money import Money

MOST_REFERENCES = 20
"""References that a case repeats; the payment has them all."""

_KEY_LENGTH = 200

PAIR_SCENARIOS = frozenset(
    {
        Scenario.UNCONFIRMED_ORDER,
        Scenario.LATE_PAYMENT,
        Scenario.DUPLICATE_PAYMENT,
        Scenario.UNPAID_ORDER,
        Scenario.ORDER_WITHOUT_PAYMENT,
        Scenario.STALE_ORDER,
        Scenario.MISMATCHED_PAYMENT,
        Scenario.ROLLED_BACK,
        Scenario.ORPHAN_PAYMENT,
    }
)
"""About an order and one of its payments: judged by ``decide``."""


def of_pair(
    order_id: str, payment_id: str, verdict: Verdict, order: KnownOrder | None, payment: KnownPayment | None
) -> Finding:
    has_amounts = verdict.expected_minor is not None or verdict.actual_minor is not None
    side = payment.amount if payment is not None else order.total if order is not None else None
    return Finding(
        kind=CaseKind.ORDERS,
        scenario=verdict.scenario,
        key=verdict.key(order_id, payment_id),
        subject=Subject(
            gateway=payment.gateway if payment is not None else None,
            account=payment.account if payment is not None else "",
            order_id=order_id,
            payment_id=payment_id,
        ),
        currency=side.currency if side is not None and has_amounts else None,
        expected_minor=verdict.expected_minor,
        actual_minor=verdict.actual_minor,
        action=verdict.action,
        evidence={
            "reason": verdict.reason,
            "order": _order(order, payment_id) if order is not None else None,
            "payment": _payment(payment) if payment is not None else None,
        },
    )


def of_unknown_outcome(payment: KnownPayment) -> Finding:
    """Each such call is a case of its own: what was found out about one says nothing about the next."""
    assert payment.unknown_since is not None, "nothing is unanswered"
    since = to_rfc3339(payment.unknown_since)
    return Finding(
        kind=CaseKind.ORDERS,
        scenario=Scenario.UNKNOWN_OUTCOME,
        key=f"{Scenario.UNKNOWN_OUTCOME.value}:{payment.payment_id}:{since}",
        subject=_subject(payment),
        action=Action.SYNC,
        evidence={"unknown_since": since, "payment": _payment(payment)},
    )


def of_parked_event(
    parked_id: str,
    gateway: str,
    account: str,
    known: Mapping[str, str],
    *,
    references: Sequence[str],
    details: Mapping[str, Any],
) -> Finding:
    """``known``: which of our payments its references name by now."""
    payment_id = min(known.values(), default=None)
    return Finding(
        kind=CaseKind.ORDERS,
        scenario=Scenario.UNCLAIMED_WEBHOOK,
        key=f"{Scenario.UNCLAIMED_WEBHOOK.value}:{parked_id}",
        subject=Subject(gateway=gateway, account=account, payment_id=payment_id),
        action=Action.SYNC if payment_id is not None else None,
        evidence={"parked_id": parked_id, "references": list(references[:MOST_REFERENCES]), **details},
    )


def of_listed(
    gateway: str,
    account: str,
    references: Sequence[str],
    money: Money,
    *,
    payment_id: str | None,
    created_at: datetime | None,
    candidates: Sequence[Mapping[str, Any]] = (),
) -> Finding:
    """A payment with money at the gateway, which payment_service knows nothing of, or knows to have none."""
    name = min(references)
    return Finding(
        kind=CaseKind.ORDERS,
        scenario=Scenario.UNKNOWN_AT_US,
        key=f"{Scenario.UNKNOWN_AT_US.value}:{gateway}:{account}:{name}"[:_KEY_LENGTH],
        subject=Subject(gateway=gateway, account=account, payment_id=payment_id),
        currency=money.currency,
        expected_minor=0,
        actual_minor=money.amount_minor,
        action=Action.SYNC if payment_id is not None else None,
        evidence={
            "references": sorted(references)[:MOST_REFERENCES],
            "created_at": to_rfc3339(created_at) if created_at is not None else None,
            "candidates": list(candidates),
        },
    )


def as_found(case: Case) -> Finding:
    """What the case was last found as, for one that this run has no newer evidence of."""
    return Finding(
        kind=case.kind,
        scenario=case.scenario,
        key=case.key,
        subject=case.subject,
        currency=case.currency,
        expected_minor=case.expected_minor,
        actual_minor=case.actual_minor,
        action=case.action,
        evidence=case.evidence,
    )


def with_evidence(finding: Finding, **more: Any) -> Finding:
    return replace(finding, evidence={**finding.evidence, **more})


def _subject(payment: KnownPayment) -> Subject:
    return Subject(payment.gateway, payment.account, payment.order_id, payment.payment_id)


def _payment(payment: KnownPayment) -> dict[str, Any]:
    standing = payment.standing
    return {
        "status": payment.status.value,
        "version": payment.version,
        "amount_minor": payment.amount.amount_minor,
        "currency": payment.amount.currency,
        "amount_authorized": standing.amount_authorized,
        "amount_captured": standing.amount_captured,
        "amount_refund_pending": standing.amount_refund_pending,
        "amount_refunded": standing.amount_refunded,
        "amount_disputed": standing.amount_disputed,
        "amount_excess": payment.amount_excess,
        "outcome_unknown": standing.outcome_unknown,
        "conflict": payment.conflict,
        "updated_at": to_rfc3339(payment.updated_at),
    }


def _order(order: KnownOrder, payment_id: str) -> dict[str, Any]:
    known = known_to(order, payment_id)
    return {
        "status": order.status,
        "payment_status": order.payment_status,
        "attention": order.attention,
        "total_minor": order.total.amount_minor,
        "currency": order.total.currency,
        "confirmed_by": order.confirmed_by,
        "version": order.version,
        "updated_at": to_rfc3339(order.updated_at),
        "knows": known
        and {
            "status": known.status.value,
            "version": known.version,
            "amount_captured": known.amount_captured,
            "amount_refunded": known.amount_refunded,
            "resolution": known.resolution,
        },
    }
