"""The reconciler's settings refuse what cannot work."""

from __future__ import annotations

import pytest

from services.reconciler.domain.schedule import CAPTURED_LOOKS
from services.reconciler.settings import ReconcilerSettings
from shared.settings import ConfigurationError


def test_a_lease_that_one_call_could_outlast_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SWEEP_LEASE_SECONDS"):
        ReconcilerSettings.load(database_url="postgresql://x", sweep_lease_seconds=30, payment_call_budget_seconds=30)


@pytest.mark.parametrize("looks", ["6,1", "0,1", "1,1", "one", "1,,2", "1.5", "100000"])
def test_looks_at_captured_payments_that_make_no_sense_are_refused(looks: str) -> None:
    with pytest.raises(ConfigurationError, match="SWEEP_CAPTURED_LOOKS_HOURS"):
        ReconcilerSettings.load(database_url="postgresql://x", sweep_captured_looks_hours=looks)


def test_the_defaults_are_the_ones_of_the_readme() -> None:
    settings = ReconcilerSettings.load(database_url="postgresql://x")
    assert (settings.timetable.first_check_seconds, settings.timetable.factor) == (60, 1)
    assert settings.timetable.captured_looks == CAPTURED_LOOKS
    assert (settings.rules.calls_per_gateway, settings.rules.lease_seconds) == (50, 90)
