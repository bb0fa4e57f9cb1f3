"""Lines that are judged by themselves: of a payment that we do not know, or with a fee that was not agreed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject
from services.reconciler.domain.settlement import LineKind
from services.reconciler.domain.settlement_rules import FeeRule


@dataclass(frozen=True, slots=True)
class LooseLine:
    """A line about a payment that we do not know, or one whose fee is not what was agreed."""

    gateway: str
    account: str
    file_id: str
    line_number: int
    kind: str
    currency: str
    gross_minor: int
    fee_minor: int
    tax_minor: int
    reference: str | None
    our_reference: str | None
    occurred_at: datetime | None
    identity: int
    occurrence: int
    payment_id: str | None = None

    @property
    def name(self) -> str:
        """Of its content: the same line in another file has the same name."""
        return f"{self.gateway}:{self.account}:{self.identity % 2**64:016x}:{self.occurrence}"

    @property
    def subject(self) -> Subject:
        return Subject(
            gateway=self.gateway,
            account=self.account,
            payment_id=self.payment_id,
            file_id=self.file_id,
            line_number=self.line_number,
        )


def unknown_line(line: LooseLine, candidates: Sequence[Mapping[str, Any]]) -> Finding:
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=Scenario.UNKNOWN_LINE,
        key=f"{Scenario.UNKNOWN_LINE}:{line.name}",
        subject=line.subject,
        currency=line.currency,
        expected_minor=0,
        actual_minor=line.gross_minor,
        evidence={
            "kind": line.kind,
            "reference": line.reference,
            "our_reference": line.our_reference,
            "occurred_at": line.occurred_at.isoformat() if line.occurred_at else None,
            "candidates": list(candidates),
        },
    )


def fee_differs(line: LooseLine, rule: FeeRule) -> Finding | None:
    """Fee and tax of a sale against what was agreed. What it costs us more is negative."""
    if line.kind != LineKind.SALE or line.gross_minor < 0:
        return None
    if rule.allows(line.gross_minor, line.currency, fee_minor=line.fee_minor, tax_minor=line.tax_minor):
        return None
    fee, tax = rule.expected(line.gross_minor, line.currency)
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=Scenario.FEE_DIFFERS,
        key=f"{Scenario.FEE_DIFFERS}:{line.name}",
        subject=line.subject,
        currency=line.currency,
        expected_minor=-(fee + tax),
        actual_minor=-(line.fee_minor + line.tax_minor),
        evidence={
            "reference": line.reference,
            "gross_minor": line.gross_minor,
            "fee_minor": {"agreed": fee, "taken": line.fee_minor},
            "tax_minor": {"agreed": tax, "taken": line.tax_minor},
        },
    )
