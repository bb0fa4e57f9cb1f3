"""The stacks of the end-to-end tests: each is started once per worker, and every test works on orders of its own.

They end with the last test of this package, not with the session: nineteen processes that wait for work take a quarter
of a core from the thousands of tests that follow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.e2e.shop import Shop
from tests.e2e.stack import DistributedStack, EmbeddedStack, Stack
from tests.support.browser import LaunchOptions

S = TypeVar("S", bound=Stack)


@pytest.fixture(scope="package")
def embedded_stack() -> Iterator[EmbeddedStack]:
    yield from _running(EmbeddedStack())


@pytest.fixture(scope="package")
def distributed_stack() -> Iterator[DistributedStack]:
    yield from _running(DistributedStack())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(browser_launch_options: LaunchOptions) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**browser_launch_options)
        yield browser
        await browser.close()


def _running(stack: S) -> Iterator[S]:
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


BOTH = [
    pytest.param("embedded_stack", id="embedded", marks=pytest.mark.xdist_group("embedded")),
    pytest.param("distributed_stack", id="distributed", marks=pytest.mark.xdist_group("distributed")),
]


ONLY_DISTRIBUTED = pytest.mark.parametrize("stack", BOTH[1:], indirect=True)
"""Where the embedded stack would show the same once more."""


@pytest.fixture(params=BOTH)
def stack(request: pytest.FixtureRequest) -> Stack:
    """Every test that asks for it runs once embedded and once distributed."""
    found: Stack = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    shop = Shop(stack)
    await shop.restock()
    yield shop
    await shop.no_faults()
    await shop.close()
