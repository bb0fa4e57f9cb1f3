"""The disputes of a payment. There is no list of one payment's, so those since it was made are gone through.

They are told beside the payment, so whatever keeps us from reading them withholds nothing of the payment itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import structlog

from services.payment_service.domain.models import Observation
from services.payment_service.gateways.json_reading import UnexpectedShape, moment_of, optional_identifier
from services.payment_service.gateways.listing import code_of, said
from services.payment_service.gateways.tabby.api import Json, TabbyApi
from services.payment_service.gateways.tabby.reading import list_of, observation_of_dispute
from shared.clock import to_rfc3339
from shared.errors import GatewayError, GatewayOutcomeUnknown

log = structlog.get_logger()

MOST_PAGES = 20


async def disputes_of(api: TabbyApi, payment_id: str, payment: Json) -> list[Observation]:
    """Those that can be read; the others are asked for again with the payment."""
    found: list[Observation] = []
    try:
        async for dispute in _disputes_since(api, payment):
            if dispute.get("payment_id") == payment_id:
                found += said(partial(_read, dispute))
    except (GatewayError, UnexpectedShape) as error:
        log.warning("tabby_disputes_not_listed", code=code_of(error))
    return found


async def _disputes_since(api: TabbyApi, payment: Json) -> AsyncIterator[Json]:
    since = moment_of(payment, "created_at")
    query = {"created_at_gte": to_rfc3339(since)} if since is not None else {}
    token = ""
    for _ in range(MOST_PAGES):
        body = await api.get("/api/v1/disputes", query | ({"page_token": token} if token else {}))
        for dispute in list_of(body, "disputes"):
            if isinstance(dispute, dict):
                yield dispute
        token = optional_identifier(body, "next_page_token") or ""
        if not token:
            return
    raise GatewayOutcomeUnknown("Tabby's list of disputes is too long to look through")


def _read(dispute: Json) -> tuple[Observation, ...]:
    observation = observation_of_dispute(dispute)
    return () if observation is None else (observation,)
