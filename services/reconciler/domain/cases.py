"""Cases: every disagreement that was found, until it is settled. Pure values, no I/O, no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class CaseKind(StrEnum):
    """Which kind of run finds it, and so which one sees that it is settled."""

    ORDERS = "orders"
    SETTLEMENT = "settlement"


class Scenario(StrEnum):
    # Orders against payments (design.md §7.3).
    UNCONFIRMED_ORDER = "unconfirmed_order"
    """The payment succeeded, and its open order does not know it."""
    LATE_PAYMENT = "late_payment"
    """The payment succeeded, and its order was canceled or has expired."""
    DUPLICATE_PAYMENT = "duplicate_payment"
    """Another payment confirmed the order, and this one has money too."""
    UNPAID_ORDER = "unpaid_order"
    """The order is confirmed by a payment that failed or whose money is gone without a refund."""
    ORDER_WITHOUT_PAYMENT = "order_without_payment"
    """The order is confirmed by a payment that payment_service does not know."""
    STALE_ORDER = "stale_order"
    """The order knows an older state of its payment; what it would become is no worse than that."""
    MISMATCHED_PAYMENT = "mismatched_payment"
    """Amount, currency or account are not the order's."""
    ROLLED_BACK = "rolled_back"
    """The order was told a newer state of the payment than payment_service has: its database was set back (PG13)."""
    ORPHAN_PAYMENT = "orphan_payment"
    """A payment with money, of an order that order_service does not know."""
    UNKNOWN_AT_US = "unknown_at_us"
    """The gateway lists a payment with money that payment_service does not know."""
    UNKNOWN_OUTCOME = "unknown_outcome"
    """A call to the gateway stayed unanswered past its time, and nobody could find out what it did."""
    UNCLAIMED_WEBHOOK = "unclaimed_webhook"
    """A verified webhook that no payment claimed in time, or that nobody could read."""
    # Settlement.
    UNKNOWN_LINE = "unknown_line"
    """A line about a payment that we do not know (failure RC7)."""
    UNKNOWN_REFUND = "unknown_refund"
    """A refund was settled that we do not know of, for a payment that we do."""
    UNKNOWN_CHARGEBACK = "unknown_chargeback"
    AMOUNT_DIFFERS = "amount_differs"
    CURRENCY_DIFFERS = "currency_differs"
    SETTLED_TWICE = "settled_twice"
    LINE_CHANGED = "line_changed"
    """A later file tells a line, by the gateway's own id of it, with other amounts than those that are booked."""
    REFUND_NETTED = "refund_netted"
    """A sale was settled for less, by exactly what a refund without a line of its own took."""
    NOT_SETTLED = "not_settled"
    """Taken by us and absent in the gateway's files after its settlement delay (failure RC8)."""
    FEE_DIFFERS = "fee_differs"
    PAYOUT_DIFFERS = "payout_differs"
    """The lines of a payout do not add up to what was paid out."""
    PAYOUT_MISSING = "payout_missing"
    """Lines name a payout of which nobody has said, in time, what it paid."""
    BAD_ROWS = "bad_rows"
    """Rows of a file could not be read: what they move is unknown."""
    FILE_INCOMPLETE = "file_incomplete"
    FILE_REFUSED = "file_refused"
    """A file that was stored could not be read: nothing of it was applied."""
    FILE_TOTALS_DIFFER = "file_totals_differ"


class CaseStatus(StrEnum):
    OPEN = "open"
    AWAITING_APPROVAL = "awaiting_approval"
    """An operator asked for a money action above the limit; a second person has to ask for the same (failure RC17)."""
    RESOLVED = "resolved"


class Action(StrEnum):
    """What a policy or an operator does about a case. The first group are commands to other services."""

    CONFIRM_ORDER = "confirm_order"
    """Tell order_service the payment's true state: it confirms, fulfils late, or asks for a refund, by its policies."""
    CANCEL_ORDER = "cancel_order"
    """Tell order_service that what confirmed the order is not there: cancel it, restore its stock."""
    REFUND = "refund"
    """Have payment_service give back all that the payment still has."""
    SYNC = "sync"
    """Have the gateway asked about the payment now."""
    # Only for operators:
    MATCH = "match"
    """The line belongs to the payment that the operator names."""
    ACCEPT = "accept"
    """It is explained; the reason says how. The difference stays in the books as it is."""


COMMANDS = frozenset({Action.CONFIRM_ORDER, Action.CANCEL_ORDER, Action.REFUND, Action.SYNC})
MONEY_ACTIONS = frozenset({Action.REFUND, Action.CANCEL_ORDER})


@dataclass(frozen=True, slots=True)
class Subject:
    """What a case is about, as far as it applies."""

    gateway: str | None = None
    account: str = ""
    order_id: str | None = None
    payment_id: str | None = None
    file_id: str | None = None
    line_number: int | None = None
    payout_reference: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement as a run sees it now. Found again by a later run, it is the same case while that is open."""

    kind: CaseKind
    scenario: Scenario
    key: str
    """Names the disagreement for ever: scenario and subject, never a run, a row number or a time. At most 200."""
    subject: Subject
    currency: str | None = None
    expected_minor: int | None = None
    """What our books say."""
    actual_minor: int | None = None
    """What the gateway says."""
    action: Action | None = None
    """What the policy does about it; None: a person decides."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """JSON: both sides, ids of facts, deliveries and lines, candidates. No personal data."""

    @property
    def difference_minor(self) -> int | None:
        """Signed: positive is money that we did not expect, negative money that is missing."""
        if self.expected_minor is None or self.actual_minor is None:
            return None
        return self.actual_minor - self.expected_minor


@dataclass(frozen=True, slots=True)
class Case:
    case_id: str
    kind: CaseKind
    scenario: Scenario
    key: str
    subject: Subject
    status: CaseStatus
    currency: str | None
    expected_minor: int | None
    actual_minor: int | None
    difference_minor: int | None
    action: Action | None
    evidence: Mapping[str, Any]
    opened_at: datetime
    last_seen_at: datetime
    last_seen_run: str | None
    owner: str | None = None
    held_at: datetime | None = None
    """Since when the policy moves no money of it, because there were too many at once; a person may."""
    requested_action: Action | None = None
    """Of an operator, waiting for a second person; with who and why."""
    requested_by: str | None = None
    request_reason: str | None = None
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    """An operator's subject, or the run that no longer found it."""
    resolution: str | None = None
    """``settled`` (later evidence), ``accepted``, ``matched``, or the action that settled it."""
    reason: str | None = None

    def age_at(self, now: datetime) -> timedelta:
        """Since it was opened, until it was resolved."""
        return max((self.resolved_at or now) - self.opened_at, timedelta(0))


@dataclass(frozen=True, slots=True)
class CaseAction:
    """One action of a case. ``command_key`` makes it the same command for ever, however often it is sent."""

    case_id: str
    number: int
    action: Action
    command_key: str
    asked_by: str
    """``policy``, or an operator's subject."""
    at: datetime
    verified_at: datetime | None = None
    """When a later run saw its effect."""


@dataclass(frozen=True, slots=True)
class CaseNote:
    case_id: str
    number: int
    author: str
    text: str
    at: datetime


def key_part(reference: str) -> str:
    """Keys are short; a long reference is named by its digest."""
    return reference if len(reference) <= 60 else hashlib.sha256(reference.encode()).hexdigest()[:32]
