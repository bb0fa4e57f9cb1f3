"""Each gateway's settlement file, written by the sandbox from its own books with faults sown: every one is found, and
nothing else is reported (RC4–RC8, RC12)."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.payment_service.gateways.port import Capability
from shared.clock import to_rfc3339
from tests.conformance.cases import Subject, subjects
from tests.scenarios.town import Town

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
PAYMENTS = 7


@dataclass(frozen=True, slots=True)
class Written:
    """A gateway's file and payout statement of a window."""

    name: str
    content: bytes
    statement: bytes
    sown: Sequence[Mapping[str, Any]]


async def write(town: Town, gateway: str, since: datetime, *faults: str) -> Written:
    until = town.market.payment.ports.clock.now() + timedelta(seconds=1)
    # The oldest line marks where the file begins: one that is missing before that could as well be another file's.
    sow = [{"fault": fault, "line": 1 if fault == "missing" else 0} for fault in faults]
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


async def trade(town: Town, subject: Subject) -> datetime:
    """A few payments and refunds at the gateway; returns when the first of them began."""
    since = town.market.payment.ports.clock.now()
    for number in range(PAYMENTS):
        payment = await town.market.paid(subject.name, subject.money)
        if number in (2, 5) and subject.can(Capability.REFUND):
            await town.market.refund(payment, 1_000 if subject.can(Capability.PARTIAL_REFUND) else None)
            await town.market.learns(payment, frozenset({"refund_succeeded", "refund_pending"}))
    await town.market.quiet()
    return since


@pytest.mark.parametrize("gateway", SUBJECTS)
async def test_every_sown_fault_is_found_and_nothing_else(town: Town, gateway: str) -> None:
    subject = SUBJECTS[gateway].here(town.market)
    since = await trade(town, subject)
    clean = await write(town, gateway, since)
    await settle(town, gateway, clean.name, clean.content)
    await settle(town, gateway, "payouts.csv", clean.statement)
    assert await scenarios(town, gateway) == Counter(), "our books and the gateway's are the same"
    repeated = await send_in(town, gateway, f"again-{clean.name}", clean.content, status=200)
    assert repeated["duplicate"] is True

    since = await trade(town, subject)
    possible = [fault for fault in SCENARIO_OF if fault != "refund_netted" or subject.can(Capability.REFUND)]
    sown = await write(town, gateway, since, *possible)
    await settle(town, gateway, sown.name, sown.content)
    await settle(town, gateway, "payouts.csv", sown.statement)
    assert await scenarios(town, gateway) == Counter(SCENARIO_OF[each["fault"]] for each in sown.sown)
    for each in sown.sown:
        [case] = [
            case
            for case in await town.cases(kind="settlement", gateway=gateway, scenario=SCENARIO_OF[each["fault"]])
            if case["status"] == "open"
        ]
        if each["difference_minor"] is not None:
            assert case["difference_minor"] == each["difference_minor"], (each, case)
