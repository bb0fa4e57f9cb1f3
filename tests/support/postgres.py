"""A real PostgreSQL for the tests: the one in TEST_DATABASE_URL, else an embedded one in a temporary directory.

Each xdist worker has its own embedded server, so a test that kills it disturbs nobody. A database is made per test,
either empty or as a copy of a template that holds a service's migrated schema.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from deploy.local.postgres import EmbeddedPostgres, PostgresNotAvailable, TcpListener, run_psql
from shared.randomness import SystemRandomness
from tests.support.directories import throwaway_directory
from tests.support.guard import process_guard
from tests.support.ports import free_port
from tests.support.waiting import until_blocking

CreateDatabase = Callable[[], str]
"""Each call makes a database and returns its URL, ``postgresql://…``."""
ServiceDatabase = Callable[[str], str]
"""``service_database("order_service")``: the URL of a fresh, migrated database."""

_STRATEGY = "FILE_COPY"  # three times faster than the default for small templates when nothing is fsynced


class ThrowawayPostgres(EmbeddedPostgres):
    """An embedded server in a temporary directory; gone with the test run, even when that is killed."""

    def __init__(self, *, tcp: TcpListener | None = None) -> None:
        self.directory = throwaway_directory("payrail-pg-")
        process_guard().remove_afterwards(self.directory)
        super().__init__(self.directory, fsync=False, tcp=tcp)

    def start(self, *, within_seconds: float = 30) -> None:
        try:
            super().start(within_seconds=within_seconds)
        finally:
            if self.pid is not None:
                process_guard().watch(str(self.directory), pid=self.pid, command_contains=str(self.directory))

    def remove(self) -> None:
        self.resume()  # a test may have left it frozen, and a frozen server does not hear that it should stop
        self.stop("immediate")
        process_guard().forget(str(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)


class PostgresServer:
    """Makes and drops databases on a server; ``embedded`` is None when the server is somebody else's."""

    def __init__(self, admin_url: str, embedded: EmbeddedPostgres | None = None) -> None:
        self._admin_url = admin_url
        self.embedded = embedded
        self._run = SystemRandomness().token_bytes(4).hex()  # runs that share a server do not meet
        self._numbers = itertools.count(1)
        self._templates: dict[str, str] = {}

    def url(self, database: str) -> str:
        parts = urlsplit(self._admin_url)
        # Not urlunsplit: it drops the slashes of an URL without host, which is how a Unix socket is written.
        return f"{parts.scheme}://{parts.netloc}/{database}" + (f"?{parts.query}" if parts.query else "")

    def execute(self, sql: str) -> str:
        return run_psql(self._admin_url, sql)

    def create_database(self, *, template: str = "template0") -> str:
        """Create a database and return its name."""
        name = f"t_{self._run}_{next(self._numbers)}"
        statement = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY {_STRATEGY}"

        def created() -> bool:
            try:
                self.execute(statement)
            except PostgresNotAvailable as refused:
                if "is being accessed by other users" in str(refused):
                    return False  # the last connection of the migration is on its way out
                raise
            return True

        until_blocking(created, what=f"copying {template}")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def template_for(self, service: str) -> str:
        """The name of a database migrated for the service, made at the first call of a session."""
        if service not in self._templates:
            name = self.create_database()
            _migrate(service, self.url(name))
            self._templates[service] = name
        return self._templates[service]

    def drop_templates(self) -> None:
        for name in self._templates.values():
            self.drop_database(name)


def _migrate(service: str, url: str) -> None:
    from shared.db.migrations import upgrade  # imported late: tests of plain code need no alembic

    with ThreadPoolExecutor(1) as thread:  # a loop of its own, because the caller may already be in one
        thread.submit(lambda: asyncio.run(upgrade(service, url))).result()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this session (of this xdist worker, when it is ours)."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        server = PostgresServer(given.replace("postgresql+asyncpg://", "postgresql://"))
        yield server
        server.drop_templates()
        return
    embedded = ThrowawayPostgres()
    try:
        embedded.start()
        yield PostgresServer(embedded.url(), embedded)
    finally:
        embedded.remove()


@pytest.fixture
def create_database(postgres_server: PostgresServer) -> Iterator[CreateDatabase]:
    """A factory of fresh, empty databases, dropped after the test."""
    names: list[str] = []

    def create() -> str:
        names.append(postgres_server.create_database())
        return postgres_server.url(names[-1])

    yield create
    for name in names:
        postgres_server.drop_database(name)


@pytest.fixture
def service_database(postgres_server: PostgresServer) -> Iterator[ServiceDatabase]:
    """A factory of databases migrated for a service: migrated once a session, copied per call, dropped afterwards."""
    names: list[str] = []

    def create(service: str) -> str:
        names.append(postgres_server.create_database(template=postgres_server.template_for(service)))
        return postgres_server.url(names[-1])

    yield create
    for name in names:
        postgres_server.drop_database(name)


@pytest.fixture
def own_postgres() -> Iterator[ThrowawayPostgres]:
    """A server of this test's own, on a socket and on a TCP port, to stop, kill and freeze; about a second to start."""
    server = ThrowawayPostgres(tcp=TcpListener(free_port(), "test-password"))
    try:
        server.start()
        yield server
    finally:
        server.remove()
