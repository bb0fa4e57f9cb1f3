"""A line that a later file tells anew: by its gateway's own id it is the same, and its amounts are not."""

from __future__ import annotations

from dataclasses import dataclass

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of one line in one file, minor units."""

    file_id: str
    line_number: int
    gross_minor: int
    fee_minor: int
    tax_minor: int
    net_minor: int

    @property
    def evidence(self) -> dict[str, int | str]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ChangedLine:
    """``identity`` and ``occurrence`` name it among the account's lines."""

    gateway: str
    account: str
    kind: str
    currency: str
    line_reference: str
    payment_id: str | None
    identity: int
    occurrence: int
    booked: Amounts
    """By the file that told it first: it stays so."""
    told: Amounts
    """By the later file."""


def line_changed(line: ChangedLine) -> Finding:
    """The difference is what the ledger would lack if the later file is right. A person finds out which one is."""
    name = f"{line.gateway}:{line.account}:{line.identity % 2**64:016x}:{line.occurrence}"
    return Finding(
        kind=CaseKind.SETTLEMENT,
        scenario=Scenario.LINE_CHANGED,
        key=f"{Scenario.LINE_CHANGED}:{name}",
        subject=Subject(
            gateway=line.gateway,
            account=line.account,
            payment_id=line.payment_id,
            file_id=line.told.file_id,
            line_number=line.told.line_number,
        ),
        currency=line.currency,
        expected_minor=line.booked.net_minor,
        actual_minor=line.told.net_minor,
        evidence={
            "kind": line.kind,
            "line_reference": line.line_reference,
            "booked": line.booked.evidence,
            "told": line.told.evidence,
        },
    )
