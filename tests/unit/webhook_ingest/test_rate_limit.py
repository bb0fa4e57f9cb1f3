from __future__ import annotations

import pytest

from services.webhook_ingest.api import rate_limit
from services.webhook_ingest.api.rate_limit import FailureLimiter, RejectBudget, address_bucket
from tests.support.clock import FakeClock


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_an_address_is_counted_by_itself_and_ipv6_by_its_network(address: str, bucket: str) -> None:
    assert address_bucket(address) == bucket


async def test_failures_are_counted_for_a_minute_from_the_first() -> None:
    clock = FakeClock()
    limiter = FailureLimiter(2, clock)
    assert [await limiter.count_failure("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert (await limiter.allowance("192.0.2.1")).is_used_up
    assert (await limiter.allowance("192.0.2.2")).remaining == 2
    clock.move(59)
    assert (await limiter.allowance("192.0.2.1")).reset_seconds == 1
    clock.move(1)
    assert (await limiter.allowance("192.0.2.1")).remaining == 2
    assert await limiter.count_failure("192.0.2.1")


async def test_a_flood_of_addresses_does_not_grow_the_memory_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_ADDRESSES", 100)
    limiter = FailureLimiter(1, FakeClock())
    for number in range(300):
        await limiter.count_failure(f"10.0.{number // 256}.{number % 256}")
    assert not (await limiter.allowance("10.0.0.1")).is_used_up
    assert (await limiter.allowance("10.0.1.43")).is_used_up


async def test_the_budget_of_kept_rejects_is_each_gateways_own() -> None:
    clock = FakeClock()
    budget = RejectBudget(1, clock)
    assert await budget.take("stripe")
    assert not await budget.take("stripe")
    assert await budget.take("generic")
    clock.move(60)
    assert await budget.take("stripe")
