"""What ``payrail reconcile`` needs of the reconciler's API. Errors say what to do next."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deploy.cli.errors import CommandFailed
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller, StreamPolicy, build_http_client
from shared.ports import Ports, system_ports

PREFIX = "/api/v1/reconciliation"
CHUNK_BYTES = 256 * 1024
PAGE = 200
_READ = CallPolicy(budget_seconds=30, repeatable=True, reads_problems=True, max_bytes=32 * 1024 * 1024)
_WRITE = CallPolicy(budget_seconds=30, attempts=1, reads_problems=True)
_UPLOAD = CallPolicy(budget_seconds=3_600, attempts=1, reads_problems=True)
_DOWNLOAD = StreamPolicy(budget_seconds=3_600)
_NEXT = {
    "unauthenticated": "pass --token or set PAYRAIL_TOKEN (see `payrail token --help`).",
    "forbidden": "the token needs the scopes recon:read and recon:write.",
    "second_person_needed": "somebody else runs the same command with a token of their own.",
    "case_resolved": "`payrail reconcile case ID` shows how.",
}


@asynccontextmanager
async def connected(url: str, token: str | None) -> AsyncIterator[ReconcilerClient]:
    """Raises CommandFailed, also for everything that goes wrong while it is used."""
    ports = system_ports()
    bearer = token or _development_token()
    try:
        async with build_http_client(ports, read_seconds=120) as client:
            yield ReconcilerClient(HttpCaller(client, ports), ports, url.rstrip("/"), bearer)
    except GatewayUnavailable as error:
        raise CommandFailed(
            f"nothing answers at {url}: is `make run` up? --url or RECONCILER_URL says where the reconciler is."
        ) from error
    except GatewayOutcomeUnknown as error:
        raise CommandFailed(
            f"{url} did not answer to the end. Every command may be repeated: what was done is not done twice."
        ) from error


class ReconcilerClient:
    def __init__(self, caller: HttpCaller, ports: Ports, url: str, bearer: str) -> None:
        self._caller = caller
        self._ports = ports
        self._base = f"{url}{PREFIX}"
        self._headers = {"authorization": f"Bearer {bearer}"}

    async def pause(self, seconds: float) -> None:
        await self._ports.clock.sleep(seconds)

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = await self._caller.send(
            "GET", f"{self._base}/{path}", policy=_READ, headers=self._headers, params=params
        )
        return _document(answer)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = self._headers | {"content-type": "application/json"}
        content = json.dumps(body).encode()
        answer = await self._caller.send(
            "POST", f"{self._base}/{path}", policy=_WRITE, headers=headers, content=content
        )
        return _document(answer)

    async def cases(self, filters: Mapping[str, str], *, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(found) < limit:
            params = {**filters, "limit": str(min(PAGE, limit - len(found)))} | ({"cursor": cursor} if cursor else {})
            page = await self.get("cases", params)
            found.extend(page["data"])
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    async def run_of_file(self, file_id: str) -> dict[str, Any] | None:
        """The newest run that reads it, as far as it is among the newest."""
        page = await self.get("runs", {"kind": "settlement", "limit": "50"})
        return next((run for run in page["data"] if run.get("file_id") == file_id), None)

    async def upload(self, path: Path, fields: Mapping[str, str], *, told: Callable[[int], None]) -> dict[str, Any]:
        """``told`` hears how many bytes of the file were sent each time. The file is never in memory as a whole."""
        boundary = f"payrail-{self._ports.randomness.token_bytes(16).hex()}"
        head, tail = _form(path.name, fields, boundary)
        headers = self._headers | {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(len(head) + _size(path) + len(tail)),
        }

        async def body() -> AsyncIterator[bytes]:
            yield head
            with path.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    yield chunk
                    told(len(chunk))
            yield tail

        answer = await self._caller.send(
            "POST", f"{self._base}/settlement-files", policy=_UPLOAD, headers=headers, content=body()
        )
        return _document(answer)

    async def download(self, path: str) -> AsyncIterator[bytes]:
        async with self._caller.stream(f"{self._base}/{path}", policy=_DOWNLOAD, headers=self._headers) as answer:
            if answer.status != 200:
                body = b"".join([chunk async for chunk in answer.chunks])
                _document(HttpAnswer(answer.status, answer.headers, body))
            async for chunk in answer.chunks:
                yield chunk


def _document(answer: HttpAnswer) -> dict[str, Any]:
    """Raises CommandFailed with the problem's own words, and what to do about it."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise CommandFailed(f"what answers there ({answer.status}) is no reconciler: see --url and RECONCILER_URL.")
    if answer.status < 300:
        return document
    code = document.get("code", "")
    details = "; ".join(f"{each.get('pointer')}: {each.get('detail')}" for each in document.get("errors") or ())
    words = [document.get("detail") or f"the reconciler answered {answer.status}.", details, _NEXT.get(code, "")]
    raise CommandFailed(" ".join(filter(None, words)))


def _form(name: str, fields: Mapping[str, str], boundary: str) -> tuple[bytes, bytes]:
    """What stands before and after the file's bytes."""
    quoted = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()


def _size(path: Path) -> int:
    return path.stat().st_size


def _development_token() -> str:
    path = Path(os.environ.get("PAYRAIL_DATA", ".payrail")) / "operator.token"
    if not path.exists():
        raise CommandFailed(
            f"pass --token or set PAYRAIL_TOKEN (see `payrail token --help`): {path} does not exist because "
            "`make run` is not up here."
        )
    return path.read_text(encoding="utf-8").strip()
