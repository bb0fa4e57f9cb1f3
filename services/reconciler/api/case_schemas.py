"""The JSON of cases: strict where it comes in, complete where it goes out."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.reconciler.domain.cases import Action, Case, CaseAction, CaseKind, CaseNote, CaseStatus, Scenario
from services.reconciler.domain.settlement import LineKind
from services.reconciler.use_cases.report_ports import ShownLine, ShownPayout
from shared.contracts.envelope import Rfc3339

_RECONCILIATION = "/api/v1/reconciliation"
_NOT_SHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # Persian, Indian languages and emoji are written with them


def _shown(value: str) -> str:
    """Whoever looks at a case with a terminal is told nothing by it but words: no escape sequence, no turned text."""
    if any(unicodedata.category(character) in _NOT_SHOWN and character not in _JOINERS for character in value):
        raise ValueError("a character that cannot be shown")
    return value


def _shown_in_lines(value: str) -> str:
    lines = value.replace("\r\n", "\n")
    _shown(lines.replace("\n", "").replace("\t", ""))
    return lines


Reason = Annotated[str, StringConstraints(min_length=3, max_length=500, strip_whitespace=True), AfterValidator(_shown)]
NoteText = Annotated[
    str, StringConstraints(min_length=1, max_length=2_000, strip_whitespace=True), AfterValidator(_shown_in_lines)
]
Owner = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_shown)]
PaymentId = Annotated[str, StringConstraints(pattern=r"^pay_[0-9a-z]{26}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ResolveIn(_Strict):
    action: Action = Field(
        strict=False,
        description="accept: it is explained by the reason; match: the line belongs to `payment_id`; the others are"
        " commands, which do not close the case: the next run does, when it sees their effect",
    )
    reason: Reason = Field(description="kept with the case; no personal data")
    payment_id: PaymentId | None = Field(None, description="for match: the payment that the line belongs to")

    @model_validator(mode="after")
    def _match_names_a_payment(self) -> ResolveIn:
        if (self.action is Action.MATCH) != (self.payment_id is not None):
            raise ValueError("match needs payment_id, and no other action takes it")
        return self


class AssignIn(_Strict):
    owner: Owner | None = Field(description="who looks after it; null: nobody")


class NoteIn(_Strict):
    text: NoteText = Field(description="at most 2000 characters; notes are kept for ever: no personal data")


class ActionOut(BaseModel):
    """A command that was sent for the case."""

    action: Action
    asked_by: str = Field(description="`policy`, or an operator's subject")
    at: Rfc3339
    verified_at: Rfc3339 | None = Field(description="when a run saw its effect")

    @classmethod
    def of(cls, action: CaseAction) -> ActionOut:
        return cls(action=action.action, asked_by=action.asked_by, at=action.at, verified_at=action.verified_at)


class NoteOut(BaseModel):
    """What somebody said or did."""

    author: str
    text: str
    at: Rfc3339

    @classmethod
    def of(cls, note: CaseNote) -> NoteOut:
        return cls(author=note.author, text=note.text, at=note.at)


class RequestOut(BaseModel):
    """What waits for a second person."""

    action: Action
    by: str | None
    reason: str | None


class CaseOut(BaseModel):
    """A disagreement. Amounts are minor units of ``currency``; ``difference_minor`` is actual less expected: positive
    is money that our books do not expect, negative is money that is missing."""

    case_id: str
    kind: CaseKind
    scenario: Scenario
    status: CaseStatus
    gateway: str | None
    account: str
    order_id: str | None
    payment_id: str | None
    file_id: str | None
    line_number: int | None
    payout_reference: str | None
    currency: str | None
    expected_minor: int | None = Field(description="what our books say")
    actual_minor: int | None = Field(description="what the gateway says")
    difference_minor: int | None
    action: Action | None = Field(description="what the policy does about it; null: a person decides")
    held_at: Rfc3339 | None = Field(
        description="since when the policy leaves it to a person, because it found too many such cases in a day"
    )
    request: RequestOut | None = Field(description="what an operator asked for and a second person has to ask for too")
    owner: str | None
    opened_at: Rfc3339
    last_seen_at: Rfc3339
    last_seen_run: str | None
    age_seconds: int = Field(description="since it was opened, until it was resolved")
    resolved_at: Rfc3339 | None
    resolved_by: str | None = Field(description="an operator's subject, or the run that no longer found it")
    resolution: str | None
    reason: str | None
    links: dict[str, str] = Field(description="API paths, at the services that own them")

    @classmethod
    def of(cls, case: Case, *, now: datetime) -> CaseOut:
        return cls(**_facts(case, now))


class CaseDetailOut(CaseOut):
    evidence: dict[str, Any] = Field(description="both sides as the last run saw them, and what they were read from")
    actions: list[ActionOut]
    notes: list[NoteOut]

    @classmethod
    def with_history(
        cls, case: Case, actions: list[CaseAction], notes: list[CaseNote], *, now: datetime
    ) -> CaseDetailOut:
        return cls(
            **_facts(case, now),
            evidence=dict(case.evidence),
            actions=[ActionOut.of(action) for action in actions],
            notes=[NoteOut.of(note) for note in notes],
        )


class CasePage(BaseModel):
    data: list[CaseOut]
    next_cursor: str | None


class PayoutOut(BaseModel):
    payout_reference: str
    currency: str
    lines: int
    lines_minor: int = Field(description="sum of the nets of its lines")
    stated_minor: int | None = Field(description="what the gateway or the bank says; null: nobody has said it yet")
    unexplained_minor: int | None = Field(description="stated less lines")
    paid_at: Rfc3339 | None
    bank_reference: str | None

    @classmethod
    def of(cls, payout: ShownPayout) -> PayoutOut:
        return cls(
            payout_reference=payout.payout_reference,
            currency=payout.currency,
            lines=payout.lines,
            lines_minor=payout.lines_minor,
            stated_minor=payout.stated_minor,
            unexplained_minor=None if payout.stated_minor is None else payout.stated_minor - payout.lines_minor,
            paid_at=payout.paid_at,
            bank_reference=payout.bank_reference,
        )


class SettledLineOut(BaseModel):
    """A settlement line. Signs are ours: what comes to us is positive; net = gross - fee - tax."""

    file_id: str
    file_name: str
    line_number: int
    part: int
    kind: LineKind
    currency: str
    gross_minor: int
    fee_minor: int
    tax_minor: int
    net_minor: int
    occurred_at: Rfc3339 | None
    reference: str | None
    our_reference: str | None
    line_reference: str | None
    matched_by: str | None
    repeats: bool = Field(description="an earlier file told it already; it counts nothing")
    payout_reference: str | None
    payout: PayoutOut | None

    @classmethod
    def of(cls, line: ShownLine) -> Self:
        own = {name: getattr(line, name) for name in cls.model_fields if name not in ("kind", "payout")}
        return cls(**own, kind=LineKind(line.kind), payout=None if line.payout is None else PayoutOut.of(line.payout))


class FileLineOut(SettledLineOut):
    position: int = Field(description="in the order of the file, from 1")
    payment_id: str | None = Field(description="null: it is about no payment, or matched to none")


class FileLinePage(BaseModel):
    data: list[FileLineOut]
    next_cursor: str | None


class PaymentSettlementOut(BaseModel):
    """What settlement files say about a payment, and what is in dispute about it."""

    payment_id: str
    lines: list[SettledLineOut]
    cases: list[CaseOut]


def _facts(case: Case, now: datetime) -> dict[str, Any]:
    request = None
    if case.status is CaseStatus.AWAITING_APPROVAL and case.requested_action is not None:
        request = RequestOut(action=case.requested_action, by=case.requested_by, reason=case.request_reason)
    subject = case.subject
    return {
        "case_id": case.case_id,
        "kind": case.kind,
        "scenario": case.scenario,
        "status": case.status,
        "gateway": subject.gateway,
        "account": subject.account,
        "order_id": subject.order_id,
        "payment_id": subject.payment_id,
        "file_id": subject.file_id,
        "line_number": subject.line_number,
        "payout_reference": subject.payout_reference,
        "currency": case.currency,
        "expected_minor": case.expected_minor,
        "actual_minor": case.actual_minor,
        "difference_minor": case.difference_minor,
        "action": case.action,
        "held_at": case.held_at,
        "request": request,
        "owner": case.owner,
        "opened_at": case.opened_at,
        "last_seen_at": case.last_seen_at,
        "last_seen_run": case.last_seen_run,
        "age_seconds": int(case.age_at(now).total_seconds()),
        "resolved_at": case.resolved_at,
        "resolved_by": case.resolved_by,
        "resolution": case.resolution,
        "reason": case.reason,
        "links": _links(case),
    }


def _links(case: Case) -> dict[str, str]:
    subject = case.subject
    links = {"self": f"{_RECONCILIATION}/cases/{case.case_id}"}
    if subject.order_id:
        links["order"] = f"/api/v1/orders/{subject.order_id}"
    if subject.payment_id:
        links["payment"] = f"/api/v1/payments/{subject.payment_id}"
        links["timeline"] = f"/api/v1/payments/{subject.payment_id}/timeline"
        links["settlement"] = f"{_RECONCILIATION}/payments/{subject.payment_id}"
    if subject.file_id:
        links["file"] = f"{_RECONCILIATION}/settlement-files/{subject.file_id}"
        if subject.line_number is not None:
            links["line"] = f"{links['file']}/lines?line_number={subject.line_number}"
    if case.last_seen_run:
        links["run"] = f"{_RECONCILIATION}/runs/{case.last_seen_run}"
    return links
