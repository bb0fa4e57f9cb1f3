"""Errors of the command line: one sentence that says what to do, and no traceback for what is not our bug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from deploy.cli.plain import plain_lines
from shared.errors import PayrailError
from shared.settings import ConfigurationError

EXIT_USAGE = 2
EXIT_FAILURE = 1


class CommandError(Exception):
    """The command cannot be carried out; the text says what to do instead."""


class CommandFailed(PayrailError):
    """The command failed; the text says why, and what to do next."""

    code = "command_failed"


@contextmanager
def explained() -> Iterator[None]:
    """Turn expected trouble into a sentence on standard error and an exit status."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        yield
    except (CommandError, ConfigurationError) as error:
        console.print("[bold red]error:[/]", Text(plain_lines(error)))
        raise typer.Exit(EXIT_USAGE) from None
    except PayrailError as error:
        console.print("[bold red]error:[/]", Text(plain_lines(error)))
        raise typer.Exit(EXIT_FAILURE) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
