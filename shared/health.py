"""Readiness: each dependency is asked with a time limit, and the answer names the one that is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from shared.errors import PayrailError

log = structlog.get_logger()

CHECK_TIMEOUT_SECONDS = 3.0

Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """``essential`` components make the service not ready; others (a broker behind an outbox) only degrade it."""

    name: str
    ok: bool
    detail: str
    essential: bool


@dataclass(frozen=True, slots=True)
class HealthCheck:
    name: str
    check: Check
    essential: bool = True


async def check_all(checks: Mapping[str, HealthCheck]) -> list[ComponentHealth]:
    return list(await asyncio.gather(*(_run(check) for check in checks.values())))


async def _run(check: HealthCheck) -> ComponentHealth:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check.check()
        return ComponentHealth(check.name, ok=True, detail="ok", essential=check.essential)
    except PayrailError as error:
        detail = error.detail
    except TimeoutError:
        detail = f"no answer within {CHECK_TIMEOUT_SECONDS:.0f} s"
    except Exception as error:
        # A wrong password is no PayrailError, and readiness must name the component all the same.
        log.warning("health_check_failed", component=check.name, exc_info=True)
        detail = type(error).__name__
    return ComponentHealth(check.name, ok=False, detail=detail, essential=check.essential)
