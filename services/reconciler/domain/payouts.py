"""What a payout's lines add up to against what was said to be paid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject, key_part
from services.reconciler.domain.settlement_rules import SettlementRules


@dataclass(frozen=True, slots=True)
class Payout:
    """A payout: what its lines add up to, and what was said to be paid."""

    gateway: str
    account: str
    payout_reference: str
    currency: str
    lines_minor: int
    lines: int
    stated_minor: int | None
    first_seen_at: datetime
    paid_at: datetime | None = None
    bank_reference: str | None = None

    @property
    def unexplained_minor(self) -> int | None:
        return None if self.stated_minor is None else self.stated_minor - self.lines_minor


def judge_payout(payout: Payout, rules: SettlementRules, *, is_stated_usually: bool, now: datetime) -> Finding | None:
    """``is_stated_usually``: this gateway's files, or statements, say what payouts paid."""
    is_late = now - payout.first_seen_at >= timedelta(days=rules.payout_days)
    if payout.unexplained_minor is None:
        scenario = Scenario.PAYOUT_MISSING if is_late and is_stated_usually else None
    elif payout.lines == 0 and not is_late:
        scenario = None  # the bank was quicker than the gateway's file
    else:
        scenario = Scenario.PAYOUT_DIFFERS if abs(payout.unexplained_minor) > rules.payout_rounding_minor else None
    if scenario is None:
        return None
    reference = key_part(payout.payout_reference)
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=scenario,
        key=f"{scenario}:{payout.gateway}:{payout.account}:{reference}:{payout.currency}",
        subject=Subject(gateway=payout.gateway, account=payout.account, payout_reference=payout.payout_reference),
        currency=payout.currency,
        expected_minor=payout.lines_minor,
        actual_minor=payout.stated_minor,
        evidence={
            "lines": payout.lines,
            "bank_reference": payout.bank_reference,
            "paid_at": payout.paid_at.isoformat() if payout.paid_at else None,
        },
    )


def rounding_minor(payout: Payout, rules: SettlementRules) -> int:
    """What the payout differs by within its tolerance, as it is booked: positive is taken from us."""
    unexplained = payout.unexplained_minor
    if unexplained is None or payout.lines == 0 or abs(unexplained) > rules.payout_rounding_minor:
        return 0
    return -unexplained
