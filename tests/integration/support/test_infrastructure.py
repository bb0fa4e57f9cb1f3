"""The infrastructure of the tests is tested: servers keep what they should, and fakes behave like the real ones."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import asyncpg
import pytest
from playwright.async_api import async_playwright

from deploy.local.postgres import EmbeddedPostgres
from tests.support.browser import LaunchOptions
from tests.support.clock import A_MOMENT, FakeClock, SeededRandomness, fake_ports
from tests.support.directories import throwaway_directory
from tests.support.network import OutsideWorldRefused
from tests.support.postgres import CreateDatabase, PostgresServer, ThrowawayPostgres
from tests.support.rabbitmq import RabbitMQServer
from tests.support.waiting import until

REPOSITORY = Path(__file__).resolve().parents[3]


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_every_call_gives_an_empty_database_of_its_own(create_database: CreateDatabase) -> None:
    first, second = create_database(), create_database()
    async with connection_to(first) as connection:
        await connection.execute("CREATE TABLE marks (id int)")
    async with connection_to(second) as connection:
        assert await connection.fetchval("SELECT to_regclass('marks')") is None


async def test_a_copy_of_a_template_has_its_rows(postgres_server: PostgresServer) -> None:
    template = postgres_server.create_database()
    async with connection_to(postgres_server.url(template)) as connection:
        await connection.execute("CREATE TABLE marks (id int); INSERT INTO marks VALUES (7)")
    copy = postgres_server.create_database(template=template)
    async with connection_to(postgres_server.url(copy)) as connection:
        assert await connection.fetchval("SELECT id FROM marks") == 7
    postgres_server.drop_database(copy)
    postgres_server.drop_database(template)


@pytest.mark.parametrize("end", ["stop", "stop at once", "kill -9"])
async def test_postgres_keeps_committed_rows_when_it_ends(own_postgres: ThrowawayPostgres, end: str) -> None:
    own_postgres.ensure_database("shop")
    async with connection_to(own_postgres.url("shop")) as connection:
        await connection.execute("CREATE TABLE marks (id int); INSERT INTO marks VALUES (7)")
    if end == "kill -9":
        own_postgres.kill()
    else:
        own_postgres.stop("fast" if end == "stop" else "immediate")
    assert not own_postgres.running
    own_postgres.start()
    async with connection_to(own_postgres.url("shop", over_tcp=True)) as connection:
        assert await connection.fetchval("SELECT id FROM marks") == 7


async def test_a_second_process_attaches_to_the_running_postgres(own_postgres: ThrowawayPostgres) -> None:
    other = EmbeddedPostgres(own_postgres.directory)
    other.start()
    assert other.pid == own_postgres.pid
    other.ensure_database("shop")
    other.ensure_database("shop")
    async with connection_to(other.url("shop")) as connection:
        assert await connection.fetchval("SELECT current_database()") == "shop"


def test_a_killed_program_leaves_a_server_that_its_next_start_takes_over() -> None:
    server = ThrowawayPostgres()
    program = (
        "import os, sys; from pathlib import Path; from deploy.local.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1]), fsync=False); server.start(); server.ensure_database('shop')\n"
        "os.kill(os.getpid(), 9)"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program, str(server.directory)], cwd=REPOSITORY, check=False)
        assert done.returncode == -signal.SIGKILL
        assert server.running
        left_behind = server.pid
        server.start()
        assert server.pid == left_behind
        assert server.execute("SELECT count(*) FROM pg_database WHERE datname = 'shop'") == "1"
    finally:
        server.remove()


def test_a_pid_file_whose_number_went_to_another_process_does_not_stop_a_start(own_postgres: ThrowawayPostgres) -> None:
    own_postgres.stop("immediate")
    stale = f"{os.getppid()}\n{own_postgres.directory}/cluster\n1\n5432\n/nowhere\n\n\nready\n"
    pid_file = own_postgres.directory / "cluster" / "postmaster.pid"
    pid_file.write_text(stale)
    assert not own_postgres.running
    own_postgres.start()
    assert own_postgres.execute("SELECT 1") == "1"


def test_a_long_path_still_gets_a_socket() -> None:
    deep = throwaway_directory("payrail-pg-") / ("long" * 30)
    server = EmbeddedPostgres(deep, fsync=False)
    try:
        server.start()
        assert server.execute("SELECT 1") == "1"
    finally:
        server.stop("immediate")
        shutil.rmtree(deep.parent)


async def test_a_frozen_postgres_answers_nothing_until_it_is_thawed(own_postgres: ThrowawayPostgres) -> None:
    async with connection_to(own_postgres.url()) as connection:
        own_postgres.pause()
        question = asyncio.create_task(connection.fetchval("SELECT 1"))
        done, _ = await asyncio.wait([question], timeout=0.2)
        assert not done
        own_postgres.resume()
        assert await asyncio.wait_for(question, 5) == 1


async def test_a_virtual_host_carries_a_message(vhost_url: str) -> None:
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("marks", durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"seven"), "marks")
        message = await queue.get(timeout=5)
        await message.ack()
        assert message.body == b"seven"


async def test_a_broker_keeps_persistent_messages_over_a_restart_and_a_kill(own_rabbitmq: RabbitMQServer) -> None:
    url = own_rabbitmq.url(own_rabbitmq.create_vhost())
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("marks", durable=True)
        message = aio_pika.Message(b"seven", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "marks")
    own_rabbitmq.restart()
    own_rabbitmq.kill9()
    assert not own_rabbitmq.accepts_connections
    own_rabbitmq.start()
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue("marks")
        kept = await queue.get(timeout=5)
        await kept.ack()
        assert kept.body == b"seven"


async def test_a_frozen_broker_greets_nobody_until_it_is_thawed(own_rabbitmq: RabbitMQServer) -> None:
    own_rabbitmq.pause()
    assert not own_rabbitmq.accepts_connections
    own_rabbitmq.resume()
    await until(lambda: own_rabbitmq.accepts_connections, what="a greeting of the thawed broker")
    assert "RabbitMQ" in own_rabbitmq.rabbitmqctl("status")


async def test_the_browser_shows_a_page(browser_launch_options: LaunchOptions) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**browser_launch_options)
        page = await browser.new_page()
        await page.set_content("<h1>paid</h1>")
        assert await page.inner_text("h1") == "paid"
        await browser.close()


def test_another_machine_cannot_be_reached() -> None:
    with pytest.raises(OutsideWorldRefused):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OutsideWorldRefused):
        socket.getaddrinfo("gateway.example", 443)


async def test_until_says_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match=r"the parcel did not happen within 0.01 s; last seen: 0"):
        await until(lambda: 0, within_seconds=0.01, what="the parcel")


async def test_until_returns_what_an_async_condition_found() -> None:
    answers = iter([None, None, "found"])

    async def look() -> str | None:
        return next(answers)

    assert await until(look) == "found"


async def test_sleepers_of_a_fake_clock_wake_at_their_own_moment() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, (clock.now() - A_MOMENT).total_seconds()))

    tasks = [asyncio.create_task(sleeper("late", 60)), asyncio.create_task(sleeper("early", 5))]
    await clock.advance(10)
    assert woken == [("early", 5.0)]
    await clock.advance(50)
    assert woken == [("early", 5.0), ("late", 60.0)]
    await asyncio.gather(*tasks)


async def test_a_clock_that_advances_by_itself_records_the_waits() -> None:
    clock = FakeClock(auto_advance=True)
    await clock.sleep(3600)
    assert clock.sleeps == [3600]
    assert (clock.now() - A_MOMENT).total_seconds() == 3600


def test_a_seed_repeats_its_chances_and_its_ids() -> None:
    assert SeededRandomness(3).token_bytes(8) == SeededRandomness(3).token_bytes(8)
    assert SeededRandomness(3).uniform(0, 1) == SeededRandomness(3).uniform(0, 1)
    assert fake_ports(seed=3).ids.new("pay") == fake_ports(seed=3).ids.new("pay") != fake_ports(seed=4).ids.new("pay")
