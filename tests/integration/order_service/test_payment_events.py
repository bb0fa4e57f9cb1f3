"""Events of payments: duplicated, shuffled, late, foreign; each counts once and the newest version wins."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest
from pydantic import ValidationError

from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from shared.contracts.payment_events import PaymentOutcomeResolved, PaymentOutcomeUnknown
from shared.money import Money
from tests.integration.order_service.conftest import BuildWorld, World
from tests.integration.order_service.fakes import an_envelope, an_event, deliver, deliver_envelope


async def test_the_same_event_fifty_times_at_once_has_one_effect(build_world: BuildWorld) -> None:
    world = await build_world(database_pool_size=50)  # one each: who waits for a connection for 2 s is refused
    await world.has_product()
    order = await world.order()
    paid = world.payments.becomes(await world.open_session(order), PaymentStatus.CAPTURED)
    envelope = an_envelope(world.container, an_event(paid))
    await asyncio.gather(*(deliver_envelope(world.container, envelope) for _ in range(50)))
    assert await world.stock() == (9, 0)
    assert await world.value("SELECT count(*) FROM invoices") == 1
    assert (await world.events(order.id)).count("order.paid.v1") == 1


async def test_events_in_any_order_end_in_the_same_state(world: World) -> None:
    statuses = [PaymentStatus.PROCESSING, PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED]
    for number, shuffled in enumerate(itertools.permutations(range(3)), start=1):
        order = await world.order()
        payment_id = await world.open_session(order)
        events = [an_event(world.payments.becomes(payment_id, status)) for status in statuses]
        await deliver(world.container, *(events[index] for index in shuffled))
        seen = await world.see(order)
        assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", None)
        assert await world.stock() == (10 - number, 0)


async def test_an_older_version_changes_nothing(world: World) -> None:
    order = await world.paid_order()
    before = await world.see(order)
    (snapshot,) = world.payments.sessions.values()
    await deliver(
        world.container, an_event(replace(snapshot, status=PaymentStatus.FAILED, version=1, amount_captured=0))
    )
    assert await world.see(order) == before


async def test_an_event_of_an_unknown_order_is_ignored(world: World) -> None:
    nobody = PaymentSnapshot("pay_x", "ord_x", "stripe", PaymentStatus.CAPTURED, 3, Money(1, "EUR"), amount_captured=1)
    await deliver(world.container, an_event(nobody))
    assert await world.events() == []


async def test_a_payment_that_was_opened_elsewhere_counts_for_its_order(world: World) -> None:
    order = await world.order()
    stranger = PaymentSnapshot(
        "pay_other", order.id, "generic", PaymentStatus.CAPTURED, 3, Money(3900, "EUR"), amount_captured=3900
    )
    await deliver(world.container, an_event(stranger))
    assert (await world.see(order))["payment_status"] == "paid"


async def test_a_payment_in_another_currency_does_not_pay(world: World) -> None:
    order = await world.order()
    stranger = PaymentSnapshot(
        "pay_other", order.id, "generic", PaymentStatus.CAPTURED, 3, Money(3900, "KWD"), amount_captured=3900
    )
    await deliver(world.container, an_event(stranger))
    seen = await world.see(order)
    assert (seen["status"], seen["attention"]) == ("open", "amount_mismatch")


async def test_an_unknown_outcome_is_flagged_until_it_is_resolved(world: World) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    unknown = world.payments.becomes(payment_id, PaymentStatus.REQUIRES_ACTION, outcome_unknown=True)
    known = world.payments.becomes(payment_id, PaymentStatus.REQUIRES_ACTION, outcome_unknown=False)
    await deliver(world.container, an_event(unknown, PaymentOutcomeUnknown))
    seen = await world.see(order)
    assert (seen["attention"], seen["payments"][0]["outcome_unknown"]) == ("unknown_outcome", True)
    await deliver(world.container, an_event(known, PaymentOutcomeResolved))
    await deliver(world.container, an_event(unknown, PaymentOutcomeUnknown))  # late news is no news
    assert (await world.see(order))["attention"] is None


async def test_a_refund_shows_on_the_order(world: World) -> None:
    order = await world.paid_order()
    (payment_id,) = world.payments.sessions
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED, amount_refunded=900)
    assert (await world.see(order))["payment_status"] == "partially_refunded"
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED, amount_refunded=3900)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"]) == ("confirmed", "refunded")


async def test_an_event_that_is_not_what_its_type_says_is_not_swallowed(world: World) -> None:
    order = await world.order()
    snapshot = world.payments.sessions[await world.open_session(order)]
    envelope = an_envelope(world.container, an_event(snapshot))
    broken = envelope.model_copy(update={"data": envelope.data | {"amount": "39.00"}})
    with pytest.raises(ValidationError):
        await deliver_envelope(world.container, broken)
    assert await world.value("SELECT count(*) FROM inbox_messages") == 0


async def test_the_order_paid_event_carries_the_whole_state_and_nobodys_name(world: World) -> None:
    order = await world.paid_order()
    (body,) = await world.rows(
        "SELECT convert_from(body, 'UTF8') AS body FROM outbox_messages WHERE type = 'order.paid.v1'"
    )
    assert f'"subject":"{order.id}"' in body["body"]
    assert f'"correlationid":"{order.id}"' in body["body"]
    assert '"sequence":2' in body["body"]
    assert '"total":3900' in body["body"]
    for personal in ("ada@", "lovelace", "7946 0000"):  # nothing that an id could spell
        assert personal not in body["body"].lower()
