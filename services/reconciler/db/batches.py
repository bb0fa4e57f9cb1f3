"""A stream of rows in batches, read ahead while the batch before is worked on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

AHEAD_BYTES = 16 * 1024 * 1024


async def batches_of(pieces: AsyncIterator[bytes], *, rows: int) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Batches of whole rows (each ends with a newline), at least ``rows`` of them but in the last batch.

    ``pieces`` end where they happen to. The next batch is asked for when the one before has been read to its end.
    Raises what ``pieces`` raises, from within a batch.
    """
    ahead = _Ahead(pieces)
    try:
        while not await ahead.ended():
            async with aclosing(_batch(ahead, rows)) as batch:
                yield batch
    finally:
        await ahead.stop()


async def _batch(ahead: _Ahead, rows: int) -> AsyncGenerator[bytes]:
    left = rows
    while left > 0 and not await ahead.ended():
        piece = await ahead.take()
        left -= piece.count(b"\n")
        if left <= 0:
            end = piece.rfind(b"\n") + 1
            ahead.put_back(piece[end:])
            piece = piece[:end]
        yield piece


class _Ahead:
    """Reads on, up to a bound, while nobody takes."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._held: deque[bytes] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name="settlement-lines")

    async def ended(self) -> bool:
        """Waits until that is known. Raises what reading raised, once what came before it was taken."""
        while not self._held:
            if self._reading.done():
                self._reading.result()
                return True
            self._changed.clear()
            await self._changed.wait()
        return False

    async def take(self) -> bytes:
        piece = self._held.popleft()
        self._bytes -= len(piece)
        self._changed.set()
        return piece

    def put_back(self, rest: bytes) -> None:
        if rest:
            self._held.appendleft(rest)
            self._bytes += len(rest)

    async def stop(self) -> None:
        self._reading.cancel()
        with suppress(BaseException):
            await self._reading

    async def _read(self) -> None:
        try:
            async for piece in self._pieces:
                while self._bytes > AHEAD_BYTES:
                    self._changed.clear()
                    await self._changed.wait()
                if piece:
                    self._held.append(piece)
                    self._bytes += len(piece)
                    self._changed.set()
        finally:
            self._changed.set()
