"""Structured logs: a static event name and fields, one JSON object a line, secrets and card numbers masked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from shared.correlation import add_correlation
from shared.masking import MASK, is_secret_name, mask_card_numbers
from shared.settings import ConfigurationError

LEVELS = ("debug", "info", "warning", "error")

_SMALLEST_CARD_NUMBER = 10**12
_MAX_NESTING = 8
_NEVER_LOGGED = frozenset({"body", "payload", "raw", "headers", "email", "customer", "phone", "address"})


def configure_logging(*, level: str, log_format: str, service: str) -> None:
    """Called once per process, before anything logs. Standard-library loggers (uvicorn, aiormq) go the same way.

    Raises ConfigurationError for a level that there is not.
    """
    if level not in LEVELS:
        raise ConfigurationError(f"LOG_LEVEL is one of {', '.join(LEVELS)}")
    shared_processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_correlation,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        mask_fields,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared_processors,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        # A line below the level is dropped by a method that does nothing, before anything is put together for it.
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in (
        "httpx",
        "httpcore",
        "aiormq",
        "aio_pika",
        "asyncio",
        "alembic",
        "uvicorn.access",
        "fontTools",
        "fpdf",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(service=service)


def mask_fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what must not be logged by its name, and mask card numbers in whatever remains (failures XS13, XS14)."""
    for name, value in list(event.items()):
        if name in _NEVER_LOGGED or is_secret_name(name):
            event[name] = MASK
        elif not name.startswith("_"):  # the logging library's own entries
            event[name] = _masked(value, 0)
    return event


def _masked(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        masked = mask_card_numbers(str(value)) if value > _SMALLEST_CARD_NUMBER else ""
        return masked if masked.startswith("[") else value
    if isinstance(value, str):
        return mask_card_numbers(value)
    if depth > _MAX_NESTING:
        return MASK
    if isinstance(value, Mapping):
        return {
            str(key): MASK if str(key) in _NEVER_LOGGED or is_secret_name(str(key)) else _masked(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item, depth + 1) for item in value]
    return mask_card_numbers(repr(value))
