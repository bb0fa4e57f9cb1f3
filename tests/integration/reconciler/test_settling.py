"""A file is settled: each fault that is sown is one finding and nothing else (RC4, RC5, RC6, RC7, RC8, RC10, RC12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from services.reconciler.domain.settlement import BadRow, LineKind, StatedTotal
from services.reconciler.domain.settlement_rules import FeeRule
from services.reconciler.settlement_formats.port import Incomplete, Unreadable
from tests.integration.reconciler.conftest import World
from tests.integration.reconciler.settling import NOW, Content, Settler, a_line, refund, sale, stated


@pytest.fixture
def settler(world: World) -> Settler:
    world.clock.move((NOW - world.clock.now()).total_seconds())
    return Settler(world)


async def test_a_file_that_agrees_gives_no_case(settler: Settler) -> None:
    for number in range(1, 4):
        await settler.knows(number, ("sale", 1_000))
    await settler.knows(4, ("sale", 1_000), ("refund", 300))
    lines = [sale(number, fee=20, tax=4) for number in range(1, 5)] + [refund(4, -300), a_line(LineKind.PAYOUT, -3_604)]
    outcome = await settler.settles(lines)
    assert (outcome.checked, outcome.matched, outcome.cases_opened) == (6, 6, 0)
    assert await settler.cases() == []
    (payout,) = await settler.world.rows("SELECT * FROM settlement_payouts")
    assert (payout["lines_minor"], payout["stated_minor"], payout["lines"]) == (3_604, 3_604, 5)
    (total,) = outcome.totals
    assert (total["matched_minor"], total["fees_minor"], total["tax_minor"]) == (3_700, 80, 16)
    assert (total["payouts_minor"], total["unexplained_minor"], total["in_transit_minor"]) == (3_604, 0, 0)


Sow = Callable[[Settler], Awaitable[None]]
AGREEING = (sale(1), sale(2, at=500))


async def wrong_amount(settler: Settler) -> None:
    await settler.settles([sale(1, 900), *AGREEING[1:]])


async def wrong_currency(settler: Settler) -> None:
    await settler.settles([sale(1, currency="USD"), *AGREEING[1:]])


async def another_amount_is_shown_to_us(settler: Settler) -> None:
    await settler.settles([sale(1, 950, presented_minor=1_100, presented_currency="INR"), *AGREEING[1:]])


async def the_same_line_twice(settler: Settler) -> None:
    await settler.settles([*AGREEING, AGREEING[0]])


async def settled_again_in_a_later_file(settler: Settler) -> None:
    await settler.settles(AGREEING)
    await settler.settles([sale(1, line_reference="another", payout_reference="setl_2"), sale(2, at=500)])


async def an_extra_line(settler: Settler) -> None:
    await settler.settles([*AGREEING, sale(99, 700)])


async def an_unknown_refund(settler: Settler) -> None:
    await settler.settles([*AGREEING, a_line(LineKind.REFUND, -200, reference="refund_9", parent_reference="order_1")])


async def an_unknown_chargeback(settler: Settler) -> None:
    line = a_line(
        LineKind.CHARGEBACK, -1_000, fee=1_500, reference="disp_9", parent_reference="sale_x", our_reference="OUR1"
    )
    await settler.settles([*AGREEING, line])


async def a_missing_line(settler: Settler) -> None:
    await settler.settles(AGREEING[1:])


async def a_refund_netted_into_its_sale(settler: Settler) -> None:
    await settler.knows(1, ("refund", 250))
    await settler.settles([sale(1, 750), *AGREEING[1:]])


async def a_payout_off_by_one(settler: Settler) -> None:
    await settler.settles(Content(AGREEING, payouts=[stated(1_999)]))


async def bad_rows(settler: Settler) -> None:
    totals = [StatedTotal(9, "net", "INR", 3_000, 2_000)]
    await settler.settles(Content(AGREEING, bad_rows=[BadRow(4, "amount_unreadable", "Gross")], totals=totals))


async def totals_that_differ(settler: Settler) -> None:
    totals = [StatedTotal(9, "net", "INR", 2_001, 2_000), StatedTotal(9, "rows", None, 2, 2)]
    await settler.settles(Content(AGREEING, totals=totals))


SOWN = {
    wrong_amount: ("amount_differs", -100),
    wrong_currency: ("currency_differs", None),
    another_amount_is_shown_to_us: ("amount_differs", 100),
    the_same_line_twice: ("settled_twice", 1_000),
    settled_again_in_a_later_file: ("settled_twice", 1_000),
    an_extra_line: ("unknown_line", 700),
    an_unknown_refund: ("unknown_refund", -200),
    an_unknown_chargeback: ("unknown_chargeback", -1_000),
    a_missing_line: ("not_settled", -1_000),
    a_refund_netted_into_its_sale: ("refund_netted", -250),
    a_payout_off_by_one: ("payout_differs", -1),
    bad_rows: ("bad_rows", None),
    totals_that_differ: ("file_totals_differ", 1),
}


@pytest.mark.parametrize(("sow", "case"), SOWN.items(), ids=[sow.__name__ for sow in SOWN])
async def test_a_sown_fault_is_one_case_and_nothing_else(settler: Settler, sow: Sow, case: tuple[str, int]) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.knows(2, ("sale", 1_000), at=500)
    await sow(settler)
    assert await settler.cases() == [case]
    await settler.settles_again()
    assert await settler.cases() == [case], "settled again without news, it is the same case"
    assert await settler.cases(resolved=True) == []


async def test_a_fee_that_was_not_agreed_is_found_where_a_rule_says_what_was(world: World) -> None:
    world.clock.move((NOW - world.clock.now()).total_seconds())
    settler = Settler(world, fees={"razorpay": FeeRule(basis_points=200, tax_percent=18, tolerance_minor=1)})
    for number in (1, 2, 3):
        await settler.knows(number, ("sale", 10_050))
    # 2 % are 201, tax on it 36.18: rounded up by the gateway is within the tolerance (failure RC5).
    outcome = await settler.settles(
        [sale(1, 10_050, fee=201, tax=36), sale(2, 10_050, fee=202, tax=37), sale(3, 10_050, fee=251, tax=36)]
    )
    assert await settler.cases() == [("fee_differs", -50)]
    assert outcome.totals[0]["fees_checked"] is True
    await settler.settles_again()
    assert await settler.cases() == [("fee_differs", -50)]


async def test_captures_in_parts_belong_to_their_payment(settler: Settler) -> None:
    await settler.knows(1, ("sale", 600), ("sale", 400))
    by_order = {"reference": "order_1"}
    await settler.settles([sale(1, 400, line_reference="b", **by_order), sale(1, 600, line_reference="a", **by_order)])
    assert await settler.cases() == []
    assert sorted((line["gross_minor"], line["movement_reference"]) for line in await settler.lines()) == [
        (400, "sale_1_2"),
        (600, "sale_1"),
    ]


async def test_equal_captures_are_settled_one_by_one_in_whatever_file(settler: Settler) -> None:
    await settler.knows(1, ("sale", 500), ("sale", 500))
    await settler.settles([sale(1, 500, reference="order_1")])
    await settler.settles([sale(1, 500, reference="order_1", at=9)])
    assert await settler.cases() == []


async def test_one_capture_may_be_settled_in_several_lines(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.settles([sale(1, 600), sale(1, 400)])
    assert await settler.cases() == []


async def test_a_part_in_each_of_two_files_is_short_until_the_second(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.settles([sale(1, 600)])
    assert await settler.cases() == [("amount_differs", -400)]
    await settler.settles([sale(1, 400, at=1)])
    assert await settler.cases() == []
    assert await settler.cases(resolved=True) == [("amount_differs", -400)]


async def test_a_refund_that_was_reversed_leaves_nothing(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    reference = {"reference": "refund_9", "parent_reference": "order_1"}
    await settler.settles(
        [sale(1), a_line(LineKind.REFUND, -200, **reference), a_line(LineKind.REFUND_REVERSAL, 200, at=9, **reference)]
    )
    assert await settler.cases() == []


async def test_lines_of_another_account_are_not_ours(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), account="other")
    await settler.settles([sale(1)])
    assert await settler.cases() == [("unknown_line", 1_000)]


async def test_a_reference_of_two_payments_is_for_a_person(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.knows(2, ("sale", 1_000))
    await settler.world.execute("UPDATE known_movements SET reference = 'same'")
    await settler.settles([sale(1, reference="same"), sale(3, reference="other")])
    found = {line["reference"]: line["payment_id"] for line in await settler.lines()}
    assert found == {"same": None, "other": None}


async def test_a_line_of_nobody_names_candidates_and_closes_when_its_payment_is_known(settler: Settler) -> None:
    await settler.knows(5, ("sale", 700), at=60)
    await settler.settles([sale(99, 700)])
    (case,) = await settler.world.rows("SELECT evidence FROM cases")
    assert [candidate["reference"] for candidate in case["evidence"]["candidates"]] == ["sale_5"]
    payment_id = await settler.knows(99, ("sale", 700))
    outcome = await settler.settles_again()
    assert outcome.cases_resolved == 1
    assert [line["payment_id"] for line in await settler.lines()] == [payment_id]
    assert await settler.cases() == []


async def test_a_refund_we_learn_of_later_closes_its_case(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.settles([sale(1), a_line(LineKind.REFUND, -200, reference="refund_1", parent_reference="order_1")])
    assert await settler.cases() == [("unknown_refund", -200)]
    assert "payment.sync_requested.v1" in await settler.world.events(), "the gateway is asked, so that it tells us"
    await settler.knows(1, ("refund", 200))
    await settler.settles_again()
    assert await settler.cases() == []


async def test_a_line_that_a_person_matched_is_paired_and_judged(settler: Settler) -> None:
    payment_id = await settler.knows(5, ("sale", 700), at=60)
    file_id = await settler.takes([sale(99, 700)])
    await settler.reads(file_id)
    async with settler.context.uow() as tx:
        assert await tx.settlement.match_by_person(file_id, 2, payment_id)
        assert not await tx.settlement.match_by_person(file_id, 2, payment_id)
    (line,) = await settler.lines()
    assert (line["payment_id"], line["movement_reference"], line["matched_by"]) == (payment_id, "sale_5", "person")


async def test_what_is_absent_is_found_only_after_the_gateways_delay(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), at=60 * 24 * 12)  # three days before now
    await settler.knows(2, ("sale", 1_000), at=60 * 24 * 14)
    await settler.knows(3, ("sale", 1_000), at=60 * 24 * 10)
    await settler.knows(4, ("sale", 1_000), at=60 * 24 * 8)  # before the first file that there is
    await settler.settles([sale(3, at=60 * 24 * 10), sale(2, at=60 * 24 * 14)])
    assert await settler.cases() == []
    settler.world.clock.move(3 * 24 * 3600)
    await settler.settles_again()
    assert await settler.cases() == [("not_settled", -1_000)]
    await settler.settles([sale(1, at=60 * 24 * 12)])
    assert await settler.cases() == []


async def test_nothing_is_absent_while_no_file_covers_a_later_time(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), at=10)
    await settler.knows(2, ("sale", 1_000), at=5)
    await settler.settles([sale(2, at=5)])
    await settler.settles_again()
    assert await settler.cases() == []


async def test_lines_of_overlapping_files_count_once(settler: Settler) -> None:
    for number in (1, 2, 3):
        await settler.knows(number, ("sale", 1_000))
    await settler.settles([sale(1), sale(2)])
    await settler.settles([sale(2), sale(3)])
    assert await settler.cases() == []
    (payout,) = await settler.world.rows("SELECT lines_minor, lines FROM settlement_payouts")
    assert (payout["lines_minor"], payout["lines"]) == (3_000, 3)


async def test_a_genuine_pair_counts_twice_and_is_repeated_as_a_pair(settler: Settler) -> None:
    fee = a_line(LineKind.FEE, -100)
    await settler.settles([fee, fee])
    await settler.settles([fee, fee, fee])
    (payout,) = await settler.world.rows("SELECT lines_minor, lines FROM settlement_payouts")
    assert (payout["lines_minor"], payout["lines"]) == (-300, 3)
    assert [(line["occurrence"], line["repeats"]) for line in await settler.lines()] == [
        (1, False),
        (1, True),
        (2, False),
        (2, True),
        (3, False),
    ]


async def test_reserves_and_negative_payouts_add_up_and_are_booked(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000), ("refund", 1_000))
    lines = [sale(1, fee=20), refund(1, -1_000), a_line(LineKind.RESERVE, -50), a_line(LineKind.ADJUSTMENT, 5)]
    await settler.settles(Content([*lines, a_line(LineKind.TAX, -3)], payouts=[stated(-68)]))
    assert await settler.cases() == []
    (command,) = await booked(settler)
    assert {name: command[name] for name in command if name.endswith("_minor")} == {
        "fees_minor": 20,
        "tax_minor": 3,
        "reserve_minor": 50,
        "adjustment_minor": -5,
        "conversion_minor": 0,
        "payout_minor": -68,
    }
    assert sum(line["gross_minor"] for line in await settler.lines() if line["kind"] in ("sale", "refund")) == 0


async def test_a_difference_within_the_tolerance_is_booked_once(world: World) -> None:
    world.clock.move((NOW - world.clock.now()).total_seconds())
    settler = Settler(world, payout_rounding_minor=2)
    await settler.knows(1, ("sale", 1_000))
    await settler.settles(Content([sale(1)], payouts=[stated(998)]))
    await settler.settles(Content([a_line(LineKind.FEE, 0, payout_reference="setl_1")], payouts=[stated(998)]))
    assert await settler.cases() == []
    assert [(each["adjustment_minor"], each["payout_minor"]) for each in await booked(settler)] == [(2, 998)]


async def test_a_payout_of_which_nobody_says_what_it_paid(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    await settler.settles(
        Content([a_line(LineKind.FEE, -1, payout_reference="setl_0")], payouts=[stated(-1, "setl_0")])
    )
    await settler.settles([sale(1)])
    assert await settler.cases() == []
    settler.world.clock.move(8 * 24 * 3600)
    await settler.settles_again()
    assert await settler.cases() == [("payout_missing", None)]
    await settler.settles(Content([], payouts=[stated(1_000)]))
    assert await settler.cases() == []


async def test_a_statement_before_its_file_waits_for_it(settler: Settler) -> None:
    await settler.settles(Content([], payouts=[stated(1_000)]))
    assert await settler.cases() == []
    await settler.knows(1, ("sale", 1_000))
    await settler.settles([sale(1)])
    assert await settler.cases() == []


async def test_an_incomplete_file_leaves_nothing_but_its_case_until_it_comes_whole(settler: Settler) -> None:
    await settler.knows(1, ("sale", 1_000))
    broken = Content([sale(1)], breaks_with=Incomplete("rows_missing", "2 rows are announced, 1 came"))
    cut_off = await settler.takes(broken, name="june.csv")
    await stores(settler, cut_off, b"a,b", b"1,")
    outcome = await settler.reads(cut_off)
    assert (outcome.failed, outcome.cases_opened) == (1, 1)
    assert await settler.lines() == []
    (file,) = await settler.world.rows("SELECT status, problem FROM settlement_files")
    assert (file["status"], file["problem"]) == ("incomplete", "rows_missing")
    assert await settler.cases() == [("file_incomplete", None)]
    another_day, whole = [await settler.takes([sale(1)], name="june.csv") for _ in range(2)]
    await stores(settler, another_day, b"a,b", b"2,3", b"4,5")
    await stores(settler, whole, b"a,b", b"1,2", b"3,4")
    await settler.reads(another_day)
    assert await settler.cases() == [("file_incomplete", None)], "called the same, it is another file"
    await settler.reads(whole)
    assert await settler.cases() == []


async def stores(settler: Settler, file_id: str, *chunks: bytes) -> None:
    for number, content in enumerate(chunks):
        await settler.world.execute(
            "INSERT INTO settlement_file_chunks (file_id, number, content) VALUES (:id, :number, :content)",
            id=file_id,
            number=number,
            content=content,
        )


@pytest.mark.parametrize("bad", [True, False], ids=["bad-rows", "totals"])
async def test_what_is_wrong_with_a_file_ends_with_one_that_covers_its_time(settler: Settler, *, bad: bool) -> None:
    """RC3: the next day's file may be called the same, and says nothing of those rows."""
    rows = [BadRow(4, "amount_unreadable", "Gross")] if bad else []
    totals = [] if bad else [StatedTotal(9, "rows", None, 3, 2)]
    await settler.settles(Content([sale(1, at=5), sale(2, at=50)], bad_rows=rows, totals=totals), name="daily.csv")
    wrong = ("bad_rows" if bad else "file_totals_differ", None)
    for later in ([sale(3, at=2_000)], [sale(1, at=5), sale(2, at=49)], [a_line(LineKind.FEE, -1, at=60)]):
        await settler.settles(later, name="daily.csv")
        assert wrong in await settler.cases()
    await settler.settles([sale(1, at=5), sale(4, at=20), sale(2, at=50)], name="daily.csv")
    assert wrong not in await settler.cases()


