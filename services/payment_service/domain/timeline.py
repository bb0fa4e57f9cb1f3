"""A payment's timeline: what happened, in time order. Entries are built by pure functions, here and (those about the
reconciler's cases) in case_timeline.py, and nowhere else.

Summaries are sentences for an operator. Neither they nor ``details`` ever hold a body, a secret or personal data: what
a gateway or a caller wrote freely is left out unless it has the form of a code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol

from services.payment_service.domain.models import Fact, FactKind, FactSource, Observation, Payment, PaymentState
from services.payment_service.domain.operations import Dispute, DisputeStatus, Operation, OperationKind, OperationStatus
from shared.clock import to_rfc3339
from shared.errors import DomainError, GatewayObjectNotFound, GatewayRejected, GatewayUnavailable, PayrailError
from shared.masking import storable_text
from shared.money import Money


class EntryKind(StrEnum):
    REQUEST = "request"
    """Somebody called our API about this payment."""
    GATEWAY_CALL = "gateway_call"
    """We called the gateway: what for, and how it ended. Never a body."""
    FACT = "fact"
    """Something was learnt, and from where."""
    STATUS = "status"
    """The payment's status changed."""
    OPERATION = "operation"
    """A capture, void, refund or completion changed its status."""
    DISPUTE = "dispute"
    EVENT = "event"
    """An event was published with the change."""
    DECISION = "decision"
    """A policy or a person decided something: an automatic refund, an escalation, an override."""
    CASE = "case"
    """The reconciler found a disagreement about the payment, or saw it settled."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """``details`` holds codes and ids only: no personal data, no bodies, no secrets."""

    kind: EntryKind
    at: datetime
    summary: str
    source: str | None = None
    actor: str | None = None
    reference: str | None = None
    amount: Money | None = None
    request_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Learning(Protocol):
    """Where and when something was learnt (``use_cases.record_facts.Learnt``)."""

    @property
    def source(self) -> FactSource: ...

    @property
    def at(self) -> datetime: ...

    @property
    def by(self) -> str | None: ...


_TOTALS = tuple(each.name for each in fields(PaymentState) if each.name.startswith("amount_"))
_totals_of = attrgetter(*_TOTALS)
_LABELS = {name: name.removeprefix("amount_").replace("_", " ") for name in _TOTALS}
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,79}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LEARNT_BY: Mapping[str, str] = {"whd": "delivery_id", "run": "run_id", "att": "attempt_id"}
_MAX_REFERENCE = 255

_FACT_SUMMARIES: Mapping[FactKind, str] = {
    FactKind.SESSION_OPENED: "Payment page opened at the gateway",
    FactKind.PROCESSING: "The gateway is processing the payment",
    FactKind.DECLINED: "One try by the shopper was declined",
    FactKind.APPROVED: "The shopper approved the payment; it has to be completed by us",
    FactKind.AUTHORIZED: "{money} held by the gateway",
    FactKind.CAPTURED: "{money} captured at the gateway",
    FactKind.CAPTURE_REVERSED: "{money} of captured money taken back by the gateway",
    FactKind.RELEASED: "The rest of the hold was released",
    FactKind.FAILED: "The gateway reports that the payment failed",
    FactKind.CANCELED: "Canceled at the gateway",
    FactKind.EXPIRED: "Expired at the gateway",
    FactKind.REFUND_PENDING: "Refund of {money} accepted by the gateway, not confirmed yet",
    FactKind.REFUND_SUCCEEDED: "Refund of {money} confirmed by the gateway",
    FactKind.REFUND_FAILED: "Refund of {money} failed at the gateway",
    FactKind.REFUND_REVERSED: "Refund of {money} came back: the gateway reversed it",
    FactKind.DISPUTE_OPENED: "Dispute over {money} opened",
    FactKind.DISPUTE_WON: "Dispute over {money} won",
    FactKind.DISPUTE_LOST: "Dispute over {money} lost",
    FactKind.OPERATION_PENDING: "Our call was accepted; the gateway will say later what came of it",
    FactKind.OPERATION_SUCCEEDED: "Our call succeeded",
    FactKind.OPERATION_FAILED: "Our call was carried out and failed",
    FactKind.OPERATION_REFUSED: "Our call was refused, or never ran; nothing moved by it",
}

_OPERATION_NAMES: Mapping[OperationKind, str] = {
    OperationKind.CAPTURE: "Capture",
    OperationKind.VOID: "Void",
    OperationKind.REFUND: "Refund",
    OperationKind.COMPLETION: "Completion",
}

_OPERATION_STATES: Mapping[OperationStatus, str] = {
    OperationStatus.PENDING: "reserved, to be sent to the gateway",
    OperationStatus.SUBMITTED: "accepted by the gateway, which will confirm it later",
    OperationStatus.UNKNOWN: "sent and not answered: it may have run, the gateway is being asked",
    OperationStatus.SUCCEEDED: "succeeded",
    OperationStatus.FAILED: "failed; its reservation is free again",
    OperationStatus.CANCELED: "given up without having been sent; its reservation is free again",
    OperationStatus.REVERSED: "reversed: it had succeeded, and the gateway took it back",
}

_DISPUTE_STATES: Mapping[DisputeStatus, str] = {
    DisputeStatus.OPEN: "is open: the gateway withholds the amount",
    DisputeStatus.WON: "was won: the amount is ours again",
    DisputeStatus.LOST: "was lost: the amount is gone",
}

_CALL_RESULTS: Mapping[str, str] = {
    "ok": "answered",
    "succeeded": "succeeded",
    "pending": "accepted, to be confirmed later",
    "failed": "carried out and failed",
    "absent": "the gateway knows nothing of it",
    "not_found": "the gateway does not know the object",
    "rejected": "refused; nothing moved",
    "unavailable": "not reached; nothing moved",
    "unknown": "not answered; it may have run",
    "key_used_up": "a stored failure was replayed and nothing had run; the next call gets a new key",
}

_RESULT_OF_ERROR: tuple[tuple[type[PayrailError], str], ...] = (
    (GatewayObjectNotFound, "not_found"),
    (GatewayRejected, "rejected"),
    (GatewayUnavailable, "unavailable"),
    (DomainError, "rejected"),  # our own check refused it before anything was sent
)
"""The first class that fits; whatever is not here may have run."""


def fact_entry(fact: Fact, learnt_by: str | None = None) -> TimelineEntry:
    """Something new was learnt. ``learnt_by``: the delivery, request, attempt or run that brought it."""
    observation = fact.observation
    reason, reference = code(observation.reason), _reference(observation.object_reference)
    details = {
        "fact": observation.kind.value,
        "reason": reason,
        "about": _reference(observation.about),
        "operation": observation.operation,
        "occurred_at": to_rfc3339(observation.occurred_at) if observation.occurred_at else None,
        "capture_before": to_rfc3339(observation.capture_before) if observation.capture_before else None,
    }
    request_id = _tell_learnt_by(learnt_by, details)
    return TimelineEntry(
        kind=EntryKind.FACT,
        at=fact.received_at,
        summary=_fact_summary(observation, reason, reference),
        source=fact.source.value,
        reference=reference,
        amount=observation.amount,
        request_id=request_id,
        details=_present(details),
    )


def _fact_summary(observation: Observation, reason: str | None, reference: str | None) -> str:
    sentence = _FACT_SUMMARIES[observation.kind].format(money=observation.amount or "an unnamed amount")
    if reason is not None and observation.kind is not FactKind.APPROVED:  # there it only tells approvals apart
        sentence = f"{sentence}: {reason}"
    return f"{sentence} ({reference})"


def status_entry(before: Payment, after: Payment, learnt: Learning) -> TimelineEntry:
    """The payment's status or totals changed, or it was found to be an order's second success."""
    changes = _changed_totals(before.state, after.state)
    details: dict[str, Any] = {
        "from": before.status.value,
        "to": after.status.value,
        "version": after.version,
        "conflict": after.state.conflict,
        "failure_code": code(after.state.failure_code),
        "duplicate_of": after.duplicate_of,
        "totals": {name: [old, new] for name, (old, new) in changes.items()} or None,
    }
    request_id = _tell_learnt_by(learnt.by, details)
    return TimelineEntry(
        kind=EntryKind.STATUS,
        at=learnt.at,
        summary=_status_summary(before, after, changes),
        source=learnt.source.value,
        reference=_reference(after.gateway_reference),
        request_id=request_id,
        details=_present(details),
    )


def _status_summary(before: Payment, after: Payment, changes: Mapping[str, tuple[int, int]]) -> str:
    currency = after.amount.currency
    parts = []
    if before.status is not after.status:
        parts.append(f"status {before.status.value} → {after.status.value}")
    if before.duplicate_of is None and after.duplicate_of is not None:
        parts.append(f"the order's second payment, after {after.duplicate_of}")
    if after.state.conflict is not None and before.state.conflict != after.state.conflict:
        parts.append(f"conflict: {code(after.state.conflict)}")
    for name, (old, new) in changes.items():
        parts.append(f"{_LABELS[name]} {_told(old, currency)} → {_told(new, currency)}")
    if before.outcome_unknown is not after.outcome_unknown:
        parts.append("an outcome is unknown" if after.outcome_unknown else "no outcome is unknown any more")
    sentence = "; ".join(parts) or "nothing that counts changed"
    return f"{sentence[0].upper()}{sentence[1:]}"


@lru_cache(maxsize=512)
def _told(amount_minor: int, currency: str) -> str:
    """Remembered, because most totals are nothing, or what another total of the payment is, too."""
    return str(Money(amount_minor, currency))


def _changed_totals(before: PaymentState, after: PaymentState) -> dict[str, tuple[int, int]]:
    old_totals, new_totals = _totals_of(before), _totals_of(after)
    if old_totals == new_totals:
        return {}
    pairs = zip(_TOTALS, old_totals, new_totals, strict=True)
    return {name: (old, new) for name, old, new in pairs if old != new}


def operation_entry(operation: Operation, before_status: OperationStatus | None = None) -> TimelineEntry:
    """An operation of ours was created (no ``before_status``) or changed its status."""
    failure = code(operation.failure_code)
    details = {
        "operation_id": operation.operation_id,
        "operation": operation.reference,
        "from": before_status.value if before_status else None,
        "to": operation.status.value,
        "origin": operation.origin.value,
        "reason": code(operation.reason),
        "merchant_reference": code(operation.merchant_reference),
        "failure_code": failure,
        "is_final": operation.is_final or None,
        "next_look_at": to_rfc3339(operation.next_look_at) if operation.next_look_at else None,
    }
    sentence = f"{_OPERATION_NAMES[operation.kind]} of {operation.amount} {_OPERATION_STATES[operation.status]}"
    reference = _reference(operation.gateway_reference) or operation.reference
    return TimelineEntry(
        kind=EntryKind.OPERATION,
        at=operation.updated_at,
        summary=f"{sentence}{f': {failure}' if failure else ''} ({reference})",
        source=operation.origin.value,
        actor=_actor(operation.actor),
        reference=reference,
        amount=operation.amount,
        details=_present(details),
    )


def dispute_entry(
    dispute: Dispute, before_status: DisputeStatus | None = None, *, at: datetime, source: str | None = None
) -> TimelineEntry:
    """A dispute was opened (no ``before_status``) or decided, or its amount changed."""
    reason, reference = code(dispute.reason), _reference(dispute.gateway_reference)
    details = {
        "dispute_id": dispute.dispute_id,
        "from": before_status.value if before_status else None,
        "to": dispute.status.value,
        "reason": reason,
    }
    why = f": {reason}" if reason else ""
    return TimelineEntry(
        kind=EntryKind.DISPUTE,
        at=at,
        summary=f"Dispute over {dispute.amount} {_DISPUTE_STATES[dispute.status]}{why} ({reference})",
        source=source,
        reference=reference,
        amount=dispute.amount,
        details=_present(details),
    )


def call_entry(
    operation_name: str,
    result: str,
    elapsed_ms: int,
    reference: str | None = None,
    *,
    at: datetime,
    gateway: str,
    amount: Money | None = None,
    request_id: str | None = None,
    **details: Any,
) -> TimelineEntry:
    """We called the gateway. ``result``: ok, rejected, unavailable, unknown, or a code of the gateway's adapter."""
    ended = _CALL_RESULTS.get(result) or code(result) or "ended"
    named = f" of {amount}" if amount is not None else ""
    return TimelineEntry(
        kind=EntryKind.GATEWAY_CALL,
        at=at,
        summary=f"{gateway} {operation_name}{named}: {ended} ({elapsed_ms} ms)",
        source=gateway,
        reference=_reference(reference),
        amount=amount,
        request_id=request_id,
        details=_present(
            {"operation": operation_name, "result": code(result), "elapsed_ms": elapsed_ms} | _codes(details)
        ),
    )


