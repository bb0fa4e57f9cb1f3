"""The exports that the reconciler pulls: every change is in them, each document is of one moment, breaks show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from services.payment_service.db import exports
from services.payment_service.domain.models import FactKind, FactSource, Observation
from services.payment_service.main import create_application
from services.payment_service.use_cases import export_payments
from services.payment_service.use_cases.open_session import open_session
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.record_facts import Learnt, record_facts
from services.payment_service.use_cases.wake_parked import look_after_parked
from shared.clock import to_rfc3339
from shared.contracts.exports import NDJSON, EndOfExport, ExportedParkedEvent, ExportedPayment
from shared.errors import DatabaseUnavailable
from shared.money import Money
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Crash, Do, Shop, open_shop


async def export(shop: Shop, path: str = "payments", **params: str) -> list[dict[str, Any]]:
    """The documents, each checked against its contract, of a stream that is whole."""
    answer = await shop.http.get(f"/api/v1/exports/{path}", params=params, headers=shop.headers(scopes="payments:read"))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NDJSON
    *lines, end = [json.loads(line) for line in answer.text.splitlines()]
    assert EndOfExport.model_validate(end["end"]).count == len(lines)
    model: type[ExportedPayment | ExportedParkedEvent] = ExportedPayment if path == "payments" else ExportedParkedEvent
    key = "payment" if path == "payments" else "parked_event"
    assert all(list(line) == [key] for line in lines)
    for line in lines:
        model.model_validate(line[key], strict=False)
    return [line[key] for line in lines]


def since(moment: datetime) -> dict[str, str]:
    return {"updated_since": to_rfc3339(moment)}


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["payment_id"] for document in documents]


def moved(document: dict[str, Any]) -> list[tuple[str, str, str | None, int]]:
    names = ("kind", "reference", "our_reference", "amount_minor")
    return [tuple(movement[name] for name in names) for movement in document["movements"]]


# --- what is told --------------------------------------------------------------------------------------------------


async def test_a_payment_is_told_with_what_moved_at_the_gateway_under_every_name(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    account = shop.account(payment_id)
    await shop.refund(payment_id, 500)
    await shop.run_due()
    shop.gateway.refunds_by(account, amount=200)  # in the dashboard
    await shop.sync(payment_id)
    lost = [Observation(kind, "dp_1", Money(300, "EUR")) for kind in (FactKind.DISPUTE_OPENED, FactKind.DISPUTE_LOST)]
    await shop.tell(payment_id, *lost, Observation(FactKind.DISPUTE_OPENED, "dp_2", Money(100, "EUR")))

    (document,) = await export(shop)
    ours, imported = await shop.operations(payment_id)
    mine, theirs = account.refunds
    assert sorted(moved(document)) == [
        ("chargeback", "dp_1", None, 300),
        ("refund", mine.reference, ours["reference"], 500),
        ("refund", theirs.reference, None, 200),
        ("sale", account.reference, account.our_reference, ORDERED),
        ("withheld", "dp_2", None, 100),
    ]
    names = ("amount_captured", "amount_refunded", "amount_disputed", "amount_dispute_lost")
    assert [document[name] for name in names] == [ORDERED, 700, 400, 300]
    assert (document["version"], document["status"]) == ((await shop.world.see(payment_id))["version"], "captured")
    known = {account.reference, account.our_reference, ours["reference"], mine.reference, theirs.reference}
    known |= {"dp_1", "dp_2"}
    assert set(document["references"]) == known
    assert imported["reference"] not in document["references"]
    assert len(document["references"]) == len(known)


async def test_nothing_personal_is_exported(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    customer = {"email": "ada@example.com", "name": "Ada Lovelace", "phone": "+44 20 7946"}
    await shop.opened(customer=customer, items=[{"name": "Green tea", "quantity": 1, "unit_amount_minor": ORDERED}])
    (document,) = await export(shop)
    for personal in ("ada@", "lovelace", "20 7946", "green tea"):  # nothing that an id could spell
        assert personal not in json.dumps(document).lower()


async def test_a_call_without_an_answer_is_told_with_the_time_it_was_sent(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    assert (await export(shop))[0]["unknown_since"] is None
    shop.clock.move(60)
    sent = shop.clock.now()
    shop.gateway.will("refund", Do.LOSE_AFTER)
    await shop.refund(payment_id, 500)
    (document,) = await export(shop)
    assert (document["outcome_unknown"], document["unknown_since"]) == (True, to_rfc3339(sent))
    assert [kind for kind, *_ in moved(document)] == ["sale"]
    await shop.settle_down()
    (document,) = await export(shop)
    assert (document["outcome_unknown"], document["unknown_since"]) == (False, None)
    assert [kind for kind, *_ in moved(document)] == ["sale", "refund"]


async def test_a_capture_that_the_gateway_took_back_is_no_movement(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    reference = shop.account(payment_id).reference
    await shop.tell(payment_id, Observation(FactKind.CAPTURE_REVERSED, reference, Money(ORDERED, "EUR")))
    (document,) = await export(shop)
    assert (document["movements"], document["amount_captured"]) == ([], 0)


# --- every change is in it -----------------------------------------------------------------------------------------


async def test_documents_come_by_the_time_of_their_change_and_windows_leave_none_out(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RC11, RC13. Payments of the same microsecond lie on both sides of a page's end."""
    monkeypatch.setattr(export_payments, "PAGE", 2)
    shop = await open_shop(build_world)
    first = shop.clock.now()
    early = [await shop.opened() for _ in range(5)]
    shop.clock.move(60)
    late = [await shop.opened() for _ in range(2)]
    shop.clock.move(60)
    await shop.captured()  # of no window below
    assert ids(await export(shop))[:7] == [*sorted(early), *sorted(late)]
    middle = first + timedelta(seconds=60)
    assert ids(await export(shop, updated_before=to_rfc3339(middle))) == sorted(early)
    window = since(middle) | {"updated_before": to_rfc3339(middle + timedelta(seconds=60))}
    assert ids(await export(shop, **window)) == sorted(late)
    assert len(await export(shop, **since(first))) == 8


