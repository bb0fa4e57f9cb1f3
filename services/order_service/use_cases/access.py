"""Who may see and change an order: its secret's holder, the customer whose it is, the back office (SEC-10, SEC-13)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.order_service.domain.errors import OrderNotFound
from services.order_service.domain.models import Order
from shared.errors import Unauthenticated

SECRET_LIVES_AFTER_END = timedelta(days=30)
"""A guest can come back for the invoice this long after the order was confirmed or closed."""

_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller showed: the order's secret, or a token with its subject and what it may do to anybody's order."""

    order_secret: str | None = field(default=None, repr=False)
    subject: str | None = None
    reads_all: bool = False
    writes_all: bool = False

    @property
    def is_anonymous(self) -> bool:
        return self.order_secret is None and self.subject is None


def digest_of(secret: str) -> bytes:
    """SHA-256 is enough for 256 random bits: there is nothing to guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def require_access(order: Order | None, access: Access, *, writing: bool, now: datetime) -> Order:
    """The order, if the caller may. Somebody else's order and no order at all raise the same OrderNotFound."""
    if access.is_anonymous:
        raise Unauthenticated
    stored = _NO_DIGEST if order is None else order.secret_digest
    # Compared for an absent order too, so that both answers take the same time.
    knows_secret = hmac.compare_digest(digest_of(access.order_secret or ""), stored)
    if order is None:
        raise OrderNotFound
    if knows_secret and not _secret_is_dead(order, now):
        return order
    if access.subject is not None and order.customer_subject == access.subject:
        return order
    if access.writes_all if writing else access.reads_all:
        return order
    raise OrderNotFound


def _secret_is_dead(order: Order, now: datetime) -> bool:
    # The latest: an order may be closed first and confirmed by late money afterwards, and be refunded after that.
    ends = [moment for moment in (order.closed_at, order.confirmed_at, order.refunded_at) if moment is not None]
    return bool(ends) and now > max(ends) + SECRET_LIVES_AFTER_END
