"""``payrail contracts``: the event contract's documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.cli.errors import EXIT_FAILURE, CommandError, explained

app = typer.Typer(help="AsyncAPI document and JSON Schemas of the events.", no_args_is_help=True)
console = Console(stderr=True, highlight=False)

Directory = Annotated[Path, typer.Option(help="where the documents are")]
DEFAULT_DIRECTORY = Path("docs/contracts")


@app.command()
def write(
    directory: Directory = DEFAULT_DIRECTORY,
    allow_breaking: Annotated[bool, typer.Option(help="write even what would break existing consumers")] = False,
) -> None:
    """Generate the documents from the event models. A change that breaks consumers is refused."""
    from shared.contracts import documents

    with explained():
        try:
            changed = documents.write(directory, allow_breaking=allow_breaking)
        except documents.ContractWouldBreak as error:
            raise CommandError(f"{error}\nmake a new version of the type, or pass --allow-breaking") from None
    console.print(f"{len(changed)} documents written to {directory}")


@app.command()
def check(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Compare the committed documents with the models; exit 1 on drift."""
    from shared.contracts import documents

    with explained():
        found = documents.differences(directory)
    for line in found:
        console.print(line)
    if found:
        console.print("run `payrail contracts write` and commit the result")
        raise typer.Exit(EXIT_FAILURE)
    console.print("the documents agree with the models")
