"""Lines that name no movement of ours, or one that we learn of later: the same end however files are split."""

from __future__ import annotations

from itertools import permutations

import pytest

from services.reconciler.domain.cases import Action
from services.reconciler.domain.errors import ActionNotPossible
from services.reconciler.domain.settlement import LineKind, SettlementLine
from services.reconciler.use_cases.resolve_case import Wish, resolve_case
from tests.integration.reconciler.conftest import BuildWorld
from tests.integration.reconciler.settling import NOW, Settler, a_line, refund, sale

KEY = "ab" * 32
BY_ORDER = {"reference": "order_1"}


@pytest.fixture
async def settler(build_world: BuildWorld) -> Settler:
    world = await build_world(command_signing_key=KEY)
    world.clock.move((NOW - world.clock.now()).total_seconds())
    return Settler(world)


async def asked(settler: Settler) -> int:
    return len([name for name in await settler.world.events() if "sync" in name])


async def test_a_second_refund_that_we_do_not_know_is_no_part_of_the_first(settler: Settler) -> None:
    """RC3: it was made at the gateway's dashboard; the gateway is asked, and then everything is settled."""
    await settler.knows(1, ("sale", 1_000), ("refund", 200))
    dashboard = a_line(LineKind.REFUND, -300, reference="refund_1_2", parent_reference="order_1", at=5)
    await settler.settles([sale(1), refund(1, -200), dashboard])
    assert await settler.cases() == [("unknown_refund", -300)]
    assert await asked(settler) == 1
    await settler.knows(1, ("refund", 200), ("refund", 300))
    await settler.settles_again()
    assert await settler.cases() == []


async def test_a_second_capture_that_we_do_not_know_is_no_part_of_the_first(settler: Settler) -> None:
    await settler.knows(1, ("sale", 600))
    await settler.settles([sale(1, 600), sale(1, 400, reference="sale_1_2", parent_reference="order_1", at=5)])
    assert await settler.cases() == [("unknown_line", 400)]
    assert await asked(settler) == 1
    await settler.knows(1, ("sale", 600), ("sale", 400))
    await settler.settles_again()
    assert await settler.cases() == []


async def test_a_line_is_let_go_when_the_movements_own_line_comes(settler: Settler) -> None:
    """An unknown refund of the same amount came first, and seemed to be ours."""
    await settler.knows(1, ("sale", 1_000), ("refund", 200))
    await settler.settles([sale(1), a_line(LineKind.REFUND, -200, reference="refund_9", parent_reference="order_1")])
    assert await settler.cases() == []
    await settler.settles([refund(1, -200, at=5)])
    assert await settler.cases() == [("unknown_refund", -200)]


async def test_the_reversal_of_an_unknown_dispute_belongs_to_it(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), ("chargeback", 1_000))
    dispute = a_line(LineKind.CHARGEBACK, -1_000, reference="chargeback_1")
    other = a_line(LineKind.CHARGEBACK, -1_000, reference="dp_2", parent_reference="order_1", at=1)
    back = a_line(LineKind.CHARGEBACK_REVERSAL, 1_000, reference="dp_2", parent_reference="order_1", at=2)
    await settler.settles([sale(1), dispute, other, back])
    assert await settler.cases() == []


@pytest.mark.parametrize("parts", sorted({*permutations((300, 300, 400))}), ids=str)
@pytest.mark.parametrize("files", [1, 3])
async def test_captures_in_other_parts_than_ours_agree_in_sum(
    settler: Settler, parts: tuple[int, ...], files: int
) -> None:
    """RC6: several lines to one payment, however they are split."""
    await settler.knows(1, ("sale", 600), ("sale", 400))
    lines = [sale(1, part, at=number, **BY_ORDER) for number, part in enumerate(parts)]
    for some in [lines] if files == 1 else [[line] for line in lines]:
        await settler.settles(some)
    assert await settler.cases() == []


@pytest.mark.parametrize("files", [1, 2])
async def test_what_is_wrong_is_the_same_in_one_file_and_in_two(settler: Settler, files: int) -> None:
    await settler.knows(1, ("sale", 600), ("sale", 400))
    lines: list[SettlementLine] = [sale(1, 500, at=0, **BY_ORDER), sale(1, 400, at=1, **BY_ORDER)]
    for some in [lines] if files == 1 else [[line] for line in lines]:
        await settler.settles(some)
    assert await settler.cases() == [("amount_differs", -100)]


