"""The HTTP process of webhook_ingest, which dies as `kill -9` would have it at the step that its argument names.

``python -m tests.integration.webhook_ingest.crashing_service <port> <step>``, settings in the environment. How much of
each of the spool's files was synced is noted beside it: a test can take away the rest, as a power failure does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

from services.webhook_ingest.bootstrap import build
from services.webhook_ingest.db.delivery_writer import DeliveryWriter
from services.webhook_ingest.db.spool import Spool
from services.webhook_ingest.main import create_application, serve_background
from services.webhook_ingest.settings import WebhookIngestSettings
from shared.messaging.in_process import InProcessBus
from shared.ports import system_ports

EXIT_CODE = 86


def die(*_arguments: object) -> Any:
    os._exit(EXIT_CODE)


def _dying_after(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def do_and_die(*arguments: Any, **named: Any) -> Any:
        await method(*arguments, **named)
        die()

    return do_and_die


def _noting_sync(descriptor: int) -> None:
    os.fdatasync(descriptor)
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    Path(f"{path}.synced").write_text(str(path.stat().st_size))


def arm(step: str) -> None:
    defaults: Any = Spool.__init__.__kwdefaults__
    defaults["sync"] = die if step == "before the fsync" else _noting_sync
    if step == "before the statement":
        setattr(DeliveryWriter, "_insert", die)  # noqa: B010
    elif step == "after the commit":
        setattr(DeliveryWriter, "write", _dying_after(DeliveryWriter.write))  # noqa: B010
    elif step == "after the fsync":
        setattr(Spool, "append", _dying_after(Spool.append))  # noqa: B010
    elif step == "before the deletion":
        setattr(Spool, "delete", die)  # noqa: B010
    else:
        assert step in ("never", "before the fsync"), step


async def main(port: int) -> None:
    ports = system_ports()
    async with build(WebhookIngestSettings.load(), ports=ports, bus=InProcessBus(ports.clock)) as container:
        config = uvicorn.Config(create_application(container), port=port, log_config=None, lifespan="off")
        background = asyncio.create_task(serve_background(container))
        await uvicorn.Server(config).serve()
        background.cancel()


if __name__ == "__main__":
    arm(sys.argv[2])
    asyncio.run(main(int(sys.argv[1])))
