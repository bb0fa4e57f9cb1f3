"""The gateways' own APIs: everything under ``/sandbox/<gateway>/`` that is neither the page nor the control API."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from services.gateway_sandbox.api.dependencies import SandboxDependency
from services.gateway_sandbox.gateways.port import WireAnswer, WireCall
from services.gateway_sandbox.use_cases.answer_call import answer_call
from shared.clock import Clock

router = APIRouter(prefix="/sandbox", include_in_schema=False)


@router.api_route("/{gateway}/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def call_gateway(gateway: str, path: str, request: Request, sandbox: SandboxDependency) -> Response:
    call = WireCall(
        method=request.method,
        path="/" + path,
        headers={name.lower(): value for name, value in request.headers.items()},
        query=request.query_params.multi_items(),
        body=await request.body(),
    )
    answer = await answer_call(gateway, call, sandbox)
    if answer.hold_seconds is not None:
        return BrokenOff(answer, sandbox.ports.clock)
    return Response(answer.body, answer.status, dict(answer.headers))


class BrokenOff(Response):
    """Keeps the caller waiting and then closes the connection in the middle of the answer.

    ASGI has no word for hanging up, but a server closes a connection whose body stays shorter than announced, and the
    caller's client then reports a broken protocol: it cannot know what became of its request.
    """

    def __init__(self, answer: WireAnswer, clock: Clock) -> None:
        super().__init__(answer.body, answer.status)
        self._seconds = answer.hold_seconds or 0.0
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        if await self._caller_waited(receive):
            announced = [(b"content-length", str(len(self.body) + 1).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": announced})

    async def _caller_waited(self, receive: Receive) -> bool:
        """False when the caller went away first."""
        holding = asyncio.ensure_future(self._clock.sleep(self._seconds))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((holding, leaving), return_when=asyncio.FIRST_COMPLETED)
            return not leaving.done()
        finally:
            holding.cancel()
            leaving.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
