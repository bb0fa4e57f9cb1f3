"""``payrail webhook send``: a signed sample delivery, as the gateway would send it; and ``payrail webhook spool``."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deploy.cli.errors import CommandError, explained
from deploy.cli.spool import spool

app = typer.Typer(help="Try the webhook endpoint, and look after its spool.", no_args_is_help=True)
console = Console(stderr=True, highlight=False)
app.command()(spool)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the sample is about. ``amount`` is in major units, as people write it."""

    event_id: str
    reference: str
    gateway_reference: str
    amount: str
    currency: str
    at: int


@app.command()
def send(
    gateway: Annotated[str, typer.Option(help="generic, stripe or razorpay")] = "generic",
    case: Annotated[str, typer.Option(help="see --list")] = "succeeded",
    reference: Annotated[
        str, typer.Option(help="ours: a payment id, an attempt reference or an order id")
    ] = "ord_unknown",
    gateway_reference: Annotated[
        str | None, typer.Option(help="theirs: cs_…, pi_…, pay_… or the generic gateway's id")
    ] = None,
    amount: Annotated[str, typer.Option(help="in major units, e.g. 12.500")] = "10.00",
    currency: Annotated[str, typer.Option(help="ISO 4217")] = "USD",
    event_id: Annotated[str | None, typer.Option(help="send the same one again to see it deduplicated")] = None,
    url: Annotated[str, typer.Option(envvar="PAYRAIL_URL", help="where the installation is")] = "http://127.0.0.1:8000",
    secret: Annotated[
        str | None, typer.Option(help="by default the gateway's …WEBHOOK_SECRET, or that of `make run`")
    ] = None,
    copies: Annotated[int, typer.Option(min=1, max=1000, help="how many times, all at once")] = 1,
    tamper: Annotated[bool, typer.Option(help="change the body after signing: it must be refused")] = False,
    list_: Annotated[bool, typer.Option("--list", help="list the cases")] = False,
) -> None:
    """Sign a sample delivery and post it to the ingest endpoint."""
    from shared.ports import system_ports

    with explained():
        if list_:
            for name, cases in SAMPLES.items():
                print(f"{name}: {', '.join(cases)}")
            return
        make = _sample_maker(gateway, case)
        ports = system_ports()
        sample = Sample(
            event_id or ports.ids.new("evt"),
            reference,
            gateway_reference or _REFERENCES[gateway],
            amount,
            currency.upper(),
            int(ports.clock.now().timestamp()),
        )
        body = make(sample)
        headers = _sign(gateway, body, secret or _secret_of(gateway))
        asyncio.run(
            _post(f"{url.rstrip('/')}/api/v1/webhooks/{gateway}", body + (b" " if tamper else b""), headers, copies)
        )


def _sample_maker(gateway: str, case: str) -> Callable[[Sample], bytes]:
    from services.webhook_ingest.signatures.registry import registrations

    if gateway not in SAMPLES and gateway in registrations():
        raise CommandError(
            f"there are no samples for {gateway}: what it sends has to fit a payment at the gateway. Have the sandbox "
            f"send a delivery: bring a payment to an outcome, by its page or by POST "
            f'/sandbox/control/{gateway}/sessions/<reference> with {{"outcome": "succeed"}}'
        )
    make = SAMPLES.get(gateway, {}).get(case)
    if make is None:
        raise CommandError(f"no case {case!r} for {gateway!r}; see `payrail webhook send --list`")
    return make


async def _post(url: str, body: bytes, headers: Mapping[str, str], copies: int) -> None:
    from shared.http import CallPolicy, HttpCaller, build_http_client
    from shared.ports import system_ports

    ports = system_ports()
    async with build_http_client(ports) as client:
        caller = HttpCaller(client, ports)
        policy = CallPolicy(budget_seconds=15, attempts=1)
        calls = [caller.send("POST", url, policy=policy, headers=headers, content=body) for _ in range(copies)]
        for answer in await asyncio.gather(*calls):
            print(answer.status, answer.body.decode())


def _sign(gateway: str, body: bytes, secret: str) -> dict[str, str]:
    from services.webhook_ingest.signatures.port import SigningSecret
    from services.webhook_ingest.signatures.registry import build_registry
    from services.webhook_ingest.signatures.schemes import HmacScheme
    from services.webhook_ingest.signatures.values import GatewayValues
    from shared.ports import system_ports

    ports = system_ports()
    # The other gateways' settings have no part in it: a mistake in one of them must not be in the way.
    own = {name: value for name, value in os.environ.items() if name.startswith(f"{gateway.upper()}_")}
    scheme = build_registry(GatewayValues(own | {_SECRETS[gateway]: secret}), production=False)[gateway].scheme
    assert isinstance(scheme, HmacScheme), "samples are made for gateways that sign with a shared secret"
    headers = scheme.sign(SigningSecret(secret), body, timestamp=ports.clock.now(), message_id=ports.ids.new("msg"))
    return {"content-type": "application/json", **headers}