async def test_what_the_gateway_gave_and_took_back_is_nothing(settler: Settler) -> None:
    """The capture was reversed: our books have no sale any more, the files have two lines."""
    await settler.knows(1)
    await settler.settles([sale(1, 1_000, parent_reference="order_1")])
    assert await settler.cases() == [("unknown_line", 1_000)]
    taken = a_line(LineKind.CHARGEBACK, -1_000, reference="rev_1", parent_reference="order_1", at=5)
    await settler.settles([taken])
    assert await settler.cases() == []


async def matches(settler: Settler, payment_id: str) -> None:
    """A person matches the line of the only case about an unknown one."""
    (row,) = await settler.world.rows("SELECT case_id FROM cases WHERE scenario = 'unknown_line'")
    await resolve_case(row["case_id"], Wish(Action.MATCH, "by the invoice", "ann", payment_id), settler.context)


async def test_what_a_person_matches_is_judged_at_once(settler: Settler) -> None:
    """A line of 700 settles a payment of 1000 as far as it goes: the rest does not vanish with the case."""
    payment_id = await settler.knows(1, ("sale", 1_000))
    await settler.settles([sale(99, 700)])
    await matches(settler, payment_id)
    assert await settler.cases() == [("amount_differs", -300)]
    assert await settler.cases(resolved=True) == [("unknown_line", 700)]
    await settler.settles_again()
    assert await settler.cases() == [("amount_differs", -300)]
    await settler.settles([sale(98, 300, parent_reference="order_1", at=9)])
    assert await settler.cases() == []


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (sale(99), {"gateway": "stripe"}),
        (sale(99), {"account": "second"}),
        (sale(99), {"currency": "EUR"}),
        (sale(99, presented_minor=1_000, presented_currency="USD"), {}),
    ],
    ids=["gateway", "account", "currency", "presented"],
)
async def test_a_line_is_matched_to_no_payment_of_elsewhere(
    settler: Settler, line: SettlementLine, other: dict[str, str]
) -> None:
    elsewhere = Settler(settler.world, gateway=other.get("gateway", settler.gateway))
    changes = {name: value for name, value in other.items() if name != "gateway"}
    payment_id = await elsewhere.knows(1, ("sale", 1_000), **changes)
    await settler.settles([line])
    with pytest.raises(ActionNotPossible):
        await matches(settler, payment_id)
    assert await settler.cases() == [("unknown_line", 1_000)]


async def test_an_open_dispute_that_we_know_is_no_alarm(settler: Settler) -> None:
    """Withheld or not yet, nobody is asked; what was withheld and given back is settled when it is won."""
    await settler.knows(1, ("sale", 1_000), ("withheld", 1_000))
    dispute = a_line(LineKind.CHARGEBACK, -1_000, reference="withheld_1", at=2)
    await settler.settles([sale(1), a_line(LineKind.FEE, -1, at=9_000)])
    await settler.settles([dispute])
    await settler.settles_again()
    assert (await settler.cases(), await asked(settler)) == ([], 0)
    await settler.world.execute("UPDATE known_movements SET is_withheld = false")  # lost
    await settler.settles_again()
    assert await settler.cases() == []


async def test_an_open_dispute_that_was_given_back_is_no_alarm(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), ("withheld", 1_000))
    dispute = a_line(LineKind.CHARGEBACK, -1_000, reference="withheld_1", at=2)
    back = a_line(LineKind.CHARGEBACK_REVERSAL, 1_000, reference="withheld_1", at=3)
    await settler.settles([sale(1), dispute, back])
    assert await settler.cases() == []
    await settler.world.execute("DELETE FROM known_movements WHERE is_withheld")  # won
    await settler.settles_again()
    assert await settler.cases() == []


async def test_an_open_dispute_of_another_amount_is_a_case(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), ("withheld", 600))
    await settler.settles([sale(1), a_line(LineKind.CHARGEBACK, -1_000, reference="withheld_1", at=2)])
    assert await settler.cases() == [("amount_differs", -400)]
