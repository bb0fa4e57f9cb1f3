"""Money calls whose answer is not the last word: before a refusal or a stored failure is believed, look.

For gateways with idempotency keys that store an answer of 500 too, and say so when they replay it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.payment_service.gateways.port import KeyUsedUp, Outcome
from shared.errors import GatewayError, GatewayOutcomeUnknown, GatewayRejected, GatewayServerError

STORED_FAILURE = 500
"""Other 5xx come from what stands before a gateway and say nothing about the key."""

Found = TypeVar("Found")
Look = Callable[[], Awaitable[Outcome | None]]


async def answer_or_look(
    send: Callable[[], Awaitable[Outcome]], look: Look, *, may_be_done: Callable[[GatewayRejected], bool]
) -> Outcome:
    """What ``send`` answers. Where it is refused as if it had been done already, or its key only replays a stored
    failure, what ``look`` finds.

    Only a failure that is marked as a replay uses the key up: then the first run has ended, and finding nothing proves
    that it did nothing. A first 500 may come from something that is still at work.
    """
    try:
        return await send()
    except GatewayServerError as error:
        if error.gateway_status != STORED_FAILURE or not error.is_replay:
            raise
        found = await certain(look)
        if found is None:
            raise KeyUsedUp("a failure is stored under this key, and nothing ran") from error
        return found
    except GatewayRejected as error:
        found = await certain(look) if may_be_done(error) else None
        if found is None:
            raise
        return found


async def found_or_refused(refusal: GatewayRejected, look: Look) -> Outcome:
    """What is there after a refusal that may be about an earlier call of ours; else the refusal itself.

    Where an earlier try of the same call had no answer, nothing found is no proof: it may still be at work.
    """
    found = await certain(look)
    if found is not None:
        return found
    if refusal.after_silence:
        raise GatewayOutcomeUnknown("refused, but an earlier try had no answer") from refusal
    raise refusal


async def certain(look: Callable[[], Awaitable[Found]]) -> Found:
    """A look that fails leaves the outcome of the call before it unknown, whatever kept us from looking."""
    try:
        return await look()
    except GatewayOutcomeUnknown:
        raise
    except GatewayError as error:
        raise GatewayOutcomeUnknown("what became of the call could not be asked") from error
