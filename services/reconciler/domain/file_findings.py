"""What a file says of itself that does not add up, and files that nobody could read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject
from services.reconciler.domain.settlement import FileStatus, SettlementFile, StatedTotal


def findings_of_file(file: SettlementFile, bad_rows: int, totals: Sequence[StatedTotal]) -> list[Finding]:
    """One at most: where rows could not be read, the file's totals cannot be checked, and say nothing more."""
    differing = sorted(
        (total for total in totals if total.stated != total.counted), key=lambda each: (each.name, each.currency or "")
    )
    evidence = [total._asdict() for total in differing[:20]]
    if bad_rows:
        return [_of_file(Scenario.BAD_ROWS, file, {"bad_rows": bad_rows, "totals": evidence})]
    if not differing:
        return []
    first = differing[0]
    finding = _of_file(Scenario.FILE_TOTALS_DIFFER, file, {"name": first.name, "totals": evidence})
    if first.currency is None:  # a count of rows is no money
        return [finding]
    return [replace(finding, currency=first.currency, expected_minor=first.counted, actual_minor=first.stated)]


def unread_file(file: SettlementFile) -> Finding:
    """Until the same content is sent again and read, or a file of the same name is, or a person accepts it."""
    scenario = Scenario.FILE_INCOMPLETE if file.status is FileStatus.INCOMPLETE else Scenario.FILE_REFUSED
    return _of_file(scenario, file, {"problem": file.problem, "detail": file.problem_detail})


def name_of_file(file: SettlementFile) -> str:
    """Of its content, whatever it was called and whenever it came."""
    return f"{file.gateway}:{file.account}:{file.content_sha256.hex()[:32]}"


def _of_file(scenario: Scenario, file: SettlementFile, evidence: Mapping[str, Any]) -> Finding:
    subject = Subject(gateway=file.gateway, account=file.account, file_id=file.file_id)
    return Finding(
        CaseKind.SETTLEMENT,
        scenario,
        f"{scenario}:{name_of_file(file)}",
        subject,
        evidence={"file": file.name, **evidence},
    )
