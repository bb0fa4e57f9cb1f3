"""Refunds and disputes as the customer sees them: on the order, by mail, and on the shelf, each once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.use_cases.ports import Mail
from services.order_service.worker import send_mails
from shared.contracts.payment_events import (
    CaptureSucceeded,
    DisputeOpened,
    DisputeWon,
    PaymentEventData,
    RefundCreated,
    RefundEventData,
    RefundReversed,
    RefundSucceeded,
)
from tests.integration.order_service.conftest import Answer, World
from tests.integration.order_service.fakes import a_refund_event, an_event, deliver

CAPTURED = PaymentStatus.CAPTURED


def its_payment(world: World, order: Answer) -> str:
    return next(each.payment_id for each in world.payments.sessions.values() if each.order_id == order.id)


def the_refund_mail(world: World) -> Mail:
    (mail,) = (mail for mail in world.mailer.sent if mail.message_id.startswith("<order-refunded."))
    return mail


async def refund(
    world: World, order: Answer, type_: type[RefundEventData], *, more: Mapping[str, Any] | None = None, **totals: int
) -> PaymentSnapshot:
    snapshot = world.payments.becomes(its_payment(world, order), CAPTURED, **totals)
    await deliver(world.container, a_refund_event(snapshot, type_, **(more or {})))
    return snapshot


async def test_a_partial_refund_shows_from_its_beginning_to_its_end(world: World) -> None:
    order = await world.paid_order()
    version = (await world.see(order))["version"]
    part = {"amount": 900, "refund_reason": "the lid was dented", "refund_id": "ref_a"}
    await refund(world, order, RefundCreated, more=part, amount_refund_pending=900)
    seen = await world.see(order)
    assert (seen["payment_status"], seen["version"]) == ("paid", version + 1)
    assert seen["payments"][0]["amount_refund_pending"] == 900
    await refund(world, order, RefundSucceeded, more=part, amount_refund_pending=0, amount_refunded=900)
    seen = await world.see(order)
    assert (seen["payment_status"], seen["version"]) == ("partially_refunded", version + 2)
    (shown,) = seen["refunds"]
    assert seen["payments"][0]["refunds"] == [shown]
    assert (shown["refund_id"], shown["status"], shown["amount"]) == (
        "ref_a",
        "succeeded",
        {"amount_minor": 900, "currency": "EUR"},
    )
    assert shown["reason"] is None, "what the back office wrote is its own affair"
    assert await world.stock() == (9, 0)
    listed = await world.http.get("/api/v1/orders", headers=world.token("orders:read"))
    assert listed.json()["data"][0]["refunds"] == [shown]


async def test_a_refund_that_changes_in_the_same_version_of_its_payment_changes_the_document(world: World) -> None:
    order = await world.paid_order()
    snapshot = await refund(world, order, RefundCreated, amount_refunded=3900)
    version = (await world.see(order))["version"]
    await deliver(world.container, a_refund_event(snapshot, RefundSucceeded))
    seen = await world.see(order)
    assert (seen["version"], seen["refunds"][0]["status"]) == (version + 1, "succeeded")
    await deliver(world.container, a_refund_event(snapshot, RefundCreated))
    assert await world.see(order) == seen, "what came before it in the same version is old news"


async def test_a_full_refund_restores_the_stock_once_and_is_announced_once(world: World) -> None:
    order = await world.paid_order(items=[{"sku": "moka-pot", "quantity": 3}])
    other = await world.paid_order()
    assert await world.stock() == (6, 0)
    all_of_it = 3 * 3900
    await refund(world, order, RefundSucceeded, amount_refunded=all_of_it)
    assert await world.stock() == (9, 0)
    await refund(world, order, RefundReversed, amount_refunded=0)
    assert (await world.see(order))["payment_status"] == "paid"
    await refund(world, order, RefundSucceeded, more={"refund_id": "ref_2"}, amount_refunded=all_of_it)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"]) == ("confirmed", "refunded")
    assert await world.stock() == (9, 0), "the goods went back once"
    assert (await world.events(order.id)).count("order.refunded.v1") == 1
    statuses = await world.rows("SELECT status FROM stock_reservations ORDER BY quantity DESC")
    assert [row["status"] for row in statuses] == ["restored", "deducted"]
    assert (await world.see(other))["payment_status"] == "paid"


async def test_any_order_of_the_same_events_ends_in_the_same_state(world: World) -> None:
    await world.has_product(stock=100)
    for shuffled in itertools.permutations(range(4)):
        order = await world.order()
        payment_id = await world.open_session(order)
        refund_id = f"ref_{order.id}"
        paid = world.payments.becomes(payment_id, CAPTURED)
        created = world.payments.becomes(payment_id, CAPTURED, amount_refund_pending=3900)
        back = world.payments.becomes(payment_id, CAPTURED, amount_refund_pending=0, amount_refunded=3900)
        events: list[PaymentEventData] = [
            an_event(
                paid, CaptureSucceeded, capture_id="cap", capture_status="succeeded", capture_amount=1, is_final=True
            ),
            an_event(paid),
            a_refund_event(created, RefundCreated, refund_id=refund_id),
            a_refund_event(back, RefundSucceeded, refund_id=refund_id),
        ]
        await deliver(world.container, *(events[index] for index in shuffled))
        seen = await world.see(order)
        assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "refunded", None)
        assert [refund["status"] for refund in seen["refunds"]] == ["succeeded"]
        assert await world.stock() == (100, 0)
        types = await world.events(order.id)
        assert (types.count("order.paid.v1"), types.count("order.refunded.v1")) == (1, 1)


async def test_the_customer_gets_one_mail_for_each_refund_that_is_confirmed(world: World) -> None:
    order = await world.paid_order()
    await send_mails(world.container)
    first: dict[str, Any] = {"amount": 900, "refund_id": "ref_1"}
    await refund(world, order, RefundCreated, more=first, amount_refund_pending=900)
    await send_mails(world.container)
    assert len(world.mailer.sent) == 1, "a refund that is only asked for is not in anybody's account"
    confirmed = await refund(world, order, RefundSucceeded, more=first, amount_refund_pending=0, amount_refunded=900)
    for _ in range(2):
        await deliver(world.container, a_refund_event(confirmed, RefundSucceeded, **first))
        await send_mails(world.container)
    await refund(world, order, RefundSucceeded, more={"amount": 3000, "refund_id": "ref_2"}, amount_refunded=3900)
    await send_mails(world.container)
    _, one, two = world.mailer.sent
    assert one.message_id == "<order-refunded.ref_1@payrail.invalid>"
    assert two.message_id == "<order-refunded.ref_2@payrail.invalid>"
    assert (one.recipient, one.attachments) == ("ada@example.com", ())
    assert one.subject.endswith("your refund of 9.00 EUR")
    for body in (one.text_body, one.html_body):
        assert "9.00 EUR" in body
        assert order.id in body
        assert "5 to 10 days" in body


@pytest.mark.parametrize(
    ("currency", "amount", "words"),
    [("JPY", 1480, "1,480 JPY"), ("KWD", 12500, "12.500 KWD"), ("USD", 123456, "1,234.56 USD")],
)
async def test_a_refund_mail_has_every_digit_of_the_currency(
    world: World, currency: str, amount: int, words: str
) -> None:
    await world.has_product("dallah", price=amount, currency=currency)
    order = await world.paid_order(items=[{"sku": "dallah", "quantity": 1}], currency=currency)
    await refund(world, order, RefundSucceeded, amount_refunded=amount)
    await send_mails(world.container)
    mail = the_refund_mail(world)
    assert words in mail.text_body
    assert mail.subject.endswith(words)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("duplicate_payment", "paid twice"),
        ("late_payment", "already expired"),
        ("order_canceled", "already been canceled"),
        ("<b>dented</b>", "given money back"),
    ],
)
async def test_a_refund_mail_says_why_in_our_words_only(world: World, reason: str, words: str) -> None:
    order = await world.paid_order(customer={"email": "ada@example.com", "name": "<i>Ada</i>"})
    await refund(world, order, RefundSucceeded, more={"refund_reason": reason}, amount_refunded=3900)
    await send_mails(world.container)
    mail = the_refund_mail(world)
    assert words in mail.text_body
    assert words in mail.html_body
    assert "dented" not in mail.text_body + mail.html_body
    assert "<i>" not in mail.html_body


async def test_a_dispute_shows_until_it_is_won(world: World) -> None:
    order = await world.paid_order()
    payment_id = its_payment(world, order)
    opened = world.payments.becomes(payment_id, CAPTURED, amount_disputed=3900)
    details = {"dispute_id": "dsp_1", "dispute_amount": 3900}
    await deliver(world.container, an_event(opened, DisputeOpened, dispute_status="open", **details))
    assert (await world.see(order))["payment_status"] == "disputed"
    won = world.payments.becomes(payment_id, CAPTURED, amount_disputed=0)
    await deliver(world.container, an_event(won, DisputeWon, dispute_status="won", **details))
    assert (await world.see(order))["payment_status"] == "paid"
    assert await world.stock() == (9, 0)


async def test_more_going_back_than_was_taken_is_flagged(world: World) -> None:
    order = await world.paid_order()
    await world.gateway_says(its_payment(world, order), CAPTURED, amount_refunded=3900, amount_excess=100)
    assert (await world.see(order))["attention"] == "amount_mismatch"


async def test_the_order_refunded_event_carries_the_whole_state_and_nobodys_name(world: World) -> None:
    order = await world.paid_order()
    await refund(world, order, RefundSucceeded, more={"refund_reason": "of Ada"}, amount_refunded=3900)
    (row,) = await world.rows(
        "SELECT convert_from(body, 'UTF8') AS body FROM outbox_messages WHERE type = 'order.refunded.v1'"
    )
    assert '"payment_status":"refunded"' in row["body"]
    assert "of Ada" not in row["body"]


async def test_what_goes_back_was_sold_and_what_is_reopened_was_released(world: World) -> None:
    """The shelf by itself: no call moves goods that are not where it takes them from."""
    held, sold = await world.order(), await world.paid_order()
    now = world.clock.now()
    async with world.container.uow() as tx:
        assert await tx.products.restore(held.id, now=now) == 0
        assert await tx.products.hold_again(held.id, now=now) == 0
        assert await tx.products.hold_again(sold.id, now=now) == 0
        assert await tx.products.restore(sold.id, now=now) == 1
        assert await tx.products.restore(sold.id, now=now) == 0
        assert await tx.products.hold_again(sold.id, now=now) == 0
    assert await world.stock() == (10, 1)