def call_result(error: BaseException | None) -> str:
    """The ``result`` for ``call_entry``: by the error's class, as shared.errors tells certainties apart."""
    if error is None:
        return "ok"
    return next((result for kind, result in _RESULT_OF_ERROR if isinstance(error, kind)), "unknown")


def request_entry(
    action: str,
    actor: str | None,
    request_id: str | None,
    *,
    at: datetime,
    amount: Money | None = None,
    reference: str | None = None,
    **details: Any,
) -> TimelineEntry:
    """Somebody asked us for something: ``action`` follows "asked to" ("refund"). ``actor``: a token's subject."""
    who = _actor(actor) or "an anonymous browser"
    named = f" ({amount})" if amount is not None else ""
    return TimelineEntry(
        kind=EntryKind.REQUEST,
        at=at,
        summary=f"{who} asked to {action.replace('_', ' ')}{named}",
        source="api",
        actor=_actor(actor),
        reference=_reference(reference),
        amount=amount,
        request_id=request_id,
        details=_present({"action": action} | _codes(details)),
    )


def event_entry(event_type: str, version: int, *, at: datetime, reason: str | None = None) -> TimelineEntry:
    """An event was put into the outbox with the change."""
    why = f": {code(reason)}" if code(reason) else ""
    return TimelineEntry(
        kind=EntryKind.EVENT,
        at=at,
        summary=f"Event {event_type} (version {version}) put into the outbox{why}",
        details=_present({"type": event_type, "version": version, "reason": code(reason)}),
    )


