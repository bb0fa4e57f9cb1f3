"""Opening an order: what goes out, and what comes back. Nothing about the shopper is sent: its page asks for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from services.payment_service.domain.models import FactKind, NextAction, Observation
from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, optional_web_address
from services.payment_service.gateways.phonepe.api import Json
from services.payment_service.gateways.phonepe.reading import moment_of
from services.payment_service.gateways.port import CreateSession, Session

SHORTEST_PAGE, LONGEST_PAGE = timedelta(minutes=5), timedelta(hours=1)
LONGEST_UDF = 256


def order_json(request: CreateSession, *, retry_on_page: bool) -> dict[str, Any]:
    """The same for every call of one attempt. ``expireAfter`` is always sent: what it is otherwise is not documented.

    There is one way back, for success, failure and a shopper who leaves; nothing is added to it and nothing of it is
    read.
    """
    body: dict[str, Any] = {
        "merchantOrderId": request.reference,
        "amount": request.amount.amount_minor,
        "expireAfter": _expire_after(request),
        "metaInfo": {"udf1": request.payment_id[:LONGEST_UDF], "udf2": request.order_id[:LONGEST_UDF]},
        "paymentFlow": {"type": "PG_CHECKOUT", "merchantUrls": {"redirectUrl": request.return_url}},
    }
    return body if retry_on_page else {**body, "disablePaymentRetry": True}


def read_session(body: Json, reference: str) -> Session:
    """Raises UnexpectedShape. The page's host is PhonePe's to choose, and is not compared with a list."""
    url, order_id = optional_web_address(body, "redirectUrl"), identifier_of(body, "orderId")
    if url is None:
        raise UnexpectedShape("there is no page")
    opened = Observation(FactKind.SESSION_OPENED, reference)
    page = NextAction("redirect", url)
    return Session(reference, page, moment_of(body, "expireAt"), (reference, order_id), (opened,))


def _expire_after(request: CreateSession) -> int:
    wanted = request.expires_at - request.attempted_at
    return int(min(max(wanted, SHORTEST_PAGE), LONGEST_PAGE).total_seconds())
