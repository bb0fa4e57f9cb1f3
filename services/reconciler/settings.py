"""Every variable that the reconciler reads, with its unit and reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from services.reconciler.domain.approval import SecondPersonRule
from services.reconciler.domain.decisions import OrphanPolicy
from services.reconciler.domain.models import RunKind
from services.reconciler.domain.schedule import HOUR, Timetable
from services.reconciler.domain.settlement_rules import FeeRule, SettlementRules
from services.reconciler.settlement_formats.limits import ReadingLimits
from services.reconciler.settlement_formats.process import ReadingOptions
from services.reconciler.use_cases.fetch_reports import ReportRules
from services.reconciler.use_cases.mirror_ports import OrderRules
from services.reconciler.use_cases.ports import SweepRules
from services.reconciler.use_cases.run_runner import RunSchedule
from shared.command_keys import CommandSigningKey, signing_key
from shared.money import CURRENCY_EXPONENT
from shared.settings import ServiceSettings

MOST_LOOKS = 50
MOST_CALLS = 1000
MAX_LOOK_HOURS = 2 * 365 * 24


class ReconcilerSettings(ServiceSettings):
    payment_service_url: str = Field("http://127.0.0.1:8000", description="base URL of payment_service")
    payment_call_budget_seconds: float = Field(
        30.0, gt=0, le=120, description="one call to payment_service in all; its own gateway budget fits into it"
    )

    sweep_first_check_seconds: float = Field(
        60.0, gt=0, le=3600, description="a webhook usually comes within seconds; a shopper waits about this long"
    )
    sweep_schedule_factor: float = Field(
        1.0, gt=0, le=100, description="multiplies every later wait of the schedule; below 1 in tests"
    )
    sweep_captured_looks_hours: str = Field(
        "1,6,24,72,168,336,720,1440,2160,2880",
        description="comma-separated hours after a captured payment's money last moved: refunds in the gateway's"
        " dashboard and disputes, which come until about 120 days later; empty: captured payments are not asked about",
    )
    sweep_interval_seconds: float = Field(15.0, gt=0, le=3600, description="how often a round looks for what is due")
    sweep_pull_interval_seconds: float = Field(
        60.0, gt=0, description="how often payment_service's list is looked through for payments whose events were lost"
    )
    sweep_calls_per_gateway: int = Field(
        50, ge=1, le=1000, description="calls in one round to one gateway: the pace of a backlog (failure RC14)"
    )
    sweep_calls_by_gateway: str = Field(
        "",
        description="exceptions from SWEEP_CALLS_PER_GATEWAY, where a gateway allows more or less: phonepe=10,tabby=20",
    )
    sweep_concurrency_per_gateway: int = Field(
        4, ge=1, le=50, description="calls at once; gateways limit rates per account, and shoppers come first"
    )
    sweep_batch_size: int = Field(
        500, ge=1, le=10_000, description="payments taken up in one round, all gateways together"
    )
    sweep_gateway_pause_seconds: float = Field(
        60.0, gt=0, le=600, description="the first rest of a gateway that does not answer; each further one is longer"
    )
    sweep_lease_seconds: float = Field(
        90.0, gt=0, le=900, description="another replica takes over this long after the runner's last sign of life"
    )
    reconciler_keep_days: int = Field(
        30, ge=1, le=3650, description="days that dropped payments and ended runs are kept"
    )

    orders_run_interval_seconds: float = Field(
        4 * 3600.0, ge=0, description="between scheduled comparisons of orders with payments; 0: only when asked for"
    )
    settlement_run_interval_seconds: float = Field(
        6 * 3600.0,
        ge=0,
        description="between scheduled looks at what is unmatched, not settled or an open case; 0: only when asked for",
    )
    run_lease_seconds: float = Field(
        90.0,
        gt=3,
        le=900,
        description="another replica takes a run over this long after its runner's last sign of life",
    )
    settlement_database_pool_size: int = Field(
        4,
        ge=1,
        le=50,
        description="connections of their own for settlement files; each upload and run needs one or two",
    )
    settlement_statement_timeout_seconds: float = Field(
        900.0, gt=0, le=7200, description="one statement over a whole settlement file: a million lines take minutes"
    )
    settlement_max_bytes: int = Field(
        1024 * 1024 * 1024, ge=1, description="a settlement file as it comes: a million lines are 100 to 300 MB"
    )
    settlement_max_content_bytes: int = Field(
        4 * 1024 * 1024 * 1024, ge=1, description="what a packed settlement file may expand to"
    )
    settlement_max_expansion_ratio: int = Field(
        200,
        ge=2,
        description="expanded bytes for each packed byte: tables pack 5 to 50 times, a bomb 1000 (failure RC16)",
    )
    settlement_max_rows: int = Field(20_000_000, ge=1, description="rows of one settlement file")
    settlement_max_columns: int = Field(500, ge=1, le=16_384, description="columns of a settlement file's table")
    settlement_max_cell_length: int = Field(
        32_767, ge=64, le=1_000_000, description="characters of one cell; a spreadsheet holds no more either"
    )
    settlement_reader_memory_bytes: int = Field(
        1024 * 1024 * 1024, ge=256 * 1024 * 1024, description="address space of the process that reads a file"
    )
    settlement_reading_timeout_seconds: float = Field(
        1800.0, gt=0, le=86_400, description="reading one file in all; a million rows take half a minute"
    )
    settlement_files_at_once: int = Field(
        2, ge=1, le=20, description="uploads that are recognised and stored at the same time: each takes a core"
    )
    settlement_uploads_at_once: int = Field(
        8,
        ge=1,
        le=200,
        description="uploads that one process reads at the same time, each up to SETTLEMENT_MAX_BYTES of TMPDIR; more"
        " are asked to come back",
    )
    settlement_folder: Path | None = Field(
        None, description="watched for files in <folder>/<gateway>[__<account>]/; unset: no folder is watched"
    )
    settlement_folder_interval_seconds: float = Field(
        30.0, gt=0, le=3600, description="how often it is looked at; a file is taken when two looks find it the same"
    )
    settlement_header_maps: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description='JSON: columns of files that are arranged with each merchant: {"payu": {"gross": "Txn Amount"}}',
    )
    settlement_currencies: dict[str, str] = Field(
        default_factory=dict, description='JSON: of gateways whose files do not say it: {"billdesk": "INR"}'
    )

    settlement_report_days: int = Field(
        3, ge=0, le=30, description="how many days back gateways' own reports are fetched; 0: they are not"
    )
    settlement_report_interval_seconds: float = Field(
        3600.0, gt=0, le=86_400, description="between looks for reports that are not fetched yet"
    )
    settlement_report_budget_seconds: float = Field(
        300.0,
        gt=0,
        le=1800,
        description="one gateway's report of one day: hundreds of its pages, through payment_service",
    )

    second_person_above_minor: str = Field(
        "0",
        description="minor units above which an operator's refund or cancellation takes a second person, e.g."
        " `5000,JPY=800000`: a number for all currencies, and exceptions; by default each one takes two people",
    )
    settlement_delay_days: dict[str, int] = Field(
        default_factory=dict,
        description='JSON, {"razorpay": 5}: days until what was taken must be in a file of the gateway',
    )
    settlement_fees: dict[str, FeeRule] = Field(
        default_factory=dict,
        description='JSON, {"razorpay": {"basis_points": 200, "fixed_minor": {"INR": 0}, "tax_percent": 18,'
        ' "tolerance_minor": 1}}: what a gateway takes of a sale; the fees of others are not checked',
    )
    settlement_payout_rounding_minor: int = Field(
        0, ge=0, le=100_000, description="minor units that a payout may differ from its lines; booked as adjustment"
    )
    settlement_payout_days: int = Field(
        7, ge=1, le=365, description="days until somebody has to say what a payout paid, a bank holiday included"
    )
    settlement_lookback_days: int = Field(
        90, ge=1, le=3650, description="days back that payments absent in settlement files are looked for"
    )

    command_signing_key: CommandSigningKey = Field(
        None,
        description="hex, at least 32 bytes; signs the commands to order_service and payment_service, whose "
        "COMMAND_KEYS list it as reconciler:<hex>. Unset: cases are found, and wait for a person",
    )

    @field_validator("settlement_currencies")
    @classmethod
    def _currencies_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value.values()) - set(CURRENCY_EXPONENT))
        if unknown:
            raise ValueError("ISO 4217 codes, in capitals")
        return value

    order_service_url: str = Field("http://127.0.0.1:8000", description="base URL of order_service")
    export_budget_seconds: float = Field(
        1800.0, gt=0, le=7200, description="one export in all; the first one reads everything there is"
    )
    pull_overlap_seconds: float = Field(
        900.0, ge=0, le=86_400, description="read again: owners set updated_at before they commit, by their own clocks"
    )
    pull_whole_hours: float = Field(
        24.0,
        gt=0,
        le=720,
        description="between pulls of all that the owners have, which show what went back or is gone",
    )
    accept_restored_exports: bool = Field(
        False,
        description="an owner's database was restored on purpose: take what it exports, however much it lacks. For one"
        " run; without it a run that finds much gone fails with export_went_back",
    )
    orders_grace_seconds: float = Field(
        600.0, ge=0, le=86_400, description="a difference that is younger is no case: its event is on its way"
    )
    orders_unknown_outcome_hours: float = Field(
        24.0, ge=0, le=720, description="after that an unanswered call is a person's matter too"
    )
    orders_unverified_hours: float = Field(
        6.0, gt=0, le=720, description="after that a command that changed nothing is said to have had no effect"
    )
    orders_cancel_limit: int = Field(
        50,
        ge=0,
        description="orders canceled and payments refunded by policy in 24 hours, and never more than a twentieth"
        " of all orders (but 5): more is no lost event but a lost database, and all that"
        " the run found are held for a person",
    )
    orphan_policy: OrphanPolicy = Field(
        OrphanPolicy.CASE, description="a payment whose order nobody knows: case (a person decides) or refund"
    )
    gateway_list_days: float = Field(3.0, gt=0, le=90, description="how far back gateways' own lists are read")
    gateway_list_lag_seconds: float = Field(
        3600.0, ge=0, le=86_400, description="the newest part is left out: it is still on its way to us"
    )

    @field_validator("sweep_calls_by_gateway")
    @classmethod
    def _calls_are_numbers(cls, value: str) -> str:
        for gateway, calls in _pairs(value):
            if not gateway or not calls.isdecimal() or not 1 <= int(calls) <= MOST_CALLS:
                raise ValueError(f"a list of <gateway>=<1 to {MOST_CALLS}>, separated by commas")
        return value

    @field_validator("sweep_captured_looks_hours")
    @classmethod
    def _looks_ascend(cls, value: str) -> str:
        hours = _hours(value)
        if any(later <= earlier for earlier, later in pairwise((0, *hours))):
            raise ValueError("hours must be above 0 and ascend")
        if len(hours) > MOST_LOOKS or any(hour > MAX_LOOK_HOURS for hour in hours):
            raise ValueError(f"at most {MOST_LOOKS} looks, the last one within {MAX_LOOK_HOURS} hours")
        return value

    @field_validator("second_person_above_minor")
    @classmethod
    def _limits_are_minor_units(cls, value: str) -> str:
        SecondPersonRule.parse(value)
        return value

    @model_validator(mode="after")
    def _lease_outlasts_a_call(self) -> ReconcilerSettings:
        # The lease is renewed after each call; one shorter than a call would be lost in the middle of it.
        if self.sweep_lease_seconds < 2 * self.payment_call_budget_seconds:
            raise ValueError("SWEEP_LEASE_SECONDS must be at least twice PAYMENT_CALL_BUDGET_SECONDS")
        return self

    @property
    def second_person(self) -> SecondPersonRule:
        return SecondPersonRule.parse(self.second_person_above_minor)

    @property
    def settlement_rules(self) -> SettlementRules:
        return SettlementRules(
            delay_days=self.settlement_delay_days,
            fees=self.settlement_fees,
            payout_rounding_minor=self.settlement_payout_rounding_minor,
            payout_days=self.settlement_payout_days,
            lookback_days=self.settlement_lookback_days,
        )

    @property
    def command_key(self) -> bytes | None:
        return signing_key(self.command_signing_key)

    @property
    def report_rules(self) -> ReportRules:
        return ReportRules(self.settlement_report_days, 2 * self.settlement_report_budget_seconds)

    @property
    def run_schedules(self) -> Mapping[RunKind, RunSchedule]:
        return {
            RunKind.ORDERS: RunSchedule(self.run_lease_seconds, self.orders_run_interval_seconds),
            RunKind.SETTLEMENT: RunSchedule(self.run_lease_seconds, self.settlement_run_interval_seconds),
        }

    @property
    def timetable(self) -> Timetable:
        return Timetable(
            first_check_seconds=self.sweep_first_check_seconds,
            factor=self.sweep_schedule_factor,
            captured_looks=tuple(hours * HOUR for hours in _hours(self.sweep_captured_looks_hours)),
        )

    @property
    def reading(self) -> ReadingOptions:
        limits = ReadingLimits(
            max_bytes=self.settlement_max_bytes,
            max_content_bytes=self.settlement_max_content_bytes,
            max_expansion_ratio=self.settlement_max_expansion_ratio,
            max_rows=self.settlement_max_rows,
            max_columns=self.settlement_max_columns,
            max_cell_length=self.settlement_max_cell_length,
            memory_bytes=self.settlement_reader_memory_bytes,
        )
        return ReadingOptions(
            limits,
            self.settlement_reading_timeout_seconds,
            header_maps=self.settlement_header_maps,
            default_currencies=self.settlement_currencies,
        )

    @property
    def order_rules(self) -> OrderRules:
        return OrderRules(
            pull_overlap=timedelta(seconds=self.pull_overlap_seconds),
            pull_whole_every=timedelta(hours=self.pull_whole_hours),
            accept_restored=self.accept_restored_exports,
            grace=timedelta(seconds=self.orders_grace_seconds),
            unknown_outcome_after=timedelta(hours=self.orders_unknown_outcome_hours),
            unverified_after=timedelta(hours=self.orders_unverified_hours),
            orphan_policy=self.orphan_policy,
            list_window=timedelta(days=self.gateway_list_days),
            list_lag=timedelta(seconds=self.gateway_list_lag_seconds),
            cancel_limit=self.orders_cancel_limit,
        )

    @property
    def rules(self) -> SweepRules:
        return SweepRules(
            calls_per_gateway=self.sweep_calls_per_gateway,
            calls_by_gateway={gateway: int(calls) for gateway, calls in _pairs(self.sweep_calls_by_gateway)},
            concurrency_per_gateway=self.sweep_concurrency_per_gateway,
            batch_size=self.sweep_batch_size,
            gateway_pause_seconds=self.sweep_gateway_pause_seconds,
            lease_seconds=self.sweep_lease_seconds,
            pull_interval_seconds=self.sweep_pull_interval_seconds,
        )


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in text.split(",") if part.strip())
    return [(name.strip(), value.strip()) for name, _, value in parts]


def _hours(text: str) -> tuple[int, ...]:
    """Raises ValueError."""
    return tuple(int(part) for part in text.split(",")) if text.strip() else ()
