"""Background tasks that are watched: when one dies, the process ends with the reason and is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

log = structlog.get_logger()

Job = Callable[[], Awaitable[None]]


async def supervise(jobs: Mapping[str, Job]) -> None:
    """Run all jobs until cancelled. One that fails, or just returns, takes the others and this call down (L14)."""
    async with asyncio.TaskGroup() as group:
        for name, job in jobs.items():
            group.create_task(_must_not_end(name, job), name=name)


def end_if_cancelled() -> None:
    """For loops that catch errors: a cancellation may arrive dressed as one.

    A TaskGroup that is cancelled while one of its tasks fails raises the failure alone, and aiormq turns a cancellation
    that meets a closing channel into its own error. A loop that went on then would never hear of its end again.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _must_not_end(name: str, job: Job) -> None:
    try:
        await job()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody asked for it: a library's cancelled future came through. A TaskGroup would take it for a quiet end.
        log.exception("background_task_died", task=name)
        raise RuntimeError(f"background task {name} was cancelled by nobody") from error
    except BaseException:
        log.exception("background_task_died", task=name)
        raise
    raise RuntimeError(f"background task {name} ended")
