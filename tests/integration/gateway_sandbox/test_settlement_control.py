"""The control API writes settlements with faults in them, and tells what the books really moved."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.gateway_sandbox.conftest import CreateSession
from tests.support.gateway_sandbox import RunningSandbox

CONTROL = "/sandbox/control/generic"


async def test_faults_are_in_the_file_and_not_in_the_books(
    sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    ids = []
    for number in range(3):
        made = await create_session(reference=f"REF{number}", amount=100)
        await sandbox.outcome("generic", made["payment_id"], "succeed")
        ids.append(made["payment_id"])
    await sandbox.control("generic", f"sessions/{ids[1]}/refunds", amount_minor=2_500)
    now = datetime.now(UTC)
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    truth = (await sandbox.client.get(f"{CONTROL}/movements", params=window)).json()
    assert [(each["kind"], each["amount_minor"], each["net_minor"]) for each in truth] == [
        *[("capture", 10_000, 9_705)] * 3,
        ("refund", -2_500, -2_500),
    ]
    assert truth[3]["parent_id"] == truth[1]["object_id"]

    async def settled(*sow: dict[str, Any]) -> dict[str, Any]:
        answer = await sandbox.client.post(f"{CONTROL}/settlement", json={**window, "sow": list(sow)})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    plain = await settled()
    told = await sandbox.client.get(f"{CONTROL}/settlement", params=window)
    assert b64decode(plain["content"]) == told.content
    assert plain["payouts"] == [
        {"payout_reference": f"gs_{now - timedelta(hours=1):%Y%m%d}USD", "currency": "USD", "amount_minor": 26_615}
    ]
    sown = await settled({"fault": "missing", "line": 2}, {"fault": "refund_netted"}, {"fault": "payout_off"})
    assert [(each["fault"], each["difference_minor"]) for each in sown["sown"]] == [
        ("missing", -10_000),
        ("refund_netted", -2_500),
        ("payout_off", 1),
    ]
    assert sown["sown"][0]["object_id"] == truth[2]["object_id"]
    rows = b64decode(sown["content"]).decode().splitlines()[1:]
    assert [row.split(",")[-4:] for row in rows] == [
        ["100.00", "2.50", "0.45", "97.05"],
        ["75.00", "2.50", "0.45", "72.05"],
    ]
    [payout] = b64decode(sown["payout_statement"]["content"]).decode().splitlines()[1:]
    assert payout.split(",")[2:4] == ["169.11", "USD"]
    assert (await sandbox.client.get(f"{CONTROL}/movements", params=window)).json() == truth


async def test_what_cannot_be_sown_is_refused(sandbox: RunningSandbox) -> None:
    now = datetime.now(UTC)
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": now.isoformat()}
    for sow, code in (({"fault": "missing"}, "nothing_to_sow"), ({"fault": "rats"}, None), ({"line": 1}, None)):
        answer = await sandbox.client.post(f"{CONTROL}/settlement", json={**window, "sow": [sow]})
        assert answer.status_code == 422
        assert code in (None, answer.json()["code"])
