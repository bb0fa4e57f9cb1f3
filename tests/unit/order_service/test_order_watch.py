"""Who is woken by which hint: whoever has not read that version yet, and nobody else."""

from __future__ import annotations

import pytest

from services.order_service.use_cases.order_watch import OrderWatch

MINE, OTHER = "ord_mine", "ord_other"


@pytest.mark.parametrize(
    ("seen", "hint", "is_news"),
    [
        (None, f"{MINE}:3", True),
        (2, f"{MINE}:3", True),
        (3, f"{MINE}:3", False),
        (4, f"{MINE}:3", False),
        (3, f"{OTHER}:9", False),
        (3, f"{OTHER}:9 {MINE}:4", True),
        (3, f"{OTHER}:9 {MINE}:3", False),
        (3, MINE, True),
        (3, "", True),
    ],
)
def test_a_hint_wakes_whoever_has_not_seen_its_version(seen: int | None, hint: str, is_news: bool) -> None:
    watch = OrderWatch()
    with watch.subscription(MINE) as changes:
        changes.clear()
        if seen is not None:
            changes.seen = seen
        watch.on_hint(hint)
        assert changes.woken is is_news


@pytest.mark.parametrize(
    ("hint", "read", "is_news"), [("ord_mine:3", 3, False), ("ord_mine:3", 2, True), ("", 3, True)]
)
def test_a_hint_during_the_reading_counts_if_the_reading_missed_it(hint: str, read: int, is_news: bool) -> None:
    watch = OrderWatch()
    with watch.subscription(MINE) as changes:
        changes.seen = 2
        changes.clear()
        watch.on_hint(hint)
        changes.seen = read
        assert changes.woken is is_news


def test_who_is_stopped_is_woken_for_good() -> None:
    watch = OrderWatch()
    with watch.subscription(MINE) as changes:
        watch.stop()
        changes.clear()
        changes.seen = 9
        assert changes.woken
