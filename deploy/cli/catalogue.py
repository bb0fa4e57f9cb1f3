"""``payrail catalogue``: products in and out of a shop, through its API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from deploy.cli.errors import CommandError, explained

app = typer.Typer(help="The shop's products.", no_args_is_help=True)
console = Console(stderr=True, highlight=False)

DEMO_CATALOGUE = Path(__file__).resolve().parents[1] / "local" / "catalogue.json"


@app.callback()
def _group() -> None:
    """Keeps `load` a subcommand."""


@app.command()
def load(
    file: Annotated[
        Path, typer.Argument(help="a JSON list of products, each with its sku", exists=True)
    ] = DEMO_CATALOGUE,
    url: Annotated[
        str, typer.Option(envvar="PAYRAIL_URL", help="where the order service is")
    ] = "http://127.0.0.1:8000",
    token: Annotated[str, typer.Option(envvar="PAYRAIL_TOKEN", help="a token with ops:write")] = "",
) -> None:
    """Create or change products. What is not in the file is left alone."""
    with explained():
        if not token:
            raise CommandError("pass --token with the scope ops:write; see `payrail token --help`")
        products = json.loads(file.read_text(encoding="utf-8"))
        asyncio.run(_load(products, url.rstrip("/"), token))
    console.print(f"{len(products)} products are in place")


async def _load(products: list[dict[str, Any]], url: str, token: str) -> None:
    from shared.http import CallPolicy, HttpCaller, build_http_client
    from shared.ports import system_ports

    ports = system_ports()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    async with build_http_client(ports) as client:
        caller = HttpCaller(client, ports)
        for product in track(products, "loading", console=console, transient=True):
            fields = {name: value for name, value in product.items() if name != "sku"}
            answer = await caller.send(
                "PUT",
                f"{url}/api/v1/products/{product['sku']}",
                policy=CallPolicy(budget_seconds=10, repeatable=True),
                headers=headers,
                content=json.dumps(fields).encode(),
            )
            if answer.status not in (200, 201):
                raise CommandError(f"{product['sku']} was refused with {answer.status}: {answer.body.decode()}")
