"""What the database refuses even when our code is wrong (SEC-61)."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.integration.payment_service.conftest import World


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("amount_minor = 0", "amount_positive"),
        ("amount_minor = -1", "amount_positive"),
        ("version = 0", "version_positive"),
        ("amount_captured = -1", "totals_not_negative|refunds_within_captured"),
        ("amount_authorized = -1", "totals_not_negative|captures_within_authorized"),
        ("amount_authorized = 5, amount_captured = 6", "captures_within_authorized"),
        ("amount_authorized = 5, amount_captured = 3, amount_capture_pending = 3", "captures_within_authorized"),
        (
            "amount_authorized = 5, amount_captured = 5, amount_disputed = 2, amount_dispute_lost = 3",
            "lost_within_disputed",
        ),
        ("amount_excess = -1", "more_totals_not_negative"),
        ("amount_refunded = 1", "refunds_within_captured"),
        (
            "amount_authorized = 10, amount_captured = 10, amount_refunded = 6, amount_refund_pending = 5",
            "refunds_within_captured",
        ),
        (
            "amount_authorized = 10, amount_captured = 10, amount_refunded = 6, amount_disputed = 5",
            "refunds_within_captured",
        ),
        ("status = 'captured'", "captured_is_captured"),
        ("status = 'captured', amount_captured = 1998", "captured_is_captured"),
        ("status = 'paid'", "status_known"),
        ("capture = 'later'", "capture_known"),
        ("currency = NULL", "currency"),
    ],
)
async def test_a_payment_cannot_break_the_rules_of_money(world: World, change: str, constraint: str) -> None:
    payment = await world.opened()
    before = await world.see(payment["payment_id"])
    with pytest.raises(IntegrityError, match=constraint):
        await world.run(f"UPDATE payments SET {change}")
    assert await world.see(payment["payment_id"]) == before


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'open', gateway_reference = NULL", "open_has_reference"),
        ("status = 'lost'", "status_known"),
        ("payment_id = 'pay_none'", "payment_id"),
    ],
)
async def test_an_attempt_cannot_be_nonsense(world: World, change: str, constraint: str) -> None:
    await world.opened()
    with pytest.raises(IntegrityError, match=constraint):
        await world.run(f"UPDATE payment_attempts SET {change}")


@pytest.mark.parametrize("column", ["idempotency_key", "reference"])
async def test_two_attempts_never_share_a_key_or_reference(world: World, column: str) -> None:
    await world.opened()
    await world.opened()
    with pytest.raises(IntegrityError, match=column):
        await world.run(f"UPDATE payment_attempts SET {column} = 'the same'")


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ("'k1', 'refunded', 'api', 'x', NULL, NULL", "kind_known"),
        ("'k1', 'captured', 'rumour', 'x', 1, 'EUR'", "source_known"),
        ("'k1', 'captured', 'api', 'x', 1, NULL", "amount_has_currency"),
        ("'k1', 'captured', 'api', 'x', NULL, 'EUR'", "amount_has_currency"),
    ],
)
async def test_a_fact_cannot_be_nonsense(world: World, values: str, constraint: str) -> None:
    payment = await world.opened()
    columns = "natural_key, kind, source, object_reference, amount_minor, currency, payment_id, received_at"
    statement = f"INSERT INTO payment_facts ({columns}) VALUES ({values}, :payment_id, now())"
    with pytest.raises(IntegrityError, match=constraint):
        await world.run(statement, payment_id=payment["payment_id"])


async def test_a_fact_is_stored_once(world: World) -> None:
    payment = await world.opened()
    columns = "payment_id, natural_key, kind, source, object_reference, received_at"
    statement = f"INSERT INTO payment_facts ({columns}) SELECT {columns} FROM payment_facts"
    with pytest.raises(IntegrityError, match="natural_key"):
        await world.run(statement, payment_id=payment["payment_id"])


async def test_facts_are_only_ever_added(world: World) -> None:
    """Whatever happens to a payment, no row that was written before changes or goes away."""
    payment = await world.opened()
    everything = "SELECT * FROM payment_facts ORDER BY position"
    known: list[dict[str, object]] = []
    for status in ("processing", "failed", "expired", "completed", "canceled", "completed", "failed"):
        await world.receive(world.webhook(payment, status))
        await world.sync(payment["payment_id"])
        facts = await world.rows(everything)
        assert facts[: len(known)] == known
        known = facts
    await world.close(payment["payment_id"])
    assert (await world.rows(everything))[: len(known)] == known


async def test_a_gateways_reference_belongs_to_one_payment(world: World) -> None:
    first, second = await world.opened(), await world.opened()
    await world.receive(world.webhook(second, payment_id=first["gateway_reference"], transaction_id="nobody's"))
    assert (await world.see(first["payment_id"]))["status"] == "captured"
    assert (await world.see(second["payment_id"]))["status"] == "requires_action"
