"""An upload as it comes in: bounded while it is read, spooled to a file without a name, refused if it breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from services.reconciler.domain.errors import FileTooLarge, FileTruncated, TooManyUploads
from services.reconciler.use_cases.settlement_ports import RawFile
from shared.errors import FieldError, InvalidRequest

MAX_FIELDS = 3
MAX_FIELD_BYTES = 1024
ENVELOPE_BYTES = 64 * 1024
"""What the form may have around the file: boundaries, headers, the other fields."""


@dataclass(frozen=True, slots=True)
class Upload:
    fields: dict[str, str]
    raw: RawFile
    name: str


@asynccontextmanager
async def receive_upload(request: Request, *, max_bytes: int) -> AsyncIterator[Upload]:
    """The form's text fields and its part ``file``. Raises FileTooLarge, InvalidRequest or TooManyUploads.

    A size that is announced is judged before anything is read, and so is whether there is room: whoever has to wait is
    told so, because a slow sender may take his time. Of an upload that breaks off nothing is left.
    """
    limit = max_bytes + ENVELOPE_BYTES
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise FileTooLarge
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidRequest("The body is multipart/form-data with a part `file`.")
    turns = cast(asyncio.Semaphore, request.app.state.uploads)
    if turns.locked():
        raise TooManyUploads
    async with turns:
        form = await _parsed(request, limit)
        async with _closing(form):
            yield _upload(form)


async def _parsed(request: Request, limit: int) -> FormData:
    try:
        return await _FormParser(request, limit).parse()
    except MultiPartException as error:
        raise InvalidRequest(error.message) from error
    except ClientDisconnect as error:  # the parser has closed what there was; nobody reads the answer
        raise FileTruncated from error


class _FormParser(MultiPartParser):
    """Starlette's takes a form that has no end for a whole one. What is raised here makes it close its files."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        pieces = self._pieces(request, max_bytes)
        super().__init__(request.headers, pieces, max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
        self._has_ended = False

    def on_end(self) -> None:
        self._has_ended = True

    async def _pieces(self, request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """Raises FileTooLarge where more comes than was announced, or nothing was; FileTruncated."""
        size = 0
        async for piece in request.stream():
            size += len(piece)
            if size > max_bytes:
                raise FileTooLarge
            yield piece
        if not self._has_ended:
            raise FileTruncated


@asynccontextmanager
async def _closing(form: FormData) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await form.close()


def _upload(form: FormData) -> Upload:
    fields: dict[str, str] = {}
    file: UploadFile | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name == "file":
            file = value
        elif isinstance(value, str) and name not in fields:
            fields[name] = value
        else:
            raise InvalidRequest(errors=[FieldError(f"/{name[:40]}", "is not expected here", "unexpected")])
    if file is None:
        raise InvalidRequest(errors=[FieldError("/file", "is missing", "missing")])
    file.file.flush()
    return Upload(fields, file.file, file.filename or "")  # asked for its descriptor, the spool moves to the disk
