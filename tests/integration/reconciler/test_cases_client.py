"""What the command line sends, understood by the reconciler itself: uploads, pages, decisions, reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli.errors import CommandFailed
from deploy.cli.reconciler_client import ReconcilerClient
from shared.http import HttpCaller
from tests.integration.reconciler.cases import FILE_ID, late_payment, opens, stores_a_line
from tests.integration.reconciler.conftest import World


def client_of(world: World, *, scopes: str = "recon:*", subject: str = "ann") -> ReconcilerClient:
    bearer = world.token(scopes, subject=subject)["Authorization"].removeprefix("Bearer ")
    ports = world.container.ports
    return ReconcilerClient(HttpCaller(world.http, ports), ports, "http://reconciler.test", bearer)


async def test_a_file_is_sent_in_pieces_and_what_cannot_be_read_is_refused_in_words(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / 'may "1".csv'
    path.write_bytes(b"\x00\x01 no table at all" * 20_000)
    sent: list[int] = []
    with pytest.raises(CommandFailed):
        await client_of(world).upload(path, {"gateway": "stripe", "account": ""}, told=sent.append)
    assert sum(sent) == path.stat().st_size
    assert len(sent) > 1
    assert await world.rows("SELECT file_id FROM settlement_files") == []


async def test_runs_cases_and_decisions_are_understood(world: World) -> None:
    client = client_of(world)
    run = await client.post("runs", {"kind": "sweep", "gateway": "stripe", "from": "2026-05-01T00:00:00+00:00"})
    assert (await client.get(f"runs/{run['run_id']}"))["status"] == "running"
    assert await client.run_of_file(FILE_ID) is None
    (case_id, _) = await opens(world, late_payment("a"), late_payment("b"))
    assert len(await client.cases({"unresolved": "true", "kind": "orders"}, limit=1_000)) == 2
    case = await client.post(f"cases/{case_id}/resolve", {"action": "accept", "reason": "because"})
    assert case["resolution"] == "accepted"
    with pytest.raises(CommandFailed, match="payrail reconcile case"):
        await client_of(world, subject="bob").post(
            f"cases/{case_id}/resolve", {"action": "accept", "reason": "because"}
        )
    with pytest.raises(CommandFailed, match="recon:write"):
        await client_of(world, scopes="recon:read").post(f"cases/{case_id}/resolve", {"action": "sync", "reason": "so"})


async def test_reports_come_as_they_are_and_their_errors_in_words(world: World) -> None:
    await stores_a_line(world, file_id=FILE_ID, payment_id=None)
    client = client_of(world)
    report = b"".join([chunk async for chunk in client.download(f"settlement-files/{FILE_ID}/report.csv")])
    assert report.startswith(b"record,id,kind,")
    assert report.count(b"\r\n") == 4
    with pytest.raises(CommandFailed, match="no such object"):
        async for _ in client.download(f"runs/run_{'0' * 26}/report.html"):
            pass
