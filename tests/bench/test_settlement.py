"""Settlement files of growing size: as a ratio to PostgreSQL's own COPY and one hash join of the same lines."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.db.migrations import upgrade
from tests.bench.figures import Goal
from tests.bench.report import SETTLEMENT, Report
from tests.bench.settling import PARSED, bare, connected, reconciler, settle, write_books, write_file
from tests.bench.stack import DurablePostgres, on_disk
from tests.support.directories import throwaway_directory

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

MEMORY_GOAL = Goal("<=", 300)
SIZES = tuple(int(size) for size in os.environ.get("BENCH_LINES", "10000,100000,1000000").split(","))


@pytest.fixture(scope="module")
def server() -> Iterator[DurablePostgres]:
    with on_disk():
        server = DurablePostgres()
        try:
            server.start()
            yield server
        finally:
            server.remove()


@pytest.mark.parametrize("lines", SIZES)
def test_a_settlement_file(server: DurablePostgres, report: Report, lines: int) -> None:
    directory = Path(throwaway_directory("payrail-bench-file-"))
    path = directory / "lines.csv"
    write_file(path, lines)
    asyncio.run(_measure(server, report, lines, path))
    shutil.rmtree(directory)


async def _measure(server: DurablePostgres, report: Report, lines: int, path: Path) -> None:
    await asyncio.to_thread(upgrade_database, server.url())
    async with connected(server.url()) as connection:
        await write_books(connection, lines)
    async with reconciler(server.url()) as container:
        settled = await settle(container, path)
    assert (settled.outcome.checked, settled.outcome.matched, settled.outcome.cases_opened) == (lines, lines, 0)
    copied = path.with_suffix(".copy")
    async with connected(server.url()) as connection:
        await connection.copy_from_query(
            f"SELECT {PARSED} FROM settlement_lines", output=copied, format="text", timeout=600
        )
        await connection.execute("CHECKPOINT")
        copying, joining = await bare(connection, copied)
        await connection.execute("DROP SCHEMA reconciler CASCADE; CREATE SCHEMA reconciler")
    copied.unlink()
    report.section = SETTLEMENT
    name = f"settlement of {lines:,} lines"
    ratio = settled.seconds / (copying + joining)
    report.add(f"{name}: file to cases", "s", [settled.seconds], ratio=f"{ratio:.2f} x COPY + join", goal="<= 4")
    whole = (settled.seconds + settled.receiving_seconds) / (copying + joining)
    report.add(f"{name}: with receiving it", "s", [settled.seconds + settled.receiving_seconds], ratio=f"{whole:.2f} x")
    for phase, seconds in settled.phases.items():
        if seconds > 0.05:
            report.add(f"{name}: {phase}", "s", [seconds])
    report.add(f"{name}: receiving the file", "s", [settled.receiving_seconds])
    report.add(f"{name}: PostgreSQL's COPY", "s", [copying])
    report.add(f"{name}: PostgreSQL's hash join", "s", [joining])
    report.add(f"{name}: a line", "µs", [settled.seconds / lines * 1_000_000])
    report.add(f"{name}: memory, ours and the reader's", "MB", [settled.megabytes], goal=MEMORY_GOAL)


def upgrade_database(url: str) -> None:
    asyncio.run(upgrade("reconciler", url))
