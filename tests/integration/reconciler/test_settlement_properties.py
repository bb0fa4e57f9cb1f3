"""Whatever the lines and their order: sums hold, and the same content gives the same result (RC4, RC5, RC11, RC12)."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.reconciler.domain.settlement import LineKind, SettlementLine
from tests.integration.reconciler.conftest import World
from tests.integration.reconciler.settling import NOW, Content, Settler, a_line, stated

KINDS = [LineKind.SALE, LineKind.REFUND, LineKind.REFUND_REVERSAL, LineKind.CHARGEBACK, LineKind.FEE, LineKind.RESERVE]
IN_REAL_TIME = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)

lines = st.lists(
    st.builds(
        lambda kind, gross, fee, number, how, payout, at: a_line(
            kind, gross, fee=fee, at=at, payout_reference=payout, **{how: f"{how}_{number}"[:9]}
        )._replace(**({how: f"order_{number}"} if how != "reference" else {"reference": f"{kind.value}_{number}"})),
        st.sampled_from(KINDS),
        st.integers(-3, 3).map(lambda n: n * 100),
        st.integers(-2, 2),
        st.integers(1, 3),
        st.sampled_from(["reference", "parent_reference", "our_reference"]),
        st.sampled_from(["setl_1", "setl_2", None]),
        st.integers(0, 2),
    ),
    max_size=12,
)

PAYOUTS_AGAIN = """
    SELECT payout_reference, currency, coalesce(sum(net_minor) FILTER (WHERE kind <> 'payout'), 0) AS lines_minor,
        count(*) FILTER (WHERE kind <> 'payout') AS lines
    FROM settlement_lines WHERE NOT repeats AND payout_reference IS NOT NULL
    GROUP BY payout_reference, currency ORDER BY 1, 2
"""


@pytest.fixture
def settler(world: World) -> Settler:
    world.clock.move((NOW - world.clock.now()).total_seconds())
    return Settler(world)


async def anew(settler: Settler) -> None:
    await settler.forgets_everything()
    for number in (1, 2, 3):
        await settler.knows(number, ("sale", 100), ("sale", 200), ("refund", 100), at=number)


async def result(settler: Settler, content: list[SettlementLine]) -> tuple[object, ...]:
    await anew(settler)
    file_id = await settler.takes(content)
    await settler.reads(file_id)
    keys = await settler.world.rows("SELECT key, difference_minor FROM cases ORDER BY key")
    return await settler.digest(file_id), keys, await settler.lines()


@IN_REAL_TIME
@given(content=lines, seed=st.integers(0, 99))
async def test_any_order_of_the_rows_gives_the_same_digest_lines_and_cases(
    settler: Settler, content: list[SettlementLine], seed: int
) -> None:
    shuffled = random.Random(seed).sample(content, len(content))
    assert await result(settler, content) == await result(settler, shuffled)


async def test_lines_that_name_only_the_payment_are_paired_by_what_they_say(settler: Settler) -> None:
    content = [
        a_line(gross=gross, at=at, reference="order_1") for gross, at in ((100, 2), (100, 1), (250, 3), (150, 9))
    ]
    found = await result(settler, content)
    assert found == await result(settler, content[::-1])


@IN_REAL_TIME
@given(first=lines, both=lines, second=lines)
async def test_lines_of_overlapping_files_count_once_and_payouts_are_what_their_lines_say(
    settler: Settler, first: list[SettlementLine], both: list[SettlementLine], second: list[SettlementLine]
) -> None:
    await anew(settler)
    await settler.settles(Content([*first, *both], payouts=[stated(50)]))
    await settler.settles([*both, *second])
    names = "payout_reference, currency, lines_minor, lines"
    kept = await settler.world.rows(f"SELECT {names} FROM settlement_payouts WHERE lines > 0 ORDER BY 1, 2")
    assert kept == [row for row in await settler.world.rows(PAYOUTS_AGAIN) if row["lines"]]
    for row in await settler.world.rows("SELECT * FROM settlement_payouts WHERE stated_minor IS NOT NULL"):
        (case,) = await settler.world.rows(
            "SELECT coalesce(sum(difference_minor), 0) AS unexplained FROM cases WHERE scenario = 'payout_differs'"
            " AND status <> 'resolved' AND payout_reference = :payout",
            payout=row["payout_reference"],
        )
        if row["lines"]:
            assert row["lines_minor"] + case["unexplained"] == row["stated_minor"]
    counted = [line for line in await settler.lines() if not line["repeats"]]
    names_of_lines = {(line["identity"], line["occurrence"]) for line in counted}
    assert len(names_of_lines) == len(counted), "each occurrence of a content counts once in all files"
    most = {line: max([*first, *both].count(line), [*both, *second].count(line)) for line in {*first, *both, *second}}
    assert len(counted) == sum(most.values()), "and as often as the file that has most of it"
