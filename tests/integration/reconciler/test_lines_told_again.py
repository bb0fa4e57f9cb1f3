"""A line that another report, or a corrected one, tells again by the gateway's own id of it (failure RC4)."""

from __future__ import annotations

from typing import Any

import pytest

from services.reconciler.domain.settlement import LineKind, SettlementLine
from tests.integration.reconciler.conftest import World
from tests.integration.reconciler.settling import NOW, Content, Settler, a_line, sale, stated


@pytest.fixture
def settler(world: World) -> Settler:
    world.clock.move((NOW - world.clock.now()).total_seconds())
    return Settler(world)


def a_sale(**changes: Any) -> SettlementLine:
    values: dict[str, Any] = {"line_reference": "txn_1", "fee": 30}
    return sale(1, **(values | changes))


async def fees(settler: Settler) -> int:
    [row] = await settler.world.rows(
        """SELECT coalesce(sum(CAST(convert_from(body, 'UTF8')::json->'data'->>'fees_minor' AS bigint)), 0) AS fees
        FROM outbox_messages WHERE type = 'settlement.booked.v1'"""
    )
    return int(row["fees"])


async def payouts(settler: Settler) -> list[tuple[str, int, int]]:
    rows = await settler.world.rows("SELECT payout_reference, lines_minor, lines FROM settlement_payouts ORDER BY 1, 2")
    return [(row["payout_reference"], row["lines_minor"], row["lines"]) for row in rows]


@pytest.mark.parametrize("order", [1, -1], ids=["payout-later", "payout-first"])
async def test_another_report_of_a_line_fills_in_what_the_first_did_not_say(settler: Settler, order: int) -> None:
    await settler.knows(1, ("sale", 1_000))
    reports = [
        a_sale(payout_reference=None, parent_reference="order_1", our_reference="OUR1"),
        a_sale(payout_reference="po_1"),
    ]
    for each in reports[::order]:
        await settler.settles([each])
    assert await settler.cases() == []
    assert await fees(settler) == 30
    assert await payouts(settler) == [("po_1", 970, 1)]
    (line,) = await settler.world.rows("SELECT * FROM settlement_lines WHERE NOT repeats")
    assert (line["payout_reference"], line["parent_reference"], line["our_reference"]) == ("po_1", "order_1", "OUR1")
    await settler.settles(Content([a_sale(payout_reference="po_1")], payouts=[stated(970, "po_1")]))
    assert await payouts(settler) == [("po_1", 970, 1)]
    assert await settler.cases() == []


async def test_a_line_of_nobody_is_known_by_the_report_that_says_whose_it_is(settler: Settler) -> None:
    payment_id = await settler.knows(1, ("sale", 1_000))
    await settler.settles([a_sale(reference=None)])
    assert await settler.cases() == [("unknown_line", 1_000)]
    await settler.settles([a_sale()])
    await settler.settles_again()
    assert await settler.cases() == []
    (line,) = await settler.world.rows("SELECT * FROM settlement_lines WHERE NOT repeats")
    assert (line["payment_id"], line["movement_reference"]) == (payment_id, "sale_1")


async def test_what_the_shopper_saw_closes_the_case_of_another_currency(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), currency="EUR")
    await settler.settles([a_sale(gross=1_080, currency="USD")])
    assert await settler.cases() == [("currency_differs", None)]
    await settler.settles([a_sale(gross=1_080, currency="USD", presented_minor=1_000, presented_currency="EUR")])
    assert await settler.cases() == []


async def test_other_amounts_are_a_case_for_a_person_and_the_first_stay_booked(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.settles([a_sale(fee=35)])
    await settler.settles([a_sale(fee=30)])
    assert await settler.cases() == [("line_changed", 5)]
    assert await fees(settler) == 35
    assert await payouts(settler) == [("setl_1", 965, 1)]
    (case,) = await settler.world.rows("SELECT evidence, expected_minor, actual_minor, line_number FROM cases")
    assert (case["expected_minor"], case["actual_minor"], case["line_number"]) == (965, 970, 2)
    assert (case["evidence"]["booked"]["fee_minor"], case["evidence"]["told"]["fee_minor"]) == (35, 30)
    await settler.settles_again()
    await settler.settles([a_sale(fee=30), a_line(LineKind.FEE, 0, at=9)])
    assert await settler.cases() == [("line_changed", 5)], "seen again it is the same case; only a person ends it"


async def test_the_same_id_twice_in_one_file_counts_twice_and_is_repeated_as_a_pair(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.settles([a_sale(), a_sale()])
    assert await settler.cases() == [("settled_twice", 1_000)]
    await settler.settles([a_sale(payout_reference="setl_1", our_reference="OUR1"), a_sale()])
    assert await settler.cases() == [("settled_twice", 1_000)]
    assert await payouts(settler) == [("setl_1", 1_940, 2)]


async def test_another_currency_kind_or_part_is_another_line(settler: Settler) -> None:
    fee = a_line(LineKind.FEE, -5, line_reference="txn_1")
    await settler.settles([fee])
    await settler.settles([fee._replace(kind=LineKind.TAX), fee._replace(currency="USD"), fee._replace(part=1)])
    assert await payouts(settler) == [("setl_1", -15, 3), ("setl_1", -5, 1)]


async def test_what_a_payout_lacks_to_its_exact_sum_does_not_add_up_as_a_report_grows(settler: Settler) -> None:
    def rounding(amount: int) -> SettlementLine:
        names: dict[str, Any] = {"line_reference": "rounding:setl_1", "source_type": "rounding", "occurred_at": None}
        return a_line(LineKind.ADJUSTMENT, amount, part=1, **names)

    sales = [a_line(LineKind.FEE, -10, at=number) for number in range(6)]
    for count, rest in [(3, -1), (6, -3), (4, -2), (6, -3), (5, 0)]:
        await settler.settles([*sales[:count], rounding(rest)])
    assert await payouts(settler) == [("setl_1", -63, 8)]
    assert await settler.cases() == []
