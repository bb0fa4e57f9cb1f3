"""``GET /api/v1/events?after=``: how a consumer catches up with what it missed, from the events' owner."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from shared.db.outbox import events_after
from shared.db.session import Database
from shared.errors import InvalidRequest
from shared.web.auth import Principal, RequireScope
from shared.web.problems import problem_responses

_CURSOR = re.compile(r"^(\d{1,18})\.(\d{1,18})$")


class EventPage(BaseModel):
    """CloudEvents in the order of their commits. Pass ``next_cursor`` as ``after`` to go on; it is always set."""

    data: list[dict[str, Any]]
    next_cursor: str


def events_router(database: Database, *, service: str) -> APIRouter:
    """The route under both its names: the second tells services apart where a proxy puts them on one port."""
    router = APIRouter(tags=["events"])

    async def list_events(
        _principal: Annotated[Principal, Depends(RequireScope("events:read"))],
        after: Annotated[str | None, Query(max_length=40, description="next_cursor of the page before")] = None,
        type: Annotated[list[str] | None, Query(max_length=50, description="only these event types")] = None,  # noqa: A002
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> EventPage:
        transaction_id, position = _parse(after)
        async with database.begin() as connection:
            rows = await events_after(
                connection, transaction_id=transaction_id, position=position, types=type, limit=limit
            )
        if rows:
            transaction_id, position = rows[-1][:2]
        return EventPage(data=[json.loads(body) for _, _, body in rows], next_cursor=f"{transaction_id}.{position}")

    responses = problem_responses(401, 403, 422, 503)
    for path in ("/api/v1/events", f"/api/v1/events/{service.replace('_', '-')}"):
        router.add_api_route(path, list_events, methods=["GET"], response_model=EventPage, responses=responses)
    return router


def _parse(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequest("after is not a cursor of this endpoint")
    return int(match.group(1)), int(match.group(2))