async def test_a_payment_that_changes_while_it_is_exported_comes_again_and_none_is_left_out(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RC13."""
    monkeypatch.setattr(export_payments, "PAGE", 2)
    shop = await open_shop(build_world)
    known = []
    for _ in range(5):
        known.append(await shop.opened())
        shop.clock.move(1)
    seen: list[str] = []
    lines = export_payments.export_payments(shop.context)
    async for chunk in lines:
        seen += [line["payment"]["payment_id"] for line in map(json.loads, chunk.splitlines()) if "payment" in line]
        if len(seen) == 2:
            for payment_id in (known[0], known[4]):  # one that was told already, one that was not
                account = shop.account(payment_id)
                account.held = account.captured = ORDERED
                await shop.sync(payment_id)
                shop.clock.move(1)
    assert seen == [*known[:4], known[0], known[4]]


async def test_what_a_late_webhook_changes_is_a_change_of_today(build_world: BuildWorld) -> None:
    """It was received (and parked, or queued) long before; a reader who asks for today's changes has to see it."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    received_at = shop.clock.now()
    shop.clock.move(3 * 86_400)
    today = shop.clock.now()
    reference = shop.account(payment_id).reference
    body = {
        "references": [reference],
        "facts": [
            {"kind": "captured", "object": reference, "amount": [ORDERED, "EUR"]}
            | dict.fromkeys(("reason", "about", "operation"))
        ],
    }
    event = shop.world.delivery(body).model_copy(update={"received_at": received_at})
    shop.world.container = replace(shop.world.container, context=shop.context)
    await shop.world.receive(event)
    (document,) = await export(shop, **since(today))
    assert (document["status"], [kind for kind, *_ in moved(document)]) == ("captured", ["sale"])


async def test_a_new_name_or_fact_is_a_change_though_the_state_stays(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    version = (await shop.world.see(payment_id))["version"]
    reference = shop.account(payment_id).reference
    same = Observation(FactKind.CAPTURED, reference, Money(ORDERED, "EUR"))

    async def changed_by(*facts: Observation, references: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        shop.clock.move(60)
        now = shop.clock.now()
        async with shop.context.uow() as tx:
            payment = await tx.payments.get_for_update(payment_id)
            assert payment is not None
            await record_facts(tx, payment, facts, Learnt(FactSource.SWEEP, now), references=references)
        return await export(shop, **since(now))

    assert await changed_by(same, references=(reference,)) == []
    assert ids(await changed_by(replace(same, operation="SOMEOFOURREFERENCES1"))) == [payment_id]
    (document,) = await changed_by(same, references=("ch_1",))
    assert "ch_1" in document["references"]
    assert document["version"] == version


async def test_a_new_attempt_is_a_change(build_world: BuildWorld) -> None:
    """Its reference goes to the gateway before anything else is known of it."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    await shop.world.run("UPDATE payment_attempts SET status = 'rejected', gateway_reference = NULL")
    shop.clock.move(60)
    now = shop.clock.now()
    shop.uow.arm(2)  # right before the answer is written down
    with pytest.raises(Crash):
        await open_session(payment_id, shop.context)
    shop.uow.arm(None)
    (document,) = await export(shop, **since(now))
    first, second = await shop.world.rows("SELECT reference FROM payment_attempts ORDER BY number")
    assert {first["reference"], second["reference"]} <= set(document["references"])


async def test_a_document_is_of_one_moment(build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is captured between the statements of a page is in none of them."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    grouped, is_first = exports.Exports._grouped, True

    async def late(self: exports.Exports, *args: Any, **values: Any) -> Any:
        nonlocal is_first
        if is_first:
            is_first = False
            account = shop.account(payment_id)
            account.held = account.captured = ORDERED
            await asyncio.create_task(shop.sync(payment_id))
        return await grouped(self, *args, **values)

    monkeypatch.setattr(exports.Exports, "_grouped", late)
    (document,) = await export(shop)
    assert (document["amount_captured"], document["movements"]) == (0, [])
    (document,) = await export(shop)
    assert (document["amount_captured"], len(document["movements"])) == (ORDERED, 1)


# --- who may, and what breaks --------------------------------------------------------------------------------------


async def test_only_readers_of_payments_may_export_and_a_window_that_is_none_is_refused(
    build_world: BuildWorld,
) -> None:
    shop = await open_shop(build_world)
    for path in ("payments", "parked-events"):
        assert (await shop.http.get(f"/api/v1/exports/{path}")).status_code == 401
        assert (await shop.ask(f"exports/{path}", scopes="payments:write")).status_code == 403
        assert (await shop.ask(f"exports/{path}", scopes="payments:read")).text == '{"end":{"count":0}}\n'
    for moment in ("yesterday", "2026-01-01", "1767225600", "2026-01-01T00:00:00", "0001-01-01T00:00Z"):
        assert (await shop.ask(f"exports/payments?updated_since={moment}")).status_code == 422, moment


def failing_after(context: Context, transactions: int) -> Context:
    count = 0

    @asynccontextmanager
    async def uow() -> AsyncIterator[Any]:
        nonlocal count
        count += 1
        if count > transactions:
            raise DatabaseUnavailable(retry_after_seconds=2)
        async with context.uow() as tx:
            yield tx

    return replace(context, uow=uow)


async def test_a_database_that_is_away_is_a_problem_and_one_that_goes_away_breaks_the_stream_off(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_payments, "PAGE", 1)
    shop = await open_shop(build_world)
    for _ in range(3):
        await shop.opened()
    answers = []
    for working in (0, 2):
        application = create_application(replace(shop.world.container, context=failing_after(shop.context, working)))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://payments.test")
        answers.append(await http.get("/api/v1/exports/payments", headers=shop.headers()))
    away, broken = answers
    assert (away.status_code, away.json()["code"]) == (503, "database_unavailable")
    assert [list(json.loads(line)) for line in broken.text.splitlines()] == [["payment"], ["payment"]]


# --- parked events -------------------------------------------------------------------------------------------------


async def test_webhooks_that_nobody_claimed_or_could_read_are_told_and_others_are_not(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_payments, "PAGE", 2)
    shop = await open_shop(build_world)
    for number in (1, 2, 3):
        await shop.tell_reference(f"gp_unknown_{number}", Observation(FactKind.PROCESSING, "x"))
    shop.clock.move(3600)
    unclaimed_at = shop.clock.now()
    await shop.world.run("UPDATE parked_events SET parked_at = received_at")
    await look_after_parked(shop.context, deadline=timedelta(hours=1) - timedelta(seconds=1))
    await shop.tell_reference("gp_waiting", Observation(FactKind.PROCESSING, "x"))
    await shop.world.run(
        "INSERT INTO parked_events (parked_id, gateway, account, delivery_id, trust, content_type, payload, refs,"
        " status, received_at)"
        " VALUES ('prk_0', 'generic', 'eu', 'whd_0', 'full', 'text/plain', '?', '{}', 'unreadable', :at)",
        at=unclaimed_at,
    )
    found = await export(shop, "parked-events")
    assert [(each["status"], each["references"], each["account"]) for each in found] == [
        *(("unclaimed", [f"gp_unknown_{number}"], None) for number in (1, 2, 3)),
        ("unreadable", [], "eu"),
    ]
    assert "payload" not in found[0]