def decision_entry(
    decision: str,
    summary: str,
    *,
    at: datetime,
    actor: str | None = None,
    source: str = "policy",
    amount: Money | None = None,
    reference: str | None = None,
    request_id: str | None = None,
    **details: Any,
) -> TimelineEntry:
    """A policy decided, or a person (``source`` operator): ``decision`` is a code, ``summary`` our own sentence."""
    return TimelineEntry(
        kind=EntryKind.DECISION,
        at=at,
        summary=storable_text(summary),
        source=source,
        actor=_actor(actor),
        reference=_reference(reference),
        amount=amount,
        request_id=request_id,
        details=_present({"decision": decision} | _codes(details)),
    )


def in_time_order(entries: Iterable[TimelineEntry], derived: Iterable[TimelineEntry] = ()) -> list[TimelineEntry]:
    """Oldest first; what has the same time keeps the order in which it was written, derived entries first."""
    return sorted((*derived, *entries), key=lambda entry: entry.at)


def without_told(derived: Iterable[tuple[Fact, str | None]], told: Iterable[TimelineEntry]) -> list[TimelineEntry]:
    """Entries for those facts that the timeline does not tell: a payment older than the timeline has facts only."""
    known = {_identity(entry) for entry in told if entry.kind is EntryKind.FACT}
    candidates = (fact_entry(fact, learnt_by) for fact, learnt_by in derived)
    return [entry for entry in candidates if _identity(entry) not in known]


