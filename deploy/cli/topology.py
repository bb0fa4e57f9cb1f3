"""``payrail topology``: the broker's exchanges and queues. The only place that declares them."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from deploy.cli.errors import CommandError, explained

app = typer.Typer(help="Exchanges, queues and bindings of the broker.", no_args_is_help=True)
console = Console(stderr=True, highlight=False)

RabbitMQUrl = Annotated[
    str, typer.Option(envvar="RABBITMQ_URL", help="amqp://user:password@host/vhost", show_default=False)
]


@app.command()
def apply(
    rabbitmq_url: RabbitMQUrl,
    consumer: Annotated[str | None, typer.Option(help="declare a queue of your own with this name instead")] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="event types or patterns (payment.#) for --consumer; repeat it")
    ] = None,
) -> None:
    """Declare everything that is missing. Repeating it changes nothing, and nothing is ever deleted."""
    import aiormq

    from shared.contracts.topology import QUEUES
    from shared.errors import InvalidRequest
    from shared.messaging.kit import consumer_queue
    from shared.messaging.rabbitmq import BROKER_ERRORS
    from shared.messaging.topology import apply_topology

    with explained():
        queues = list(QUEUES.values())
        if consumer is not None:
            try:
                queues = [consumer_queue(consumer, type_ or [])]
            except InvalidRequest as error:
                raise CommandError(error.detail) from None
        try:
            names = asyncio.run(apply_topology(rabbitmq_url, queues))
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            raise CommandError(f"a queue exists with other arguments; drain and delete it first: {error}") from None
        except BROKER_ERRORS as error:
            raise CommandError(f"the broker of RABBITMQ_URL cannot be used: {type(error).__name__}") from None
    console.print(f"{len(names)} queues are in place")


@app.command()
def show() -> None:
    """Print the queues, what is bound to them, and the waits between retries."""
    from rich.table import Table

    from shared.contracts.topology import MAX_ATTEMPTS, QUEUES, RETRY_DELAYS_SECONDS

    table = Table("queue", "event types")
    for queue in QUEUES.values():
        table.add_row(queue.name, "\n".join(queue.types))
    Console().print(table)
    console.print(
        f"retries after {', '.join(f'{each} s' for each in RETRY_DELAYS_SECONDS)}; dead after {MAX_ATTEMPTS} attempts"
    )
