"""What is explicit in judging settlement: tolerances, fees, patience, and what is due at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

DEFAULT_DELAY_DAYS: Mapping[str, int] = {
    "stripe": 7,  # payouts two to seven days after the charge; the report is ready the next day
    "paypal": 3,  # daily report of the day before, by noon in the report's zone
    "razorpay": 5,  # two working days, over a weekend and a holiday
    "payu": 5,
    "billdesk": 5,
    "ccavenue": 5,
    "phonepe": 5,
    "paytm": 5,
    "myfatoorah": 7,  # the fact sheet's example is deposited after four days
    "tabby": 10,  # weekly statements
    "tamara": 10,
}

ANY_GATEWAY_DELAY_DAYS = 7


@dataclass(frozen=True, slots=True)
class FeeRule:
    """What a gateway takes of a sale: a part, something fixed, and tax on both. A file that names no tax tells one
    number for both."""

    basis_points: int = 0
    fixed_minor: Mapping[str, int] = field(default_factory=dict)
    """Per currency."""
    tax_percent: int = 0
    tolerance_minor: int = 1
    """Of fee and tax each: gateways round by line or by batch (failure RC5)."""
    rounding: Literal["half_up", "down"] = "half_up"

    def expected(self, gross_minor: int, currency: str) -> tuple[int, int]:
        """Fee and tax on it."""
        half, half_percent = (5_000, 50) if self.rounding == "half_up" else (0, 0)
        fee = (gross_minor * self.basis_points + half) // 10_000 + self.fixed_minor.get(currency, 0)
        return fee, (fee * self.tax_percent + half_percent) // 100

    def allows(self, gross_minor: int, currency: str, *, fee_minor: int, tax_minor: int) -> bool:
        fee, tax = self.expected(gross_minor, currency)
        if tax_minor == 0:
            return abs(fee_minor - fee - tax) <= self.tolerance_minor
        return abs(fee_minor - fee) <= self.tolerance_minor and abs(tax_minor - tax) <= self.tolerance_minor


@dataclass(frozen=True, slots=True)
class SettlementRules:
    """Tolerances and patience, all explicit."""

    delay_days: Mapping[str, int] = field(default_factory=dict)
    """Exceptions from DEFAULT_DELAY_DAYS."""
    fees: Mapping[str, FeeRule] = field(default_factory=dict)
    """Per gateway; the fees of one without a rule are not checked."""
    payout_rounding_minor: int = 0
    """A payout may differ by so much from its lines; what differs is booked as adjustment."""
    payout_days: int = 7
    """Within so many days somebody has to say what a payout paid."""
    lookback_days: int = 90
    """What was taken longer ago is not looked for any more."""

    def delay(self, gateway: str) -> timedelta:
        default = DEFAULT_DELAY_DAYS.get(gateway, ANY_GATEWAY_DELAY_DAYS)
        return timedelta(days=self.delay_days.get(gateway, default))


@dataclass(frozen=True, slots=True)
class Due:
    """Movements of this time must have been settled: older than the delay, and covered by a file that was read."""

    since: datetime
    until: datetime | None
    """None: no file covers anything yet."""

    def has(self, at: datetime) -> bool:
        return self.until is not None and self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class Coverage:
    """The times of the earliest and the latest line of an account's files. None: there is none."""

    since: datetime | None = None
    until: datetime | None = None

    def with_file(self, since: datetime | None, until: datetime | None) -> Coverage:
        return Coverage(_of(min, self.since, since), _of(max, self.until, until))


def _of(choose: Callable[..., datetime], *times: datetime | None) -> datetime | None:
    known = [at for at in times if at is not None]
    return choose(known) if known else None


def due(rules: SettlementRules, gateway: str, covered: Coverage, *, now: datetime) -> Due:
    """What moved before the day of the first line that there is may have been in a file that nobody sent in."""
    oldest = now - timedelta(days=rules.lookback_days)
    until = None if covered.until is None else min(covered.until, now - rules.delay(gateway))
    if covered.since is None:
        return Due(oldest, until)
    first_day = covered.since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Due(max(oldest, first_day), until)
