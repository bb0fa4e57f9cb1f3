"""Uploads take room before they are read: so many, and no more, whatever is sent (RC16)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.reconciler.main import create_application
from shared.web import deadline
from tests.integration.reconciler.conftest import BuildWorld
from tests.integration.reconciler.test_settlement_api import PATH, files, over_http, sends
from tests.support.settlement_bytes import a_file


async def test_more_uploads_than_there_is_room_for_are_not_read(build_world: BuildWorld) -> None:
    world = over_http(await build_world(settlement_uploads_at_once=1))
    has_begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        has_begun.set()
        yield b"--x"
        await goes_on.wait()

    headers = world.token("recon:write") | {"content-type": "multipart/form-data; boundary=x"}
    slow = asyncio.create_task(world.http.post(PATH, content=slowly(), headers=headers))
    await has_begun.wait()
    refused = await sends(world, a_file())
    assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (503, "too_many_uploads", True)
    assert await files(world) == []
    goes_on.set()
    assert (await slow).status_code == 422
    assert (await sends(world, a_file())).status_code == 201, "an upload that failed has left its place"
    await world.http.aclose()


async def test_an_upload_may_last_as_long_as_it_keeps_coming(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: set[str] = set()
    monkeypatch.setattr(deadline, "_LARGE_BODY_PATHS", paths)
    create_application((await build_world()).container)
    assert paths == {PATH}
