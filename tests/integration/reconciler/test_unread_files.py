"""Files that could not be read, for a while or at all; and under whose name a file is booked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from services.reconciler.domain.errors import AccountUnknown, KnownElsewhere, NotInspected
from services.reconciler.domain.models import Run, RunKind
from services.reconciler.domain.settlement import SettlementFile
from services.reconciler.settlement_formats.port import ReaderFailed, ReaderTimedOut, Unreadable
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.receive_file import Arrival, Received, receive_file, spooled
from services.reconciler.use_cases.run_runner import MAX_ATTEMPTS, RunRunner, RunSchedule
from services.reconciler.use_cases.running import Progress, RunOutcome
from services.reconciler.use_cases.settle_file import MAX_READINGS, settle_file
from services.reconciler.use_cases.settlement_ports import Inspection, RawFile
from tests.integration.reconciler.conftest import World
from tests.support.settlement_bytes import a_file
from tests.support.settlement_reader import InProcessReader, InProcessReading


class Dies(InProcessReader):
    """Fails as often as it has failures left."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.failures = list(failures)

    def _fails(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def inspect(self, raw: RawFile, *, gateway: str, account: str, format_name: str | None) -> Inspection:
        self._fails()
        return await super().inspect(raw, gateway=gateway, account=account, format_name=format_name)

    @asynccontextmanager
    async def read(self, file: SettlementFile, content: AsyncIterator[bytes]) -> AsyncIterator[InProcessReading]:
        self._fails()
        async with super().read(file, content) as reading:
            yield reading


@pytest.fixture
def reader() -> Dies:
    return Dies()


@pytest.fixture
def context(world: World, reader: Dies) -> Context:
    return replace(world.container.context, reader=reader)


async def sends(context: Context, *, account: str = "", content: bytes | None = None) -> Received:
    with spooled(a_file() if content is None else content) as raw:
        return await receive_file(Arrival(raw, "a.csv", "report_api", "reconciler", "stripe", account), context)


async def settles(context: Context, run: Run, progress: Progress) -> RunOutcome:
    assert run.file_id is not None
    return await settle_file(run.file_id, run.run_id, context, progress)


async def reads(context: Context) -> bool:
    """One round of the worker, after the time that it waits for."""
    context.clock.move(301)  # type: ignore[attr-defined]
    runner = RunRunner(RunKind.SETTLEMENT, partial(settles, context), RunSchedule(90), context)
    is_done = await runner.round()
    await runner.step_down()
    return is_done


async def files(world: World) -> list[tuple[str, str | None]]:
    rows = await world.rows("SELECT status, problem FROM settlement_files ORDER BY file_id")
    return [(row["status"], row["problem"]) for row in rows]


async def cases(world: World) -> list[tuple[str, str]]:
    rows = await world.rows("SELECT scenario, status FROM cases WHERE scenario LIKE 'file%' ORDER BY case_id")
    return [(row["scenario"], row["status"]) for row in rows]


@pytest.mark.parametrize("failure", [ReaderFailed, ReaderTimedOut])
async def test_a_reader_that_dies_once_is_not_the_files_fault(
    world: World, context: Context, reader: Dies, failure: type[Exception]
) -> None:
    await sends(context)
    reader.failures = [failure()]
    assert not await reads(context)
    assert await files(world) == [("received", None)]
    await reads(context)
    assert (await files(world), await cases(world)) == ([("read", None)], [])


async def test_the_next_reading_waits_some_minutes(world: World, context: Context, reader: Dies) -> None:
    await sends(context)
    reader.failures = [ReaderFailed()]
    await reads(context)
    again = RunRunner(RunKind.SETTLEMENT, partial(settles, context), RunSchedule(90), context)
    assert not await again.round()
    assert await files(world) == [("received", None)]


async def test_a_file_that_kills_every_reader_is_refused_with_a_case_and_read_when_it_is_sent_again(
    world: World, context: Context, reader: Dies
) -> None:
    first = await sends(context)
    reader.failures = [ReaderFailed() for _ in range(MAX_READINGS)]
    for _ in range(MAX_READINGS):
        await reads(context)
    assert await files(world) == [("refused", "reader_died")]
    assert await cases(world) == [("file_refused", "open")]
    again = await sends(context)
    assert (again.is_duplicate, again.file.file_id) == (True, first.file.file_id)
    assert await files(world) == [("received", None)]
    reader.failures = [ReaderFailed()]
    await reads(context)
    assert await files(world) == [("received", None)], "what failed before it was sent again does not count"
    await reads(context)
    assert await files(world) == [("read", None)]
    assert await cases(world) == [("file_refused", "resolved")]


async def test_a_file_that_was_refused_for_its_content_has_a_case(world: World, context: Context, reader: Dies) -> None:
    await sends(context)
    reader.failures = [Unreadable("not_text", "It is no text.")]
    await reads(context)
    assert (await files(world), await cases(world)) == ([("refused", "not_text")], [("file_refused", "open")])


async def test_a_file_that_takes_its_runners_down_is_refused_with_a_case(world: World, context: Context) -> None:
    async def dies(run: Run, progress: Progress) -> RunOutcome:
        raise RuntimeError("killed")

    await sends(context)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(RuntimeError):
            await RunRunner(RunKind.SETTLEMENT, dies, RunSchedule(90), context).round()
        await world.lets_the_lease_run_out()
    await reads(context)
    assert (await files(world), await cases(world)) == ([("refused", "given_up")], [("file_refused", "open")])
    await sends(context)
    await reads(context)
    assert (await files(world), await cases(world)) == ([("read", None)], [("file_refused", "resolved")])


async def test_looking_at_a_file_is_tried_twice(world: World, context: Context, reader: Dies) -> None:
    reader.failures = [ReaderFailed()]
    assert not (await sends(context)).is_duplicate
    reader.failures = [ReaderFailed(), ReaderFailed()]
    with pytest.raises(NotInspected):
        await sends(context, content=a_file(5))
    assert len(await files(world)) == 1


async def knows(world: World, *accounts: str) -> None:
    for number, account in enumerate(accounts):
        await world.execute(
            """
            INSERT INTO known_payments (payment_id, order_id, gateway, account, status, version, amount_minor, currency,
                created_at, updated_at)
            VALUES (:id, 'ord_1', 'stripe', :account, 'captured', 1, 1000, 'USD', now(), now())
            """,
            id=f"pay_{number}",
            account=account,
        )


@pytest.mark.parametrize(
    ("known", "given", "booked"),
    [
        ((), "EU-1", "eu_1"),
        (("eu_1",), "EU-1", "eu_1"),
        (("eu_1",), "", "eu_1"),
        (("", "eu"), "", ""),
    ],
)
async def test_an_account_is_called_as_its_payments_are(
    world: World, context: Context, known: tuple[str, ...], given: str, booked: str
) -> None:
    await knows(world, *known)
    assert (await sends(context, account=given)).file.account == booked


@pytest.mark.parametrize(("known", "given"), [(("",), "eu"), (("eu", "us"), ""), (("eu",), "us")])
async def test_an_account_without_payments_is_refused(
    world: World, context: Context, known: tuple[str, ...], given: str
) -> None:
    await knows(world, *known)
    with pytest.raises(AccountUnknown):
        await sends(context, account=given)
    assert await files(world) == []


async def test_the_same_content_is_booked_for_one_account(world: World, context: Context, reader: Dies) -> None:
    """RC1."""
    known = await sends(context, account="eu")
    with pytest.raises(KnownElsewhere) as caught:
        await sends(context, account="us")
    assert (known.file.file_id in caught.value.detail, caught.value.status) == (True, 409)
    await reads(context)
    with pytest.raises(KnownElsewhere):
        await sends(context, account="us")
    assert [file for file, _ in await files(world)] == ["read"]


async def test_what_was_refused_for_a_wrong_account_can_be_sent_for_the_right_one(
    world: World, context: Context, reader: Dies
) -> None:
    await sends(context, account="eu")
    reader.failures = [Unreadable("not_text", "It is no text.")]
    await reads(context)
    await sends(context, account="us")
    assert [file for file, _ in await files(world)] == ["refused", "received"]
