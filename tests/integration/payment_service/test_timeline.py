"""The timeline on a real PostgreSQL: written with what it tells, never changed, and told in order with a verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from services.payment_service.domain.operations import OperationKind, OperationStatus
from services.payment_service.domain.timeline import (
    EntryKind,
    TimelineEntry,
    call_entry,
    decision_entry,
    event_entry,
    operation_entry,
    request_entry,
)
from shared.db.migrations import _config, upgrade
from shared.db.session import async_url
from shared.money import Money
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.support.clock import A_MOMENT, FakeClock
from tests.support.postgres import CreateDatabase
from tests.unit.payment_service.builders import an_operation

UNKNOWN = "pay_01jd8q3q3q3q3q3q3q3q3q3q3q"


async def ask(world: World, payment_id: str) -> dict[str, Any]:
    answer = await world.get(f"/{payment_id}/timeline")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def add(world: World, payment_id: str, *entries: TimelineEntry) -> None:
    async with world.container.context.uow() as tx:
        await tx.timeline.add(payment_id, *entries)


def facts_in(told: dict[str, Any]) -> list[str]:
    return [entry["details"]["fact"] for entry in told["data"] if entry["kind"] == "fact"]


async def test_every_entry_comes_back_as_it_was_written(world: World) -> None:
    payment_id = (await world.opened())["payment_id"]
    before = len((await ask(world, payment_id))["data"])
    at = world.clock.now()
    money = Money(500, "EUR")
    entries = [
        request_entry("refund", "back-office", "req-1", at=at, amount=money, operation_id="ref_1"),
        call_entry("refund", "unknown", 15_000, "REF1", at=at, gateway="generic", amount=money, request_id="req-1"),
        operation_entry(replace(an_operation(OperationKind.REFUND, OperationStatus.UNKNOWN), updated_at=at)),
        event_entry("payment.outcome_unknown.v1", 4, at=at),
        decision_entry("escalated", "A person was called", at=at, actor="resolver"),
    ]
    await add(world, payment_id, *entries)
    await add(world, payment_id)
    async with world.container.context.uow() as tx:
        assert (await tx.timeline.of_payment(payment_id))[before:] == entries
        assert await tx.timeline.of_payment(payment_id, limit=2) == entries[-2:]
    told = (await ask(world, payment_id))["data"][before:]
    assert [entry["kind"] for entry in told] == ["request", "gateway_call", "operation", "event", "decision"]
    assert told[0] == {
        "at": told[0]["at"],
        "kind": "request",
        "summary": "back-office asked to refund (5.00 EUR)",
        "source": "api",
        "actor": "back-office",
        "reference": None,
        "amount": {"amount_minor": 500, "currency": "EUR"},
        "request_id": "req-1",
        "details": {"action": "refund", "operation_id": "ref_1"},
    }


async def test_the_life_of_a_payment_is_told_in_time_order_with_a_verdict(world: World) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment, "processing"))
    await world.receive(world.webhook(payment))
    told = await ask(world, payment["payment_id"])
    assert (told["payment_id"], told["order_id"]) == (payment["payment_id"], payment["order_id"])
    assert (told["status"], told["is_complete"]) == ("captured", True)
    assert told["version"] == (await world.see(payment["payment_id"]))["version"]
    assert told["verdict"] == "Paid: 19.99 EUR captured by generic."
    assert facts_in(told) == ["session_opened", "processing", "captured"]
    moments = [entry["at"] for entry in told["data"]]
    assert moments == sorted(moments)
    captured = next(entry for entry in told["data"] if entry["details"].get("fact") == "captured")
    assert captured["summary"] == f"19.99 EUR captured at the gateway ({payment['gateway_reference']})"
    assert captured["source"] == "webhook"
    assert captured["details"]["delivery_id"].startswith("whd_")
    status = [entry for entry in told["data"] if entry["kind"] == "status"]
    assert (status[-1]["details"]["from"], status[-1]["details"]["to"]) == ("processing", "captured")


async def test_money_that_came_late_is_in_the_verdict(world: World) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment, "expired"))
    assert (await ask(world, payment["payment_id"]))["verdict"].startswith("Expired: ")
    await world.receive(world.webhook(payment))
    told = await ask(world, payment["payment_id"])
    assert told["verdict"].startswith("Paid: 19.99 EUR captured by generic;")
    assert "the money came after the payment had been expired" in told["verdict"]


async def test_no_entry_holds_personal_data(world: World) -> None:
    payment = await world.opened(customer={"email": "grace@example.org", "name": "Grace Hopper", "phone": "+1 202 555"})
    await world.receive(world.webhook(payment, "failed", failure_code="card_declined", metadata={"note": "Grace"}))
    await world.receive(world.webhook(payment))
    told = str(await ask(world, payment["payment_id"]))
    for personal in ("grace", "hopper", "202 555"):  # nothing that an id could spell
        assert personal not in told.lower()


async def test_facts_that_are_older_than_the_timeline_are_told_from_the_facts(world: World) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment, "processing"))
    async with world.container.database.begin() as connection:  # as a payment that was there before the migration
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text("DELETE FROM payment_timeline"))
    old = await ask(world, payment["payment_id"])
    assert facts_in(old) == ["session_opened", "processing"]
    assert {entry["kind"] for entry in old["data"]} == {"fact"}
    await world.receive(world.webhook(payment))
    new = await ask(world, payment["payment_id"])
    assert facts_in(new) == ["session_opened", "processing", "captured"]
    assert new["data"][: len(old["data"])] == old["data"]


async def test_of_a_very_long_timeline_the_newest_is_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.payment_service.use_cases.read_timeline.MAX_ENTRIES", 3)
    payment_id = (await world.opened())["payment_id"]
    at = world.clock.now() + timedelta(seconds=1)
    await add(world, payment_id, *(event_entry(f"e{number}.v1", number, at=at) for number in range(5)))
    told = await ask(world, payment_id)
    assert told["is_complete"] is False
    assert [entry["details"]["version"] for entry in told["data"]] == [2, 3, 4]


async def test_an_entry_is_gone_with_the_transaction_that_it_was_written_in(world: World) -> None:
    payment_id = (await world.opened())["payment_id"]
    before = await ask(world, payment_id)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with world.container.context.uow() as tx:
            await tx.timeline.add(payment_id, event_entry("x.v1", 1, at=world.clock.now()))
            raise ZeroDivisionError
    assert await ask(world, payment_id) == before


@pytest.mark.parametrize("change", ["UPDATE payment_timeline SET summary = 'else'", "DELETE FROM payment_timeline"])
async def test_what_was_written_is_never_changed_or_deleted(world: World, change: str) -> None:
    payment_id = (await world.opened())["payment_id"]
    await add(world, payment_id, event_entry("x.v1", 1, at=world.clock.now()))
    with pytest.raises(IntegrityError, match="never changed or deleted"):
        await world.run(change)


async def test_entries_of_one_moment_keep_the_order_in_which_they_were_written(build_world: BuildWorld) -> None:
    world = await build_world(clock=FakeClock())
    payment_id = (await world.opened(expires_at="2026-01-02T05:00:00Z"))["payment_id"]
    await add(world, payment_id, *(event_entry(f"e{number}.v1", number, at=A_MOMENT) for number in range(40)))
    async with world.container.context.uow() as tx:
        events = [entry for entry in await tx.timeline.of_payment(payment_id) if entry.kind is EntryKind.EVENT]
    written = [entry.details["version"] for entry in events if entry.details["type"].startswith("e")]
    assert written == list(range(40))


# --- who may -------------------------------------------------------------------------------------------------------


async def test_who_may_read_a_timeline(world: World) -> None:
    url = f"/api/v1/payments/{(await world.opened())['payment_id']}/timeline"
    nobody = await world.http.get(url)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    assert (await world.http.get(url, headers=world.token("payments:write orders:read"))).status_code == 403
    assert (await world.http.get(url, headers=world.token("payments:read"))).status_code == 200


@pytest.mark.parametrize("payment_id", [UNKNOWN, "pay_x", "'; DROP TABLE payments", "%F0"])
async def test_the_timeline_of_what_does_not_exist_is_not_found(world: World, payment_id: str) -> None:
    answer = await world.get(f"/{payment_id}/timeline")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# --- payments that are older than both ------------------------------------------------------------------------------

OLD_PAYMENT = text(
    """
    INSERT INTO payments (payment_id, order_id, gateway, amount_minor, currency, capture, status, version,
        amount_authorized, amount_captured, description, customer, items, success_url, failure_url, cancel_url,
        request_digest, created_at, updated_at, expires_at)
    VALUES (:id, 'ord_1', 'stripe', 1000, 'EUR', 'manual', :status, 3, :authorized, :captured, 'x',
        '{"email": "a@b.c", "name": "A"}', '[]', 'u', 'u', 'u', '', now(), now(), now())
    """
)
OLD_PAYMENTS: list[dict[str, Any]] = [
    {"id": "pay_captured", "status": "captured", "authorized": 1000, "captured": 1000},
    {"id": "pay_held", "status": "authorized", "authorized": 1000, "captured": 0},
    {"id": "pay_partly", "status": "partially_captured", "authorized": 1000, "captured": 300},
    {"id": "pay_expired", "status": "expired", "authorized": 0, "captured": 0},
]
LINES = text(
    """
    SELECT payment_id, account, l.amount_minor FROM ledger_entries JOIN ledger_postings l USING (entry_id)
    ORDER BY payment_id, line
    """
)


def _upgrade_to(connection: Connection, revision: str) -> None:
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS payment_service"))
    connection.execute(text("SET LOCAL search_path TO payment_service"))
    command.upgrade(_config("payment_service", connection), revision)


async def test_what_was_collected_before_there_was_a_ledger_opens_it(create_database: CreateDatabase) -> None:
    url = create_database()
    settings = {"server_settings": {"search_path": "payment_service"}}
    engine = create_async_engine(async_url(url), poolclass=NullPool, connect_args=settings)
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade_to, "0001")
        await connection.execute(OLD_PAYMENT, OLD_PAYMENTS)
    await upgrade("payment_service", url)
    async with engine.begin() as connection:
        lines = [tuple(row) for row in await connection.execute(LINES)]
    await engine.dispose()
    assert lines == [
        ("pay_captured", "gateway_receivable", 1000),
        ("pay_captured", "customer_payments", -1000),
        ("pay_held", "authorizations_held", 1000),
        ("pay_held", "authorizations_due", -1000),
        ("pay_partly", "authorizations_held", 700),
        ("pay_partly", "authorizations_due", -700),
        ("pay_partly", "gateway_receivable", 300),
        ("pay_partly", "customer_payments", -300),
    ]