async def test_an_unreadable_file_is_refused_with_its_reason(settler: Settler) -> None:
    await settler.settles(Content([sale(1)], breaks_with=Unreadable("not_text", "It is no text.")))
    (file,) = await settler.world.rows("SELECT status, problem_detail FROM settlement_files")
    assert (file["status"], file["problem_detail"]) == ("refused", "It is no text.")
    assert await settler.lines() == []
    assert await settler.cases() == [("file_refused", None)]


@pytest.mark.parametrize("phase", ["reading", "matching", "totalling", "deciding", "booking"])
async def test_killed_anywhere_and_done_again_it_is_the_same(settler: Settler, phase: str) -> None:
    await settler.knows(1, ("sale", 1_000))
    content = Content([sale(1, 900), sale(7), a_line(LineKind.FEE, -10)])
    file_id = await settler.takes(content)
    settler.killed_in = phase
    with pytest.raises(KeyboardInterrupt):
        await settler.reads(file_id)
    assert await settler.lines() == []
    assert await settler.cases() == []
    assert await settler.world.events() == []
    settler.killed_in = None
    await settler.reads(file_id)
    after_a_kill = await settler.lines(), await settler.cases(), await settler.digest(file_id)
    await settler.forgets_everything()
    await settler.knows(1, ("sale", 1_000))
    settler._files = 0
    await settler.reads(await settler.takes(content))
    assert (await settler.lines(), await settler.cases(), await settler.digest(file_id)) == after_a_kill


async def test_run_twice_nothing_is_there_twice(settler: Settler) -> None:
    file_id = await settler.takes([sale(1), a_line(LineKind.FEE, -10)])
    await settler.reads(file_id)
    before = await settler.lines(), await settler.cases(), await settler.world.events()
    assert (await settler.reads(file_id)).checked == 0
    assert (await settler.lines(), await settler.cases(), await settler.world.events()) == before


async def booked(settler: Settler) -> list[dict[str, int]]:
    rows = await settler.world.rows(
        "SELECT convert_from(body, 'UTF8')::json->'data' AS data FROM outbox_messages"
        " WHERE type = 'settlement.booked.v1' ORDER BY position"
    )
    return [row["data"] for row in rows]
