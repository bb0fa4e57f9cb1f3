"""The JSON of the reconciler's API: strict where it comes in, complete where it goes out."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.reconciler.domain.models import Run, RunKind, RunRequest, SweepDay, WatchedPayment
from shared.contracts.envelope import Rfc3339
from shared.contracts.payment_events import PaymentStatusName

_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _within_reason(value: datetime) -> datetime:
    # Outside these years a zone's offset may leave what PostgreSQL or Python can hold.
    if not _EARLIEST <= value <= _LATEST:
        raise ValueError("a time between the years 2000 and 2200")
    return value


GatewayName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{1,31}$")]
InputTime = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_within_reason)]


class StartRunIn(BaseModel):
    """What to check. The window, ``from`` included and ``to`` excluded, is of the payments' creation (sweep) or of what
    is compared (orders); a settlement run has none."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: RunKind = Field(
        strict=False,
        description="sweep: ask about payments; settlement: match what is unmatched and look at open cases again;"
        " orders: compare orders with payments",
    )
    gateway: GatewayName | None = None
    from_: InputTime | None = Field(None, alias="from")
    to: InputTime | None = None

    @model_validator(mode="after")
    def _forward(self) -> StartRunIn:
        if self.from_ is not None and self.to is not None and not self.from_ < self.to:
            raise ValueError("from must be before to")
        return self

    @model_validator(mode="after")
    def _window_has_a_use(self) -> StartRunIn:
        if self.kind is RunKind.SETTLEMENT and (self.from_ is not None or self.to is not None):
            raise ValueError("a settlement run looks at everything that is unmatched or open; it takes no window")
        return self

    def to_request(self) -> RunRequest:
        return RunRequest(self.gateway, self.from_, self.to)


class WindowOut(BaseModel):
    """Of the payments' creation; null is open."""

    from_: Rfc3339 | None = Field(alias="from")
    to: Rfc3339 | None


class RunOut(BaseModel):
    """A run and how far it is. Counts are of payments (sweep), lines (settlement) or orders (orders)."""

    run_id: str
    kind: RunKind
    status: Literal["running", "completed", "failed"]
    trigger: Literal["schedule", "request"]
    asked_by: str | None = Field(description="who asked for it; null for a scheduled run")
    gateway: str | None = Field(description="null: all")
    window: WindowOut
    file_id: str | None = Field(description="the settlement file that it reads")
    phase: str | None = Field(description="what it is at just now: pulling, reading, matching, comparing, …")
    done: int = Field(description="of this phase")
    total: int | None = Field(description="of this phase, where it is known")
    matched: int = Field(description="what the run took up (sweep), or what agrees (settlement, orders)")
    checked: int = Field(
        description="payments that the gateway was asked about, or lines or orders that were looked at"
    )
    changed: int = Field(description="payments of which the sweep learnt before any webhook did")
    failed: int = Field(description="payments that could not be asked about; they are asked again")
    cases_opened: int
    cases_resolved: int
    totals: list[dict[str, Any]] = Field(description="per gateway and currency, minor units; once it has ended")
    problem: str | None = Field(description="why it failed: a code")
    started_at: Rfc3339
    finished_at: Rfc3339 | None

    @classmethod
    def of(cls, run: Run) -> RunOut:
        return cls(
            run_id=run.run_id,
            kind=run.kind,
            file_id=run.file_id,
            phase=run.phase,
            done=run.done,
            total=run.total,
            cases_opened=run.cases_opened,
            cases_resolved=run.cases_resolved,
            totals=[dict(total) for total in run.totals],
            problem=run.problem,
            status=run.status.value,
            trigger="schedule" if run.asked_by is None else "request",
            asked_by=run.asked_by,
            gateway=run.request.gateway,
            window=WindowOut.model_validate({"from": run.request.window_from, "to": run.request.window_to}),
            matched=run.matched,
            checked=run.checked,
            changed=run.changed,
            failed=run.failed,
            started_at=run.started_at,
            finished_at=run.finished_at,
        )


class SweepDayOut(BaseModel):
    """What the sweep found at a gateway on a day (UTC)."""

    gateway: str
    day: date
    checked: int
    learnt_first: int = Field(description="payments of which it learnt before any webhook did")
    failed: int
    payments: int = Field(description="of that gateway, created that day, with money, as far as they were pulled")
    missed_webhooks_basis_points: int | None = Field(description="learnt_first of payments; null: there were none")

    @classmethod
    def of(cls, found: SweepDay) -> SweepDayOut:
        rate = found.learnt_first * 10_000 // found.payments if found.payments else None
        return cls(**asdict(found), missed_webhooks_basis_points=rate)


class SweepDays(BaseModel):
    data: list[SweepDayOut]


class RunPage(BaseModel):
    data: list[RunOut]
    next_cursor: str | None


class MoneyOut(BaseModel):
    amount_minor: int
    currency: str


class WatchedPaymentOut(BaseModel):
    """A payment that the sweep asks about."""

    payment_id: str
    order_id: str
    gateway: str
    status: PaymentStatusName
    version: int
    amount: MoneyOut
    is_unsettled: bool = Field(description="a refund is pending, a dispute is open, or a call is unanswered")
    capture_before: Rfc3339 | None = Field(description="when the hold ends, where that is known")
    checks: int = Field(description="answered checks since it came to where it is")
    failures: int = Field(description="unanswered checks in a row")
    next_check_at: Rfc3339 | None = Field(description="null: not asked about any more")
    last_checked_at: Rfc3339 | None
    last_error: str | None
    asked_by_run: str | None = Field(description="the run on demand that waits for its check")
    created_at: Rfc3339 = Field(description="of the payment")
    status_since: Rfc3339 = Field(description="when it came to its status, or its money last moved")
    first_seen_at: Rfc3339

    @classmethod
    def of(cls, watched: WatchedPayment) -> WatchedPaymentOut:
        return cls(
            payment_id=watched.payment_id,
            order_id=watched.order_id,
            gateway=watched.gateway,
            status=watched.status.value,
            version=watched.version,
            amount=MoneyOut(amount_minor=watched.amount.amount_minor, currency=watched.amount.currency),
            is_unsettled=watched.standing.is_unsettled,
            capture_before=watched.capture_before,
            checks=watched.checks,
            failures=watched.failures,
            next_check_at=watched.next_check_at,
            last_checked_at=watched.last_checked_at,
            last_error=watched.last_error,
            asked_by_run=watched.asked_by_run,
            created_at=watched.payment_created_at,
            status_since=watched.status_since,
            first_seen_at=watched.first_seen_at,
        )


class WatchedPaymentPage(BaseModel):
    data: list[WatchedPaymentOut]
    next_cursor: str | None
