"""Many events in one message: ``application/cloudevents-batch+json``, an array of envelopes byte for byte as stored.

Each envelope has a line of its own, so that a message of ours is taken apart without being parsed as a whole: one
envelope that is broken then costs itself and none of its neighbours. Anybody else's array is read as any JSON is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from shared.clock import Clock
from shared.contracts.envelope import BATCH_CONTENT_TYPE, CONTENT_TYPE
from shared.errors import BusUnavailable
from shared.messaging.bus import (
    EVENTS_PER_BATCH,
    PUBLISHING_SECONDS,
    BusMessage,
    MessageNotAccepted,
    NotBegun,
)

BYTES_PER_BATCH = 128 * 1024

COUNT_HEADER = "x-payrail-events"
"""On each batch of ours: how many lines there are. A message without it is not taken apart by lines."""

Outcome = BusUnavailable | None
"""None: the message is safe on the bus."""


def pack(messages: Sequence[BusMessage]) -> list[list[BusMessage]]:
    """Groups of one type, in the order given, each bounded in events and bytes; what cannot be joined is by itself."""
    packs: list[list[BusMessage]] = []
    open_packs: dict[str, tuple[list[BusMessage], int]] = {}
    for message in messages:
        if not _can_be_joined(message):
            packs.append([message])
            continue
        current, size = open_packs.get(message.type, (None, 0))
        if current is None or len(current) >= EVENTS_PER_BATCH or size + len(message.body) > BYTES_PER_BATCH:
            current, size = [], 0
            packs.append(current)
        current.append(message)
        open_packs[message.type] = (current, size + len(message.body))
    return packs


def _can_be_joined(message: BusMessage) -> bool:
    """Whether the body looks like one object on one line that carries the message's id, which is its id in an array."""
    body = message.body
    return body[:1] == b"{" and body[-1:] == b"}" and b"\n" not in body and f'"{message.message_id}"'.encode() in body


def join(bodies: Sequence[bytes]) -> bytes:
    return b"[\n" + b",\n".join(bodies) + b"\n]"


def batch_id(messages: Sequence[BusMessage]) -> str:
    """The same for the same events, whoever joins them."""
    ids = "\n".join(message.message_id for message in messages)
    return f"batch:{hashlib.blake2b(ids.encode(), digest_size=16).hexdigest()}"


def content_type_of(messages: Sequence[BusMessage]) -> str:
    return CONTENT_TYPE if len(messages) == 1 else BATCH_CONTENT_TYPE


def split(body: bytes, count: object) -> list[bytes] | None:
    """The envelopes of a batch, ``count`` being its header; None for what is no array at all.

    Whether each of them is an envelope is for whoever reads it to say.
    """
    if isinstance(count, int) and body.startswith(b"[\n") and body.endswith(b"\n]"):
        lines = body[2:-2].split(b",\n")
        if len(lines) == count:
            return lines
    try:
        array = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(array, list):
        return None
    return [json.dumps(each, ensure_ascii=False).encode(errors="replace") for each in array]


async def in_waves(
    messages: Sequence[BusMessage],
    publish_wave: Callable[[Sequence[BusMessage]], Awaitable[Sequence[Outcome]]],
    clock: Clock,
) -> list[Outcome]:
    """Publish each subject's messages in the order given: the first of each subject, then the second of each.

    A wave follows when the one before it has its answers, so that a subject whose message was refused is held back from
    there on. An outage ends it all: what is left gets its error. So does the time that a claim may take.
    """
    until = clock.monotonic() + PUBLISHING_SECONDS
    outcomes: list[Outcome] = [None] * len(messages)
    waves: list[list[int]] = []
    seen: dict[str, int] = defaultdict(int)
    for index, message in enumerate(messages):
        if seen[message.subject] == len(waves):
            waves.append([])
        waves[seen[message.subject]].append(index)
        seen[message.subject] += 1
    stopped: dict[str, BusUnavailable] = {}
    outage: BusUnavailable | None = None
    for wave in waves:
        if outage is None and clock.monotonic() > until:
            outage = NotBegun()
        for index in wave:
            outcomes[index] = stopped.get(messages[index].subject, outage)
        going = [index for index in wave if outcomes[index] is None]
        answers = await publish_wave([messages[index] for index in going]) if going else []
        for index, answer in zip(going, answers, strict=True):
            outcomes[index] = answer
            if isinstance(answer, MessageNotAccepted):
                stopped[messages[index].subject] = answer
            elif answer is not None:
                outage = outage or answer
    return outcomes


async def side_by_side(calls: Sequence[Awaitable[Sequence[Outcome]]]) -> list[Outcome]:
    """The outcomes of several groups, one after the other; a single group needs no task of its own."""
    if len(calls) == 1:
        return list(await calls[0])
    return [outcome for outcomes in await asyncio.gather(*calls) for outcome in outcomes]
