"""Disputes take from what can be refunded, from the moment they are opened until they are won."""

from __future__ import annotations

from services.payment_service.domain.models import FactKind, Observation
from shared.money import Money
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Shop, open_shop

K = [f"a-key-of-the-merchant-{number:04}" for number in range(10)]


def dispute(kind: FactKind, amount: int = 800) -> Observation:
    return Observation(kind, "dp_1", Money(amount, "EUR"), reason="fraudulent", about="pi_1")


async def seen(shop: Shop, payment_id: str) -> list[tuple[str, int, bool]]:
    shown = (await shop.ask(f"payments/{payment_id}")).json()["disputes"]
    return [(each["status"], each["amount"]["amount_minor"], each["closed_at"] is not None) for each in shown]


async def test_an_open_dispute_withholds_its_amount(build_world: BuildWorld) -> None:
    """RF11."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_OPENED))
    assert await seen(shop, payment_id) == [("open", 800, False)]
    assert (await shop.totals(payment_id))["disputed"] == 800
    refused = await shop.refund(payment_id, 100, key=K[1])
    assert (refused.status_code, refused.json()["code"]) == (409, "payment_disputed")
    too_much = await shop.refund(payment_id, ORDERED - 799, key=K[2], body={"reason": "r", "override": True})
    assert (too_much.status_code, too_much.json()["code"]) == (409, "refund_exceeds_captured")
    allowed = await shop.refund(payment_id, ORDERED - 800, key=K[3], body={"reason": "r", "override": True})
    assert allowed.status_code == 201
    assert (await shop.events(payment_id))["dispute.opened"] == 1


async def test_a_won_dispute_is_ours_again(build_world: BuildWorld) -> None:
    """RF12."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_OPENED))
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_WON))
    assert await seen(shop, payment_id) == [("won", 800, True)]
    assert "disputed" not in await shop.totals(payment_id)
    assert (await shop.refund(payment_id)).json()["amount"]["amount_minor"] == ORDERED
    events = await shop.events(payment_id)
    assert (events["dispute.opened"], events["dispute.won"]) == (1, 1)
    await shop.assert_books_agree(payment_id)


async def test_a_lost_dispute_is_gone(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_OPENED))
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_LOST))
    totals = await shop.totals(payment_id)
    assert (totals["disputed"], totals["dispute_lost"]) == (800, 800)
    rest = await shop.refund(payment_id, key=K[1])
    assert rest.json()["amount"]["amount_minor"] == ORDERED - 800
    sums = await shop.world.rows("SELECT sum(amount_minor) AS n FROM ledger_postings")
    assert sums == [{"n": 0}]


async def test_a_dispute_whose_end_is_heard_first_is_told_from_its_beginning(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_LOST))
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_OPENED))
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_OPENED))
    assert await seen(shop, payment_id) == [("lost", 800, True)]
    told = [kind for kind in await shop.world.event_types(payment_id) if kind.startswith("dispute")]
    assert told == ["dispute.opened", "dispute.lost"]


async def test_a_won_dispute_that_is_reopened_and_lost(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    for kind in (FactKind.DISPUTE_OPENED, FactKind.DISPUTE_WON, FactKind.DISPUTE_LOST):
        await shop.tell(payment_id, dispute(kind))
    assert await seen(shop, payment_id) == [("lost", 800, True)]
    assert (await shop.totals(payment_id))["dispute_lost"] == 800


async def test_a_dispute_over_what_was_refunded_already_is_an_excess(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.refund(payment_id, 1500)
    await shop.tell(payment_id, dispute(FactKind.DISPUTE_OPENED))
    totals = await shop.totals(payment_id)
    assert (totals["refunded"], totals["disputed"], totals["excess"]) == (1500, ORDERED - 1500, 301)
