"""Mails wait for everything else: the longer a round has kept the machine busy, the longer the next one waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.order_service import worker
from services.order_service.use_cases.send_notifications import BATCH
from tests.support.clock import FakeClock


@pytest.mark.parametrize(
    ("due", "seconds", "pause"),
    [(BATCH, 0.1, 0.5), (BATCH, 2.0, 4.0), (1, 30.0, 10.0), (0, 1.0, 0.0)],
    ids=["by the rate", "by the time it took", "bounded", "nothing was due"],
)
async def test_a_round_of_mails_earns_a_pause(
    monkeypatch: pytest.MonkeyPatch, due: int, seconds: float, pause: float
) -> None:
    clock = FakeClock(auto_advance=True)

    async def send_mails(_container: object) -> int:
        clock.move(seconds)
        return due

    monkeypatch.setattr(worker, "send_mails", send_mails)
    settings, ports = SimpleNamespace(mail_rate_per_second=20.0), SimpleNamespace(clock=clock)
    container = cast("Any", SimpleNamespace(settings=settings, ports=ports))
    assert await worker.send_mails_unhurriedly(container) == (due == BATCH)
    assert clock.sleeps == [pytest.approx(pause)]
