"""``payrail events``: watch events, and deal with those that a consumer gave up on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.cli.errors import CommandError, explained

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

app = typer.Typer(help="Watch events; list and redrive those that were given up on.", no_args_is_help=True)
console = Console(stderr=True, highlight=False)
output = Console(highlight=False, soft_wrap=True)

POLL_SECONDS = 1.0


@app.command()
def tail(
    service: Annotated[str, typer.Option(help="whose events")] = "payment-service",
    url: Annotated[str, typer.Option(envvar="PAYRAIL_URL", help="where the installation is")] = "http://127.0.0.1:8000",
    token: Annotated[str | None, typer.Option(envvar="PAYRAIL_TOKEN", help="a token with events:read")] = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="only these types; repeat it")] = None,
    after: Annotated[str | None, typer.Option(help="a cursor to go on from; by default everything")] = None,
    follow: Annotated[bool, typer.Option(help="keep waiting for new ones")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="whole envelopes, one a line")] = False,
) -> None:
    """Print events as they happen. Without --token, the operator token that `make run` has written is used."""
    with explained():
        bearer = token or _development_token()
        asyncio.run(_tail(service, url.rstrip("/"), bearer, type_ or [], after, follow=follow, as_json=as_json))


@app.command()
def dead(service: Annotated[str, typer.Argument(help="e.g. order-service")], limit: int = 100) -> None:
    """List the messages that a service's consumers gave up on (from its database)."""
    with explained():
        rows = asyncio.run(_dead(service, limit))
    table = Table("consumer", "message", "type", "attempts", "error")
    for consumer, message_id, attempts, error, body in rows:
        table.add_row(consumer, message_id, _type_of(body), str(attempts), (error or "")[:100])
    output.print(table)


@app.command()
def redrive(
    service: Annotated[str, typer.Argument(help="e.g. order-service")],
    message_id: Annotated[str | None, typer.Option(help="only this message")] = None,
) -> None:
    """Apply given-up messages again, here and now, with the service's own handlers. Safe to repeat.

    Those that only lie in the broker's dead-letter queues are among them.
    """
    with explained():
        done, failed = asyncio.run(_redrive(service, message_id))
    console.print(f"{done} applied, {failed} failed again")
    if failed:
        raise typer.Exit(1)


async def _tail(
    service: str, url: str, bearer: str, types: list[str], after: str | None, *, follow: bool, as_json: bool
) -> None:
    from shared.http import CallPolicy, HttpCaller, build_http_client
    from shared.ports import system_ports

    ports = system_ports()
    policy = CallPolicy(budget_seconds=10, repeatable=True)
    query = "".join(f"&type={each}" for each in types)
    async with build_http_client(ports) as client:
        caller = HttpCaller(client, ports)
        while True:
            cursor = f"&after={after}" if after else ""
            address = f"{url}/api/v1/events/{service}?limit=500{query}{cursor}"
            answer = await caller.send("GET", address, policy=policy, headers={"authorization": f"Bearer {bearer}"})
            page = json.loads(answer.body)
            if answer.status != 200:
                raise CommandError(f"{url} answered {answer.status}: {page.get('detail', '')}")
            for event in page["data"]:
                _print_event(event, as_json=as_json)
            before, after = after, page["next_cursor"]
            if not page["data"] and after == before:
                if not follow:
                    return
                await ports.clock.sleep(POLL_SECONDS)


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(event))
        return
    data = event["data"]
    amount = data.get("amount", data.get("total"))
    money = f" {amount} {data['currency']}" if amount is not None else ""
    what = f"{event['subject']} #{event['sequence']}  {data.get('status', '')}{money}"
    output.print(f"{event['time']}  [bold]{event['type']}[/]  {what}")


async def _dead(service: str, limit: int) -> list[tuple[str, str, int, str | None, bytes]]:
    from shared.db.inbox import dead_messages

    async with built_service(service) as container, container.database.begin() as connection:
        return await dead_messages(connection, limit=limit)


