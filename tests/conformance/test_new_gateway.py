"""A gateway that `payrail gateway new` writes outside the repository is found by its name, and passes every case."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.gateways import ROOT
from services.gateway_sandbox.gateways.registry import sandbox_definitions
from services.payment_service.gateways.catalogue import gateway_definitions
from services.webhook_ingest.signatures.registry import registrations
from shared.plugins import PLUGINS
from tests.conformance.cases import CASES, subjects
from tests.conformance.market import Market, open_market
from tests.support.postgres import PostgresServer

NAME = "toypay"

pytestmark = pytest.mark.xdist_group("new_gateway")  # one market for all of it


@pytest.fixture(scope="module")
def toypay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Written by the command into a directory of its own, and named in the environment for as long as it is tried."""
    directory = tmp_path_factory.mktemp("plugins")
    before = files_of_the_repository()
    answer = CliRunner().invoke(app, ["gateway", "new", NAME, "--title", "Toy Pay", "--plugin", str(directory)])
    assert answer.exit_code == 0, answer.output
    assert files_of_the_repository() == before
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        patch.setenv(PLUGINS, ",".join(filter(None, [os.environ.get(PLUGINS), NAME])))
        yield
    for module in [module for module in sys.modules if module.partition(".")[0] == NAME]:
        del sys.modules[module]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def toy_market(postgres_server: PostgresServer, toypay: None) -> AsyncIterator[Market]:
    async with open_market(postgres_server) as opened:
        yield opened


def files_of_the_repository() -> dict[Path, int]:
    folders = [ROOT / name for name in ("deploy", "docs", "services", "shared", "tests")]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path: path.stat().st_mtime_ns for path in [*found, *ROOT.glob("*.toml"), *ROOT.glob("*.md")]}


@pytest.mark.usefixtures("toypay")
def test_it_is_one_more_gateway_with_all_its_parts() -> None:
    assert NAME not in gateway_definitions(environ={})
    for known in (gateway_definitions, registrations, sandbox_definitions):
        assert set(known()) == {*known(environ={}), NAME}, known
    assert subjects()[NAME].facts.display_name == "Toy Pay"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CASES)
async def test_it_passes(toy_market: Market, name: str) -> None:
    subject, case = subjects()[NAME], CASES[name]
    reason = case.lacks(subject)
    if reason is None:
        await case.run(toy_market, subject.here(toy_market))
        return
    assert reason.strip()
    if case.refused is not None:
        await case.refused(toy_market, subject.here(toy_market))
