"""Settlement files over HTTP: one by its content, refused with a reason, never stored half (RC1, RC2, RC16)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from services.reconciler.api.settlement_routes import content_disposition
from services.reconciler.main import create_application
from tests.integration.reconciler.conftest import BuildWorld, World
from tests.support.settlement_bytes import a_file, a_gzip_bomb, a_workbook, gzipped, zipped
from tests.support.settlement_reader import InProcessReader

PATH = "/api/v1/reconciliation/settlement-files"


def over_http(world: World) -> World:
    """The world with a reader in this process: what is tested here is everything around it."""
    context = replace(world.container.context, reader=InProcessReader(world.container.settings.reading.limits))
    application = create_application(replace(world.container, context=context))
    world.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://reconciler.test")
    return world


@pytest.fixture
async def api(world: World) -> AsyncIterator[World]:
    before = world.http
    yield over_http(world)
    await world.http.aclose()
    world.http = before


async def sends(world: World, content: bytes, name: str = "January.csv", **fields: str) -> httpx.Response:
    return await world.http.post(
        PATH,
        data={"gateway": "stripe"} | fields,
        files={"file": (name, content, "text/csv")},
        headers=world.token("recon:write", subject="finance@example.com"),
    )


async def files(world: World) -> list[dict[str, Any]]:
    return await world.rows("SELECT * FROM settlement_files ORDER BY file_id")


async def asks(world: World, path: str, **query: str) -> httpx.Response:
    return await world.http.get(PATH + path, params=query, headers=world.token("recon:read"))


async def test_a_file_is_stored_read_about_and_taken_out_again(world: World) -> None:
    """The only test here with the real reader."""
    content = gzipped(a_file(50))
    answer = await sends(world, content, "Jan/uary.csv.gz", account="eu")
    assert answer.status_code == 201, answer.text
    file = answer.json()
    assert answer.headers["location"] == f"{PATH}/{file['file_id']}"
    assert (file["gateway"], file["account"], file["format"]) == ("stripe", "eu", "stripe_payout_reconciliation")
    assert (file["status"], file["received_by"], file["name"]) == ("received", "finance@example.com", "uary.csv.gz")
    assert (file["size_bytes"], file["content_bytes"]) == (len(content), len(a_file(50)))
    assert file["duplicate"] is False
    detail = (await asks(world, f"/{file['file_id']}")).json()
    assert {key: detail[key] for key in file if key != "duplicate"} == {
        key: value for key, value in file.items() if key != "duplicate"
    }
    assert (detail["problems"], detail["totals"]) == ([], [])
    taken = await asks(world, f"/{file['file_id']}/content")
    assert taken.content == content
    assert taken.headers["content-disposition"].startswith('attachment; filename="uary.csv.gz"')
    assert taken.headers["x-content-type-options"] == "nosniff"
    refused = await sends(world, b"date,amount\n2026-01-02,1.00\n")
    assert (refused.status_code, refused.json()["code"]) == (422, "format_unknown")
    bomb = await sends(world, a_gzip_bomb())
    assert (bomb.status_code, bomb.json()["code"]) == (422, "archive_refused")
    assert len(await files(world)) == 1


async def test_the_same_content_is_one_file_whatever_it_is_called_and_packed_in(api: World) -> None:
    """RC1."""
    first = await sends(api, a_file())
    again = [
        await sends(api, a_file()),
        await sends(api, a_file(), "renamed.txt"),
        await sends(api, gzipped(a_file())),
        await sends(api, zipped({"x.csv": a_file()}), "x.zip"),
    ]
    assert first.status_code == 201
    assert [answer.status_code for answer in again] == [200] * 4
    assert {answer.json()["file_id"] for answer in again} == {first.json()["file_id"]}
    assert all(answer.json()["duplicate"] and answer.json()["name"] == "January.csv" for answer in again)
    other = await sends(api, a_file(), account="EU")
    assert (other.status_code, other.json()["code"]) == (409, "known_elsewhere"), "booked once, for one account"
    assert first.json()["file_id"] in other.json()["detail"]
    assert len(await files(api)) == 1


async def test_ten_at_once_are_one_file(build_world: BuildWorld) -> None:
    """RC1."""
    replicas = [
        over_http(await build_world(settlement_files_at_once=5, settlement_database_pool_size=5)) for _ in range(2)
    ]
    content = a_file(20_000)
    answers = await asyncio.gather(*(sends(replicas[number % 2], content) for number in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["file_id"] for answer in answers}) == 1
    assert len(await files(replicas[0])) == 1
    (stored,) = await replicas[0].rows("SELECT sum(octet_length(content)) AS size FROM settlement_file_chunks")
    assert stored["size"] == len(content)
    for replica in replicas:
        await replica.http.aclose()


@pytest.mark.parametrize(
    ("content", "fields", "code"),
    [
        (b"", {}, "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", {}, "binary"),
        (a_file(), {"gateway": "paypal"}, "wrong_gateway"),
        (b"date,amount\n", {}, "format_unknown"),
        (a_file(), {"format": "no_such"}, "format_unknown"),
        (gzipped(a_file(500))[:2000], {}, "truncated"),
        (a_gzip_bomb(), {}, "archive_refused"),
        (zipped({"a.csv": a_file(), "b.csv": a_file()}), {}, "archive_refused"),
        (zipped({"../a.csv": a_file()}), {}, "archive_refused"),
        (a_workbook({"S": [["x"] * 600]}), {}, "file_unreadable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    api: World, content: bytes, fields: dict[str, str], code: str
) -> None:
    """RC2, RC16."""
    answer = await sends(api, content, **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["detail"]
    assert await files(api) == []


# --- sizes ------------------------------------------------------------------------------------------------------------


async def _never_sent() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""
    raise AssertionError("the body was asked for")


async def test_five_gigabytes_are_refused_by_their_announcement(api: World) -> None:
    answer = await api.http.post(
        PATH,
        content=_never_sent(),
        headers=api.token("recon:write")
        | {"content-type": "multipart/form-data; boundary=x", "content-length": str(5 * 1024**3)},
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_who_may_not_send_is_not_listened_to(api: World) -> None:
    """RC17."""
    for headers, status in (({}, 401), (api.token("recon:read"), 403)):
        answer = await api.http.post(
            PATH, content=_never_sent(), headers=headers | {"content-type": "multipart/form-data; boundary=x"}
        )
        assert answer.status_code == status


async def test_a_body_that_was_not_announced_is_refused_when_it_grows_too_large(build_world: BuildWorld) -> None:
    world = over_http(await build_world(settlement_max_bytes=100_000))
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        while True:
            sent += 10_000
            yield b"x" * 10_000

    answer = await world.http.post(
        PATH,
        content=endless(),
        headers=world.token("recon:write") | {"content-type": "multipart/form-data; boundary=x"},
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert sent < 300_000
    await world.http.aclose()


async def test_other_routes_keep_their_own_limit(api: World) -> None:
    answer = await api.http.post(
        "/api/v1/reconciliation/runs", content=b'{"kind": "' + b"x" * 70_000, headers=api.token("recon:write")
    )
    assert answer.status_code == 413


# --- uploads that break off -------------------------------------------------------------------------------------------


def _form(content: bytes, *, end: bytes = b"\r\n--x--\r\n") -> bytes:
    return (
        b'--x\r\nContent-Disposition: form-data; name="gateway"\r\n\r\nstripe\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n' + content + end
    )


async def test_an_upload_that_breaks_off_stores_nothing(api: World) -> None:
    """RC2."""
    whole = _form(a_file(500))
    messages: Iterator[MutableMapping[str, Any]] = iter(
        [
            {"type": "http.request", "body": whole[: len(whole) // 2], "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> MutableMapping[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        assert message.get("status") != 201

    headers = api.token("recon:write") | {
        "content-type": "multipart/form-data; boundary=x",
        "content-length": str(len(whole)),
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    transport = api.http._transport
    assert isinstance(transport, httpx.ASGITransport)
    await transport.app(scope, receive, send)
    assert await files(api) == []


async def test_a_form_without_its_end_stores_nothing(api: World) -> None:
    """RC2: a proxy may cut a body and still say how long it is."""
    headers = api.token("recon:write") | {"content-type": "multipart/form-data; boundary=x"}
    cut = await api.http.post(PATH, content=_form(a_file(), end=b""), headers=headers)
    assert (cut.status_code, cut.json()["code"]) == (422, "truncated")
    assert await files(api) == []
    assert (await api.http.post(PATH, content=_form(a_file()), headers=headers)).status_code == 201


# --- the request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"gateway": "No Such"}, "/gateway"),
        ({"account": "a/b"}, "/account"),
        ({"format": "../x"}, "/format"),
        ({"surprise": "x"}, "/surprise"),
    ],
)
async def test_fields_are_checked(api: World, fields: dict[str, str], pointer: str) -> None:
    answer = await sends(api, a_file(), **fields)
    assert answer.status_code == 422
    assert [entry["pointer"] for entry in answer.json()["errors"]] == [pointer]


async def test_a_request_that_is_no_upload_is_refused(api: World) -> None:
    headers = api.token("recon:write")
    assert (await api.http.post(PATH, json={"gateway": "stripe"}, headers=headers)).status_code == 422
    nothing = await api.http.post(PATH, files={"other": ("a.csv", b"x")}, headers=headers)
    assert nothing.status_code == 422
    two = [("file", ("a.csv", a_file())), ("file", ("b.csv", a_file()))]
    assert (await api.http.post(PATH, data={"gateway": "stripe"}, files=two, headers=headers)).status_code == 422
    long = await sends(api, a_file(), account="x" * 5000)
    assert long.status_code == 422
    assert await files(api) == []


async def test_an_empty_format_field_is_none(api: World) -> None:
    assert (await sends(api, a_file(), format="", account="")).status_code == 201


# --- what is there ----------------------------------------------------------------------------------------------------


async def test_files_are_listed_newest_first_in_pages(api: World) -> None:
    ids = [(await sends(api, a_file(count))).json()["file_id"] for count in (1, 2, 3)]
    await api.execute("UPDATE settlement_files SET status = 'read' WHERE file_id = :id", id=ids[0])
    first = (await asks(api, "", limit="2")).json()
    assert [file["file_id"] for file in first["data"]] == [ids[2], ids[1]]
    second = (await asks(api, "", limit="2", cursor=first["next_cursor"])).json()
    assert ([file["file_id"] for file in second["data"]], second["next_cursor"]) == ([ids[0]], None)
    assert [file["file_id"] for file in (await asks(api, "", status="read")).json()["data"]] == [ids[0]]
    assert (await asks(api, "", gateway="paypal")).json()["data"] == []
    assert (await asks(api, "", cursor="x")).status_code == 422


async def test_what_is_not_there_is_not_found(api: World) -> None:
    for name in ("stf_" + "0" * 26, "run_" + "0" * 26, "..%2f..%2fetc", "x" * 90):
        assert (await asks(api, f"/{name}")).status_code == 404
        assert (await asks(api, f"/{name}/content")).status_code == 404


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("January.csv", "attachment; filename=\"January.csv\"; filename*=UTF-8''January.csv"),
        ('a"; x="\r\nb.csv', "attachment; filename=\"a___x____b.csv\"; filename*=UTF-8''a%22%3B%20x%3D%22%0D%0Ab.csv"),
        ("يناير.csv", "attachment; filename=\"_____.csv\"; filename*=UTF-8''%D9%8A%D9%86%D8%A7%D9%8A%D8%B1.csv"),
        ("...", "attachment; filename=\"file\"; filename*=UTF-8''..."),
    ],
)
def test_a_name_is_safe_in_a_header(name: str, header: str) -> None:
    assert content_disposition(name) == header
