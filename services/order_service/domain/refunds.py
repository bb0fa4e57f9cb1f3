"""Which of two things said about a refund is the newer one."""

from __future__ import annotations

from collections.abc import Mapping

from services.order_service.domain.models import Refund, RefundStatus

_ADVANCE: Mapping[RefundStatus, int] = {
    # A refund only ever goes down this list, except that an unknown one may turn out to be anything.
    RefundStatus.PENDING: 0,
    RefundStatus.UNKNOWN: 1,
    RefundStatus.SUBMITTED: 2,
    RefundStatus.CANCELED: 3,
    RefundStatus.FAILED: 4,
    RefundStatus.SUCCEEDED: 5,
    RefundStatus.REVERSED: 6,
}


def is_news(known: Refund | None, news: Refund) -> bool:
    """Events of one transaction carry one version of their payment: among them the one that is further on counts."""
    if known is None:
        return True
    return (news.version, _ADVANCE[news.status]) > (known.version, _ADVANCE[known.status])