def _identity(entry: TimelineEntry) -> tuple[Any, ...]:
    named = (entry.details.get(name) for name in ("fact", "reason", "about", "operation"))
    return (entry.reference, entry.amount, *named)


def code(text: str | None) -> str | None:
    """The text if it has the form of a code or an id; free text may hold personal data and is left out."""
    if text is None or not _CODE.fullmatch(text):
        return None
    return text if storable_text(text) == text else None


@lru_cache(maxsize=512)
def _reference(text: str | None) -> str | None:
    """Remembered, because what is learnt of a payment is told in several sentences at once."""
    return None if text is None else storable_text(text)[:_MAX_REFERENCE]


def _actor(text: str | None) -> str | None:
    """A token's subject or a policy's name. An address is a person's, and is not kept."""
    if text is None:
        return None
    return "[removed]" if "@" in text else storable_text(text)[:_MAX_REFERENCE]


def _tell_learnt_by(learnt_by: str | None, details: dict[str, Any]) -> str | None:
    """Puts what brought it into the details; a request's id is no detail, and is returned."""
    if learnt_by is None:
        return None
    name = _LEARNT_BY.get(learnt_by.partition("_")[0])
    if name is None and _REQUEST_ID.fullmatch(learnt_by):
        return learnt_by
    details[name or "learnt_by"] = learnt_by  # a command's key, say
    return None


def _codes(details: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller adds, with free text left out."""
    return {name: code(value) if isinstance(value, str) else value for name, value in details.items()}


def _present(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if value is not None}
