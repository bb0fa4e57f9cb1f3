"""The process that draws invoices: the same bytes, one process, gone and back, and no mail lost or doubled with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.order_service.invoicing.child import NICENESS
from services.order_service.invoicing.drawing import draw_pdf
from services.order_service.invoicing.process import InvoiceNotDrawn, InvoiceProcess
from services.order_service.use_cases.ports import InvoiceNotDrawnInTime, InvoiceRecord, MailNotSent
from services.order_service.use_cases.send_notifications import LEASE, MAX_ATTEMPTS, send_due_notifications
from shared.errors import ServiceUnavailable
from tests.integration.order_service.conftest import World
from tests.integration.order_service.fakes import QuickInvoices
from tests.support.clock import FakeClock
from tests.support.waiting import until


def an_invoice(**changes: Any) -> InvoiceRecord:
    snapshot = {
        "order_id": "ord_1",
        "ordered_at": "2026-01-02T03:04:05+00:00",
        "currency": "EUR",
        "total_minor": 7800,
        "seller": {"name": "Shop", "address": "One|Two", "tax_id": "", "email": "shop@example.com"},
        "customer": {"name": "عبد الله", "email": "a@example.com", "phone": None},
        "billing_address": None,
        "items": [{"sku": "a", "name": "Pot", "quantity": 2, "unit_price_minor": 3900, "total_minor": 7800}],
        "payment": {"payment_id": "pay_1", "gateway": "stripe", "gateway_reference": "cs_1"},
    }
    return InvoiceRecord(1, "ord_1", snapshot | changes, datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
async def process() -> AsyncIterator[InvoiceProcess]:
    process = InvoiceProcess()
    yield process
    await process.close()


async def test_one_process_draws_every_invoice_as_it_would_be_drawn_here(process: InvoiceProcess) -> None:
    drawn = [await process.as_pdf(an_invoice())]
    first = process.pid
    assert first is not None
    with pytest.raises(InvoiceNotDrawn):
        await process.as_pdf(an_invoice(total_minor="a lot"))
    drawn += await asyncio.gather(process.as_pdf(an_invoice()), process.as_pdf(an_invoice()))
    assert set(drawn) == {draw_pdf(an_invoice())}
    assert process.pid == first
    assert os.getpriority(os.PRIO_PROCESS, first) >= NICENESS
    await process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


async def test_a_process_that_is_gone_is_started_again(process: InvoiceProcess) -> None:
    expected = await process.as_pdf(an_invoice())
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await process.as_pdf(an_invoice()) == expected
    assert process.pid not in (None, first)


async def test_one_that_nobody_asks_ends_by_itself_and_one_that_hangs_is_ended() -> None:
    process = InvoiceProcess(idle_seconds=0.05, drawing_seconds=20)
    await process.as_pdf(an_invoice())
    await until(lambda: process.pid is None, what="its end")
    await process.close()
    hanging = InvoiceProcess(drawing_seconds=0.001)
    with pytest.raises(InvoiceNotDrawnInTime):
        await hanging.as_pdf(an_invoice())
    assert hanging.pid is None


HANGING_CHILD = """
import os, time
import services.order_service.invoicing.child as child

def hang(record, fonts=None):
    with open(FILE, "a") as pids:
        print(os.getpid(), file=pids)
    time.sleep(600)

