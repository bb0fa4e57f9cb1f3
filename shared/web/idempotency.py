"""``Idempotency-Key`` at the edge: claim, run, store, replay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi.responses import JSONResponse

from shared.db.idempotency import IdempotencyClaim, IdempotencyStore, StoredAnswer, fingerprint_of
from shared.errors import DatabaseUnavailable

REPLAYED_HEADER = "Idempotent-Replayed"

Operation = Callable[[IdempotencyClaim | None], Awaitable[StoredAnswer]]


async def answer_once(
    store: IdempotencyStore, *, key: str | None, caller: str, route: str, request: Any, operation: Operation
) -> JSONResponse:
    """Run ``operation`` at most once per key and replay its answer afterwards, marked ``Idempotent-Replayed: true``.

    The operation gets the claim, so that it can complete it in its own transaction (``complete(connection=...)``); that
    has committed when the operation returns that answer, and any other answer is stored here. Without a key it simply
    runs. When it raises, the key is free again.
    """
    if key is None:
        return _response(await operation(None))
    claim = await store.begin(caller=caller, route=route, key=key, fingerprint=fingerprint_of(request))
    if isinstance(claim, StoredAnswer):
        return _response(claim, replayed=True)
    try:
        answer = await operation(claim)
        if answer not in claim.completed:
            await store.complete(claim, answer)
    except BaseException:
        with suppress(DatabaseUnavailable):  # the claim runs out by itself
            await store.abandon(claim)
        raise
    return _response(answer)


def _response(answer: StoredAnswer, *, replayed: bool = False) -> JSONResponse:
    headers = dict(answer.headers) | ({REPLAYED_HEADER: "true"} if replayed else {})
    return JSONResponse(answer.body, status_code=answer.status, headers=headers)
