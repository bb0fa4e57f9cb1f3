"""What the routes get from the application's container and from the request's headers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Header, Path, Request
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import HTTPConnection

from services.order_service.use_cases.access import Access
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.order_watch import OrderWatch
from services.order_service.use_cases.ports import InvoiceRenderer
from shared.clock import Clock
from shared.db.idempotency import IdempotencyStore
from shared.errors import TooManyRequests
from shared.web.auth import Principal, bearer_scheme, optional_principal

_ORDER_ID = re.compile(r"ord_[0-9a-z]{26}")
_NO_ORDER = f"ord_{'0' * 26}"
_LONGEST_SECRET = 100


@dataclass(frozen=True, slots=True)
class StreamRules:
    """Which pages may open a WebSocket, and how long a stream lasts before its client resumes it."""

    browser_origins: frozenset[str]
    lifetime_seconds: float


class RateLimits:
    """Requests per minute and client address, counted in this process (SEC-15)."""

    def __init__(
        self, *, orders_per_minute: int, payments_per_minute: int, trusted_proxy_hops: int, clock: Clock
    ) -> None:
        self._limits = {"orders": parse(f"{orders_per_minute}/minute"), "pay": parse(f"{payments_per_minute}/minute")}
        self._hops = trusted_proxy_hops
        self._clock = clock
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, kind: str, connection: HTTPConnection) -> None:
        """Raises TooManyRequests with the seconds to wait."""
        limit, address = self._limits[kind], client_address(connection, self._hops)
        if not self._limiter.hit(limit, kind, address):
            reset_at = self._limiter.get_window_stats(limit, kind, address).reset_time
            wait = int(reset_at - self._clock.now().timestamp()) + 1
            raise TooManyRequests(retry_after_seconds=min(60, max(1, wait)))


class OrderServices(Protocol):
    """The part of the container that routes use."""

    @property
    def deps(self) -> Dependencies: ...
    @property
    def watch(self) -> OrderWatch: ...
    @property
    def invoices(self) -> InvoiceRenderer: ...
    @property
    def idempotency(self) -> IdempotencyStore: ...
    @property
    def rate_limits(self) -> RateLimits: ...
    @property
    def stream_rules(self) -> StreamRules: ...


def services_of(connection: HTTPConnection) -> OrderServices:
    services: OrderServices = connection.app.state.container
    return services


async def access_of(
    principal: Annotated[Principal | None, Depends(optional_principal)],
    _documented: Annotated[Any, Depends(bearer_scheme)],
    x_order_secret: Annotated[str | None, Header(description="the order's client_secret")] = None,
) -> Access:
    """What the caller showed. Raises Unauthenticated for a bad token."""
    # Too long to be a secret: still a secret that was shown, and wrong like any other.
    secret = x_order_secret[:_LONGEST_SECRET] if x_order_secret else None
    if principal is None:
        return Access(order_secret=secret)
    return Access(
        order_secret=secret,
        subject=principal.subject,
        reads_all=principal.has_scope("orders:read"),
        writes_all=principal.has_scope("orders:write"),
    )


def order_id_of(order_id: Annotated[str, Path(max_length=200)]) -> str:
    """Something that is no id at all is answered like an id that nobody has (SEC-13)."""
    return order_id if _ORDER_ID.fullmatch(order_id) else _NO_ORDER


def client_address(connection: HTTPConnection, trusted_proxy_hops: int) -> str:
    """The address that our outermost proxy saw; what the caller itself wrote into the header does not count (W25)."""
    peer = connection.client.host if connection.client else "unknown"
    if trusted_proxy_hops == 0:
        return peer
    header = ",".join(connection.headers.getlist("x-forwarded-for"))
    forwarded = [part.strip() for part in header.split(",") if part.strip()]
    return forwarded[-trusted_proxy_hops] if len(forwarded) >= trusted_proxy_hops else peer


def limited(kind: str) -> Any:
    async def count(request: Request) -> None:
        services_of(request).rate_limits.count(kind, request)

    return Depends(count)


Caller = Annotated[Access, Depends(access_of)]
OrderId = Annotated[str, Depends(order_id_of)]
Services = Annotated[OrderServices, Depends(services_of)]
IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", description="16-64 letters, digits, - or _: the answer is replayed")
]