child._prepared, child.draw_pdf = lambda: None, hang
child.main(60.0)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_drawing_that_hangs_ends_with_its_process_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its process was killed by somebody else: the fork is an orphan then."""
    file = tmp_path / "pids"
    (tmp_path / "a_hanging_child.py").write_text(HANGING_CHILD.replace("FILE", repr(str(file))))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("services.order_service.invoicing.process.CHILD", "a_hanging_child")

    def pids() -> list[int]:
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    process = InvoiceProcess()
    asking = asyncio.create_task(process.as_pdf(an_invoice()))
    await until(lambda: len(pids()) == 1, what="a drawing")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: len(pids()) == 2, what="another try")
    async with asyncio.timeout(20):  # the drawing itself would hang for a minute
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await process.close()
    await until(lambda: not any(map(is_running, pids())), what="the end of both drawings")


async def test_a_process_that_dies_before_its_first_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.order_service.invoicing.process.CHILD", "services.no_such_module")
    process = InvoiceProcess()
    with capture_logs() as logs, pytest.raises(ServiceUnavailable):
        await process.as_pdf(an_invoice())
    await process.close()
    assert {(entry["event"], entry["log_level"]) for entry in logs} == {("invoice_process_does_not_work", "error")}


async def send(world: World, invoices: Any) -> int:
    return await send_due_notifications(world.container.deps, world.mailer, invoices, mail_domain="payrail.invalid")


@pytest.mark.parametrize("end", [asyncio.CancelledError(), ServiceUnavailable()])
async def test_a_mail_whose_invoice_was_being_drawn_when_it_ended_is_sent_once_later(
    world: World, clock: FakeClock, end: BaseException
) -> None:
    await world.paid_order()

    class EndsWhileDrawing(QuickInvoices):
        async def as_pdf(self, record: InvoiceRecord) -> bytes:
            raise end

    await send(world, EndsWhileDrawing())
    await send(world, QuickInvoices())  # still leased
    assert world.mailer.sent == []
    clock.move(121)
    await send(world, QuickInvoices())
    await send(world, QuickInvoices())
    assert len(world.mailer.sent) == 1


class TakesLong(QuickInvoices):
    """``seconds`` for each, and then perhaps an error."""

    def __init__(self, clock: FakeClock, seconds: float, error: Exception | None = None) -> None:
        self._clock, self._seconds, self._error = clock, seconds, error

    async def as_pdf(self, record: InvoiceRecord) -> bytes:
        self._clock.move(self._seconds)
        if self._error is not None:
            raise self._error
        return await super().as_pdf(record)


async def test_a_mail_that_took_too_long_to_compose_is_sent_later_within_another_lease(
    world: World, clock: FakeClock
) -> None:
    await world.paid_order()
    await send(world, TakesLong(clock, 119))
    assert world.mailer.sent == []
    clock.move(11)
    await send(world, QuickInvoices())
    assert len(world.mailer.sent) == 1


async def test_one_that_somebody_else_has_taken_meanwhile_is_not_given_back(world: World, clock: FakeClock) -> None:
    await world.paid_order()

    class IsOvertaken(TakesLong):
        async def as_pdf(self, record: InvoiceRecord) -> bytes:
            pdf = await super().as_pdf(record)
            async with world.container.uow() as tx:
                now = clock.now()
                assert len(await tx.notifications.claim_due(now=now, lease_until=now + LEASE, limit=1)) == 1
            return pdf

    await send(world, IsOvertaken(clock, 121))
    (row,) = await world.rows("SELECT attempts, next_attempt_at FROM notifications")
    assert (row["attempts"], row["next_attempt_at"]) == (2, clock.now() + LEASE)


async def test_what_no_mail_server_was_tried_for_uses_up_no_attempts(world: World, clock: FakeClock) -> None:
    await world.paid_order()
    for _ in range(MAX_ATTEMPTS):
        await send(world, TakesLong(clock, 61))
        clock.move(11)
        await send(world, TakesLong(clock, 0, ServiceUnavailable()))
        clock.move(11)
    world.mailer.failures = [MailNotSent("450 greylisted")]
    await send(world, QuickInvoices())
    (row,) = await world.rows("SELECT attempts, given_up_at FROM notifications")
    assert (row["attempts"], row["given_up_at"]) == (1, None)
    clock.move(11)
    await send(world, QuickInvoices())
    assert len(world.mailer.sent) == 1


async def test_an_invoice_that_never_gets_drawn_is_tried_less_and_less_and_given_up_on(
    world: World, clock: FakeClock
) -> None:
    await world.paid_order()
    with capture_logs() as logs:
        for wait in (9, 19, 39):
            await send(world, TakesLong(clock, 30, InvoiceNotDrawnInTime()))
            clock.move(wait)
            assert await send(world, QuickInvoices()) == 0, "it came back early"
            clock.move(2)
        for _ in range(MAX_ATTEMPTS):
            await send(world, TakesLong(clock, 30, InvoiceNotDrawnInTime()))
            clock.move(3601)
    (row,) = await world.rows("SELECT attempts, given_up_at, last_error FROM notifications")
    assert (row["attempts"], row["given_up_at"] is not None) == (MAX_ATTEMPTS, True)
    assert row["last_error"] == "its invoice was not drawn in time"
    assert [entry["log_level"] for entry in logs if entry.get("given_up")] == ["error"]