def _secret_of(gateway: str) -> str:
    name = _SECRETS[gateway]
    given = os.environ.get(name)
    path = Path(os.environ.get("PAYRAIL_DATA", ".payrail")) / "development.json"
    if given is None and path.exists():
        given = json.loads(path.read_text(encoding="utf-8")).get(name)
    if not given:
        raise CommandError(f"set {name} or pass --secret: {path} does not exist because `make run` is not up here")
    return str(given).split(",")[0].strip()


def _generic(status: str) -> Callable[[Sample], bytes]:
    def make(sample: Sample) -> bytes:
        fields = {
            "event_id": sample.event_id,
            "payment_id": sample.gateway_reference,
            "transaction_id": sample.reference,
            "status": status,
            "currency": sample.currency,
            "metadata": {},
        }
        # The amount is written as the exact number that was typed; a float would change its digits.
        return f'{{"amount": {sample.amount}, {json.dumps(fields)[1:]}'.encode()

    return make


def _stripe(event_type: str, status: str) -> Callable[[Sample], bytes]:
    def make(sample: Sample) -> bytes:
        from decimal import Decimal

        from services.payment_service.gateways.stripe import STRIPE_EXPONENT

        minor = int(Decimal(sample.amount).scaleb(STRIPE_EXPONENT[sample.currency]))
        intent: dict[str, Any] = {
            "id": sample.gateway_reference,
            "object": "payment_intent",
            "amount": minor,
            "amount_received": minor if status == "succeeded" else 0,
            "amount_capturable": minor if status == "requires_capture" else 0,
            "currency": sample.currency.lower(),
            "status": status,
            "livemode": False,
            "metadata": {"payment_id": sample.reference, "order_ref": sample.reference},
        }
        if event_type == "payment_intent.payment_failed":
            intent["last_payment_error"] = {"code": "card_declined", "decline_code": "generic_decline"}
        event = {
            "id": sample.event_id,
            "object": "event",
            "api_version": "2026-06-24.dahlia",
            "type": event_type,
            "created": sample.at,
            "livemode": False,
            "data": {"object": intent},
        }
        return json.dumps(event).encode()

    return make


def _razorpay(event_type: str, status: str) -> Callable[[Sample], bytes]:
    def make(sample: Sample) -> bytes:
        from shared.money import Money

        payment: dict[str, Any] = {
            "id": sample.gateway_reference,
            "entity": "payment",
            "amount": Money.from_major(sample.amount, sample.currency).amount_minor,
            "currency": sample.currency,
            "status": status,
            "order_id": "order_SAMPLE00000001",
            "captured": status == "captured",
            "created_at": sample.at,
        }
        if status == "failed":
            payment |= {"error_code": "BAD_REQUEST_ERROR", "error_reason": "card_declined"}
        entities = {"payment": payment}
        if event_type == "order.paid":  # our reference is the order's receipt; a payment's notes are the browser's
            entities["order"] = {"id": payment["order_id"], "entity": "order", "receipt": sample.reference}
        event = {
            "entity": "event",
            "account_id": "acc_SAMPLE00000001",
            "event": event_type,
            "contains": list(entities),
            "payload": {name: {"entity": entity} for name, entity in entities.items()},
            "created_at": sample.at,
        }
        return json.dumps(event).encode()

    return make


_SECRETS = {
    "generic": "WEBHOOK_SECRET",
    "stripe": "STRIPE_WEBHOOK_SECRET",
    "razorpay": "RAZORPAY_WEBHOOK_SECRET",
}
_REFERENCES = {"generic": "gp_sample", "stripe": "pi_sample", "razorpay": "pay_SAMPLE00000001"}

SAMPLES: Mapping[str, Mapping[str, Callable[[Sample], bytes]]] = {
    "generic": {
        "succeeded": _generic("completed"),
        "authorized": _generic("authorized"),
        "failed": _generic("failed"),
        "canceled": _generic("canceled"),
        "expired": _generic("expired"),
    },
    "stripe": {
        "succeeded": _stripe("payment_intent.succeeded", "succeeded"),
        "authorized": _stripe("payment_intent.amount_capturable_updated", "requires_capture"),
        "declined": _stripe("payment_intent.payment_failed", "requires_payment_method"),
        "canceled": _stripe("payment_intent.canceled", "canceled"),
    },
    "razorpay": {
        "succeeded": _razorpay("order.paid", "captured"),
        "authorized": _razorpay("payment.authorized", "authorized"),
        "declined": _razorpay("payment.failed", "failed"),
    },
}
