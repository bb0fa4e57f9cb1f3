"""What the reconciler pulls: streams of JSON lines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from services.payment_service.api.dependencies import PaymentsReader, UseCaseContext
from services.payment_service.use_cases.export_payments import export_parked_events, export_payments
from shared.contracts.exports import NDJSON
from shared.errors import InfrastructureError
from shared.web.moments import MomentIn
from shared.web.problems import problem_responses

log = structlog.get_logger()

router = APIRouter(prefix="/api/v1/exports", tags=["exports"])


def _responses(document: str) -> dict[int | str, dict[str, Any]]:
    lines = f'One `{{"{document}": …}}` a line; the last line is `{{"end": {{"count": n}}}}`, or the stream broke off'
    return {200: {"description": lines, "content": {NDJSON: {}}}, **problem_responses(401, 403, 422, 503)}


@router.get("/payments", response_class=StreamingResponse, responses=_responses("payment"))
async def stream_payments(
    context: UseCaseContext,
    _: PaymentsReader,
    updated_since: Annotated[
        MomentIn | None, Query(description="this time included; all, where it is left out")
    ] = None,
    updated_before: Annotated[MomentIn | None, Query(description="this time not included")] = None,
) -> StreamingResponse:
    """Payments with what moved at their gateway, the oldest change first. One that changes meanwhile may come twice.

    Times are taken shortly before a change is committed: begin a few minutes before the end of the last export.
    """
    return await _streamed(export_payments(context, since=updated_since, before=updated_before))


@router.get("/parked-events", response_class=StreamingResponse, responses=_responses("parked_event"))
async def stream_parked_events(context: UseCaseContext, _: PaymentsReader) -> StreamingResponse:
    """Verified webhooks that no payment claimed in time, or that nobody could read."""
    return await _streamed(export_parked_events(context))


async def _streamed(lines: AsyncGenerator[bytes]) -> StreamingResponse:
    """With the first page read already: what cannot even begin is a problem, and no stream that breaks off."""
    return StreamingResponse(_until_it_breaks(await anext(lines), lines), media_type=NDJSON)


async def _until_it_breaks(first: bytes, lines: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The status is sent by now; that the stream is not whole is told by the last line that is not there."""
    async with aclosing(lines):
        yield first
        try:
            async for more in lines:
                yield more
        except InfrastructureError as error:
            log.warning("export_broke_off", code=error.code)
