"""``GET /api/v1/events?after=``: how a consumer catches up with what it missed, from the events' owner."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from shared.db.outbox import read_events
from shared.db.retention import OUTBOX, newest_deleted
from shared.db.session import Database
from shared.errors import CursorExpired, InvalidRequest
from shared.web.auth import Principal, RequireScope
from shared.web.problems import problem_responses

_CURSOR = re.compile(r"^(\d{1,18})\.(\d{1,18})$")


class EventPage(BaseModel):
    """CloudEvents in the order of their commits. Pass ``next_cursor`` as ``after`` to go on; it is always set.

    The end is where a page is empty and its cursor is the one that was given: asked for rare types, a page may be empty
    because it looked at as many others as it may.
    """

    data: list[dict[str, Any]]
    next_cursor: str
    deleted_until: str | None = Field(
        None, description="events up to this cursor are not kept any more (EVENT_RETENTION_DAYS); absent: all are"
    )


def events_router(database: Database, *, service: str) -> APIRouter:
    """The route under both its names: the second tells services apart where a proxy puts them on one port."""
    router = APIRouter(tags=["events"])

    async def list_events(
        _principal: Annotated[Principal, Depends(RequireScope("events:read"))],
        after: Annotated[
            str | None,
            Query(max_length=40, description="next_cursor of the page before; without it, from the oldest kept on"),
        ] = None,
        type: Annotated[list[str] | None, Query(max_length=50, description="only these event types")] = None,  # noqa: A002
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> EventPage:
        given = None if after is None else _parse(after)
        async with database.begin() as connection:
            # Single events older than the newest deleted one may be left, but a cursor among them would be refused.
            cursor = given or _cursor_of(await newest_deleted(connection, OUTBOX))
            read = await read_events(connection, cursor=cursor, types=type, limit=limit)
            # After the events: what was deleted while they were read is known here.
            deleted = _cursor_of(await newest_deleted(connection, OUTBOX))
        if after is not None and cursor < deleted:
            raise CursorExpired
        end = read.cursor if after is not None else max(read.cursor, deleted)
        return EventPage(
            data=[json.loads(body) for _, _, body in read.events],
            next_cursor=_text(end),
            deleted_until=_text(deleted) if any(deleted) else None,
        )

    responses = problem_responses(401, 403, 410, 422, 503)
    for path in ("/api/v1/events", f"/api/v1/events/{service.replace('_', '-')}"):
        router.add_api_route(
            path,
            list_events,
            methods=["GET"],
            response_model=EventPage,
            response_model_exclude_none=True,
            responses=responses,
        )
    return router


def _parse(cursor: str) -> tuple[int, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequest("after is not a cursor of this endpoint")
    return int(match.group(1)), int(match.group(2))


def _cursor_of(key: tuple[str, ...] | None) -> tuple[int, int]:
    return (0, 0) if key is None else (int(key[0]), int(key[1]))


def _text(cursor: tuple[int, int]) -> str:
    return f"{cursor[0]}.{cursor[1]}"
