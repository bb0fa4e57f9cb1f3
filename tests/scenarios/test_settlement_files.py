"""Each gateway's settlement file, written by the sandbox from its own books with faults sown: every one is found, and
nothing else is reported (RC4–RC8, RC12)."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.payment_service.gateways.port import Capability
from shared.clock import to_rfc3339
from tests.conformance.cases import Subject, subjects
from tests.scenarios.town import Town, open_town
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="package")

SUBJECTS = subjects()
SCENARIO_OF = {
    "missing": "not_settled",
    "extra": "unknown_line",
    "duplicated": "settled_twice",
    "wrong_amount": "amount_differs",
    "fee_changed": "fee_differs",
    "refund_netted": "refund_netted",
    "payout_off": "payout_differs",
}
WITHOUT_REFUND_LINES = frozenset({"myfatoorah"})
BESIDES = {"paypal": ["file_totals_differ"]}
"""PayPal's file states its own totals, and so is off by itself where the payout is."""
BEFORE = 2
"""Payments of the clean file, of which one is refunded in part."""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def town(postgres_server: PostgresServer) -> AsyncIterator[Town]:
    """One of its own: a file is asked about everything that its gateway took that day."""
    async with open_town(postgres_server) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Written:
    """A gateway's file and payout statement of a window."""

    name: str
    content: bytes
    statement: bytes
    sown: Sequence[Mapping[str, Any]]


async def write(town: Town, gateway: str, since: datetime, *faults: str) -> Written:
    """Faults hit what the clean file before did not have, but for the payout, which is the day's."""
    until = town.market.payment.ports.clock.now() + timedelta(seconds=1)
    first = {"refund_netted": 1, "payout_off": 0}
    sow = [{"fault": fault, "line": first.get(fault, BEFORE)} for fault in faults]
    answer = await town.market.sandbox.control(
        gateway, "settlement", since=to_rfc3339(since), until=to_rfc3339(until), sow=sow
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    statement = base64.b64decode(body["payout_statement"]["content"])
    return Written(body["name"], base64.b64decode(body["content"]), statement, body["sown"])


async def send_in(town: Town, gateway: str, name: str, content: bytes, status: int = 201) -> dict[str, Any]:
    answer = await town.call(
        "reconciler",
        "POST",
        "/reconciliation/settlement-files",
        data={"gateway": gateway},
        files={"file": (name, content)},
        scopes="recon:write",
    )
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def settle(town: Town, gateway: str, name: str, content: bytes) -> dict[str, Any]:
    """The run that read the file, once it has ended."""
    file = await send_in(town, gateway, name, content)
    [run] = await town.eventually_rows(
        town.reconciler.database,
        "SELECT run_id FROM reconciliation_runs WHERE file_id = :id AND status <> 'running'",
        id=file["file_id"],
    )
    return await town.ended(run["run_id"])


async def scenarios(town: Town, gateway: str) -> Counter[str]:
    cases = await town.cases(kind="settlement", gateway=gateway, status="open", limit=200)
    return Counter(case["scenario"] for case in cases)


async def trade(town: Town, subject: Subject, payments: int) -> None:
    """So many payments at the gateway, of which one is refunded. The last one is later by more than the second that
    files round to, so that they cover the others."""
    market, clock = town.market, town.market.payment.ports.clock
    paid = await asyncio.gather(*(market.paid(subject.name, subject.money) for _ in range(payments - 1)))
    done_at = clock.now()
    await until(lambda: clock.now() - done_at > timedelta(seconds=1.1), what="another second")
    await market.paid(subject.name, subject.money)
    if subject.can(Capability.REFUND):
        await market.refund(paid[0], 1_000 if subject.can(Capability.PARTIAL_REFUND) else None)
        await market.learns(paid[0], frozenset({"refund_succeeded", "refund_pending"}))
    await market.quiet()


@pytest.mark.parametrize("gateway", SUBJECTS)
async def test_every_sown_fault_is_found_and_nothing_else(town: Town, gateway: str) -> None:
    subject = SUBJECTS[gateway].here(town.market)
    since = town.market.payment.ports.clock.now()
    await trade(town, subject, BEFORE)
    clean = await write(town, gateway, since)
    await settle(town, gateway, clean.name, clean.content)
    await settle(town, gateway, "payouts.csv", clean.statement)
    assert await scenarios(town, gateway) == Counter(), "our books and the gateway's are the same"
    repeated = await send_in(town, gateway, f"again-{clean.name}", clean.content, status=200)
    assert repeated["duplicate"] is True

    await trade(town, subject, 6)
    possible = [fault for fault in SCENARIO_OF if fault != "refund_netted" or gateway not in WITHOUT_REFUND_LINES]
    sown = await write(town, gateway, since, *possible)
    run = await settle(town, gateway, sown.name, sown.content)
    await settle(town, gateway, "payouts.csv", sown.statement)
    expected = Counter(SCENARIO_OF[each["fault"]] for each in sown.sown) + Counter(BESIDES.get(gateway, ()))
    assert await scenarios(town, gateway) == expected
    for each in sown.sown:
        [case] = await town.cases(
            kind="settlement", gateway=gateway, scenario=SCENARIO_OF[each["fault"]], status="open"
        )
        assert each["difference_minor"] in (None, case["difference_minor"]), (each, case)
    assert run["cases_opened"] >= len(expected) - 2, "all but the payout's come with the file"

    # The line that was missing comes after all: its case is settled, and the others stay.
    late = await write(town, gateway, since)
    await settle(town, gateway, late.name, late.content)
    assert "not_settled" not in await scenarios(town, gateway)
