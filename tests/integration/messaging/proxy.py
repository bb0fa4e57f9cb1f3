"""A TCP proxy in front of a server that can swallow what the server says, which is how a confirm is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._answers_pass = asyncio.Event()
        self._answers_pass.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    def hold_answers(self) -> None:
        """From now on nothing that the server sends arrives; what the client sends still does."""
        self._answers_pass.clear()

    def let_answers_pass(self) -> None:
        self._answers_pass.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back, held=False))
                group.create_task(self._pump(there, writer, held=True))
        except* OSError:
            pass
        finally:
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, held: bool) -> None:
        while data := await source.read(65536):
            if held:
                await self._answers_pass.wait()
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError("one side is done, so the other is too")


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.let_answers_pass()
        server.close()
        proxy.cut()
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await server.wait_closed()
