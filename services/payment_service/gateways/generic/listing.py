"""The sessions of a window of time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.payment_service.gateways.generic.api import READ, GenericApi, data_of
from services.payment_service.gateways.generic.reading import snapshot_of
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    moment_of,
    object_of,
    optional_identifier,
)
from services.payment_service.gateways.listing import said
from services.payment_service.gateways.port import Listed, ListPage
from shared.clock import to_rfc3339
from shared.errors import GatewayOutcomeUnknown


async def sessions_of_window(api: GenericApi, since: datetime, until: datetime, cursor: str | None) -> ListPage:
    query = {"created_from": to_rfc3339(since), "created_before": to_rfc3339(until)}
    body = await api.call("GET", "/v1/sessions", READ, query=query | ({"cursor": cursor} if cursor else {}))
    try:
        return ListPage(tuple(map(_listed, data_of(body))), optional_identifier(body, "next_cursor"))
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("the gateway's list is not understood") from error


def _listed(session: Mapping[str, Any]) -> Listed:
    created_at = said(lambda: (moment_of(session, "created_at"),))
    return Listed(
        (identifier_of(session, "payment_id"),),
        said(lambda: _ours(session)),
        said(lambda: snapshot_of(session).observations),
        created_at[0] if created_at else None,
    )


def _ours(session: Mapping[str, Any]) -> tuple[str, ...]:
    metadata = object_of(session, "metadata")
    found = (optional_identifier(session, "reference"), optional_identifier(metadata, "payment_id"))
    return tuple(dict.fromkeys(reference for reference in found if reference))
