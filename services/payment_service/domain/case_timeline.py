"""What the reconciler found about a payment, as entries of its timeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.payment_service.domain.timeline import EntryKind, TimelineEntry, code
from shared.money import CURRENCY_EXPONENT, Money

UNNAMED = "unnamed"


@dataclass(frozen=True, slots=True)
class CaseNews:
    """A case that was opened, or (with ``resolution``) resolved. Amounts are minor units of ``currency``."""

    case_id: str
    kind: str
    scenario: str
    at: datetime
    currency: str | None = None
    expected_minor: int | None = None
    actual_minor: int | None = None
    difference_minor: int | None = None
    action: str | None = None
    resolution: str | None = None
    resolved_by: str | None = None

    def money(self, amount_minor: int | None) -> Money | None:
        """None also for a currency that this release does not know: a sentence without an amount is better than
        none."""
        if amount_minor is None or self.currency is None or self.currency not in CURRENCY_EXPONENT:
            return None
        return Money(amount_minor, self.currency)


def case_entry(news: CaseNews) -> TimelineEntry:
    """``amount`` is the signed difference: positive is money that we did not expect, negative money that is missing."""
    details = {
        "case_id": code(news.case_id),
        "case_kind": code(news.kind),
        "scenario": code(news.scenario),
        "state": "opened" if news.resolution is None else "resolved",
        "action": code(news.action),
        "resolution": code(news.resolution),
    }
    difference = news.money(news.difference_minor)
    return TimelineEntry(
        kind=EntryKind.CASE,
        at=news.at,
        summary=_opened(news) if news.resolution is None else _resolved(news),
        source="reconciler",
        actor=code(news.resolved_by),
        reference=code(news.case_id),
        amount=difference,
        details={name: value for name, value in details.items() if value is not None},
    )


def unresolved(entries: Iterable[TimelineEntry]) -> list[TimelineEntry]:
    """Entries of cases that were opened and of which nothing says that they were resolved, in whatever order the two
    came."""
    cases = [entry for entry in entries if entry.kind is EntryKind.CASE]
    over = {entry.reference for entry in cases if entry.details.get("state") == "resolved"}
    return [entry for entry in cases if entry.reference not in over]


def scenario_of(entry: TimelineEntry) -> str:
    return str(entry.details.get("scenario") or UNNAMED).replace("_", " ")


def _opened(news: CaseNews) -> str:
    action = code(news.action)
    what_next = f"policy: {action.replace('_', ' ')}" if action else "a person decides"
    return f"Reconciliation found: {_scenario(news)}{_amounts(news)}; {what_next}"


def _resolved(news: CaseNews) -> str:
    resolution = (code(news.resolution) or UNNAMED).replace("_", " ")
    by = code(news.resolved_by)
    return f"Reconciliation case resolved ({_scenario(news)}{_amounts(news)}): {resolution}{f', by {by}' if by else ''}"


def _scenario(news: CaseNews) -> str:
    return (code(news.scenario) or UNNAMED).replace("_", " ")


def _amounts(news: CaseNews) -> str:
    expected, actual = news.money(news.expected_minor), news.money(news.actual_minor)
    difference = news.money(news.difference_minor)
    told = []
    if expected is not None:
        told.append(f"{expected} in our books")
    if actual is not None:
        told.append(f"{actual} at the gateway")
    if difference is not None:
        told.append(f"difference {'+' if difference.amount_minor > 0 else ''}{difference}")
    return "".join(f", {each}" for each in told)
