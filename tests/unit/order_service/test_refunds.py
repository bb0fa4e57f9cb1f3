"""Which of two things said about a refund is the newer one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.order_service.domain.models import Refund, RefundStatus
from services.order_service.domain.refunds import is_news
from shared.money import Money

REFUNDS = st.builds(
    lambda status, version: Refund("ref_1", "pay_1", "ord_1", Money(900, "EUR"), status, version),
    st.sampled_from(RefundStatus),
    st.integers(1, 3),
)


@given(st.lists(REFUNDS, min_size=1, max_size=5).flatmap(lambda said: st.tuples(st.just(said), st.permutations(said))))
def test_any_order_of_the_same_news_ends_in_the_same_refund(told: tuple[list[Refund], list[Refund]]) -> None:
    ends = []
    for order in told:
        known = None
        for news in order:
            known = news if is_news(known, news) else known
        ends.append(known)
    assert ends[0] == ends[1]


def test_within_one_version_what_is_further_on_counts() -> None:
    def at(status: RefundStatus, version: int = 3) -> Refund:
        return Refund("ref_1", "pay_1", "ord_1", Money(900, "EUR"), status, version)

    path = [RefundStatus.PENDING, RefundStatus.SUBMITTED, RefundStatus.SUCCEEDED, RefundStatus.REVERSED]
    for before, after in pairwise(path):
        assert is_news(at(before), at(after))
        assert not is_news(at(after), at(before))
        assert is_news(at(after), at(before, version=4))