async def _redrive(service: str, message_id: str | None) -> tuple[int, int]:
    from shared.db.inbox import dead_messages
    from shared.messaging.bus import BusMessage
    from shared.messaging.consumer import Consumer, Handled

    done = failed = 0
    async with built_service(service) as container:
        await _keep_letters(container)
        consumers = {each.queue.name: Consumer(each, container.ports.clock) for each in container.bus.subscriptions}
        async with container.database.begin() as connection:
            await _take_batches_apart(connection)
            rows = await dead_messages(connection, limit=10_000)
        for consumer, each, _attempts, _error, body in rows:
            if message_id not in (None, each) or consumer not in consumers:
                continue
            result, _ = await consumers[consumer].handle(BusMessage(each, _type_of(body), "", body))
            done, failed = (done + 1, failed) if result is Handled.DONE else (done, failed + 1)
        await _clear_copies(container)
    return done, failed


async def _take_batches_apart(connection: AsyncConnection) -> None:
    """A consumer of a release that knew no batches has given up on whole ones, each as if it were one message."""
    from shared.db.inbox import Inbox, InboxClaim, dead_messages, keep_as_dead
    from shared.messaging.batches import split

    for consumer, message_id, _attempts, _error, body in await dead_messages(connection, limit=10_000):
        events = [(_id_of(part), part) for part in split(body, None) or ()]
        if not events or not all(event_id for event_id, _ in events):
            continue
        for event_id, part in events:
            claim = InboxClaim(consumer, event_id)
            await keep_as_dead(connection, claim, body=part, error=f"it was in {message_id}")
        await Inbox(connection).claim(InboxClaim(consumer, message_id))


async def _keep_letters(container: Any) -> None:
    """What the broker gave up on by itself, after BROKER_DELIVERY_LIMIT deliveries, lies only with it until now."""
    from shared.db.inbox import InboxClaim, keep_as_dead
    from shared.messaging.broker import BROKER_ERRORS
    from shared.messaging.bus import BusMessage
    from shared.messaging.dead_letters import keep_dead_letters

    url = container.settings.rabbitmq_url
    if url is None:
        return
    for subscription in container.bus.subscriptions:
        consumer = subscription.queue.name

        async def keep(message: BusMessage, consumer: str = consumer) -> None:
            claim, error = InboxClaim(consumer, message.message_id), "the broker stopped delivering it"
            async with container.database.begin() as connection:
                await keep_as_dead(connection, claim, body=message.body, error=error)

        try:
            await keep_dead_letters(url.get_secret_value(), subscription.queue, keep=keep)
        except BROKER_ERRORS as error:
            console.print(f"{subscription.queue.dead_letter_queue} cannot be read now ({type(error).__name__})")


async def _clear_copies(container: Any) -> None:
    """Of what is applied now, the broker needs to keep no dead letter. Without a broker there is none."""
    from shared.db.inbox import InboxClaim, is_done
    from shared.messaging.dead_letters import clear_dead_letters

    url = container.settings.rabbitmq_url
    if url is None:
        return
    for subscription in container.bus.subscriptions:
        consumer = subscription.queue.name

        async def applied(message_id: str, consumer: str = consumer) -> bool:
            async with container.database.begin() as connection:
                return await is_done(connection, InboxClaim(consumer, message_id))

        await clear_dead_letters(url.get_secret_value(), subscription.queue, is_done=applied)


def built_service(service: str) -> Any:
    """A service's container, with its own settings, for work on its database."""
    from contextlib import asynccontextmanager

    from deploy.catalogue import SERVICES
    from shared.messaging.in_process import InProcessBus
    from shared.ports import system_ports
    from shared.settings import settings_for

    entry = SERVICES.get(service.replace("_", "-"))
    if entry is None:
        raise CommandError(f"there is no service {service!r}; there are {', '.join(SERVICES)}")

    @asynccontextmanager
    async def built() -> Any:
        ports = system_ports()
        settings = entry.settings.load(**settings_for(entry.package))
        # The in-process bus only collects the handlers; what they publish goes through the outbox as always.
        async with entry.build(settings, ports=ports, bus=InProcessBus(ports.clock)) as container:
            yield container

    return built()


def _type_of(body: bytes) -> str:
    try:
        read = json.loads(body)
    except ValueError:
        return "?"
    return str(read.get("type", "?")) if isinstance(read, dict) else "several events"


def _id_of(part: bytes) -> str:
    read = json.loads(part)
    return str(read.get("id", "")) if isinstance(read, dict) else ""


def _development_token() -> str:
    import os

    path = Path(os.environ.get("PAYRAIL_DATA", ".payrail")) / "operator.token"
    if not path.exists():
        raise CommandError(
            f"pass --token (see `payrail token --help`); {path} does not exist because `make run` is not up here"
        )
    return path.read_text(encoding="utf-8").strip()
