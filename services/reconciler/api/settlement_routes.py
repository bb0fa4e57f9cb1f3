"""Settlement files over HTTP: send them in, see what became of them, take them out again."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from services.reconciler.api.dependencies import Reader, UseCaseContext, Writer, documents_bearer
from services.reconciler.api.schemas import GatewayName
from services.reconciler.api.settlement_schemas import FileDetailOut, FileOut, FilePage, ReceivedFileOut
from services.reconciler.api.uploads import receive_upload
from services.reconciler.domain.settlement import FileStatus
from services.reconciler.use_cases.receive_file import Arrival, content_of, receive_file
from services.reconciler.use_cases.settlement_ports import FileFilter
from shared.errors import FieldError, InvalidRequest, NotFound
from shared.web.problems import problem_responses

PREFIX = "/api/v1/reconciliation/settlement-files"
router = APIRouter(prefix=PREFIX, tags=["settlement"], dependencies=[documents_bearer])

SHOWN_PROBLEMS = 100

# The route bounds what it reads by SETTLEMENT_MAX_BYTES itself: the framework's limit cannot be a setting.
_NO_FRAMEWORK_LIMIT = 1 << 62

_FILE_ID = re.compile(r"stf_[0-9a-z]{26}")
_NOT_IN_A_HEADER = re.compile(r"[^A-Za-z0-9._-]")
_AUTH = problem_responses(401, 403)


def file_id_of(file_id: Annotated[str, Path(max_length=100)]) -> str:
    """An id that is not one of ours is simply not found, whatever it looks like. Raises NotFound."""
    if _FILE_ID.fullmatch(file_id) is None:
        raise NotFound
    return file_id


FileId = Annotated[str, Depends(file_id_of)]


class UploadFields(BaseModel):
    """What comes beside the file."""

    model_config = ConfigDict(extra="forbid")

    gateway: GatewayName
    account: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9._-]*$")
    format: str | None = Field(None, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")

    @field_validator("format", mode="before")
    @classmethod
    def _blank_is_none(cls, value: object) -> object:
        return value or None  # what a browser sends of a field that was left empty


_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["gateway", "file"],
                    "properties": {
                        "gateway": {"type": "string", "pattern": "^[a-z][a-z0-9_]{1,31}$"},
                        "account": {"type": "string", "description": "where the gateway has several of ours"},
                        "format": {"type": "string", "description": "its name; left out: recognised by its columns"},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=201,
    responses={
        **_AUTH,
        200: {"description": "The same content was here before", "model": ReceivedFileOut},
        **problem_responses(400, 413, 422, 503),
    },
    openapi_extra=_UPLOAD,
    max_body_size=_NO_FRAMEWORK_LIMIT,
)
async def send_settlement_file(
    request: Request, context: UseCaseContext, writer: Writer, response: Response
) -> ReceivedFileOut:
    """Store a gateway's settlement file; the worker reads it.

    CSV (comma, semicolon, tab or pipe), XLSX or JSON; also packed as gzip, or alone in a zip. What cannot be read is
    refused at once, and nothing of it is stored. The same content again, however it is called or packed, is 200 and
    the file that is known.
    """
    async with receive_upload(request, max_bytes=context.intake.max_bytes) as upload:
        fields = _fields(upload.fields)
        arrival = Arrival(
            raw=upload.raw,
            name=upload.name,
            source="upload",
            received_by=writer.subject,
            gateway=fields.gateway,
            account=fields.account,
            format_name=fields.format,
        )
        received = await receive_file(arrival, context)
    if received.is_duplicate:
        response.status_code = 200
    response.headers["Location"] = f"{PREFIX}/{received.file.file_id}"
    return ReceivedFileOut.received(received.file, is_duplicate=received.is_duplicate)


@router.get("", responses={**_AUTH, **problem_responses(422, 503)})
async def list_settlement_files(
    context: UseCaseContext,
    _: Reader,
    gateway: GatewayName | None = None,
    status: FileStatus | None = None,
    cursor: Annotated[str | None, Query(pattern=r"^stf_[0-9a-z]{26}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> FilePage:
    """Files, newest first."""
    async with context.uow() as tx:
        found = await tx.files.search(FileFilter(gateway, status), after=cursor, limit=limit + 1)
    page = [FileOut.of(file) for file in found[:limit]]
    return FilePage(data=page, next_cursor=page[-1].file_id if len(found) > limit else None)


@router.get("/{file_id}", responses={**_AUTH, **problem_responses(404, 422, 503)})
async def get_settlement_file(file_id: FileId, context: UseCaseContext, _: Reader) -> FileDetailOut:
    """One file, with its first bad rows and its totals."""
    async with context.uow() as tx:
        file = await tx.files.get(file_id)
        if file is None:
            raise NotFound
        problems = await tx.files.problems(file_id, limit=SHOWN_PROBLEMS)
        totals = await tx.files.totals(file_id)
    return FileDetailOut.detailed(file, problems, totals)


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={
        **_AUTH,
        200: {
            "description": "The file as it came, byte for byte",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problem_responses(404, 422, 503),
    },
)
async def get_settlement_file_content(file_id: FileId, context: UseCaseContext, _: Reader) -> StreamingResponse:
    """The file as it came."""
    async with context.uow() as tx:
        file = await tx.files.get(file_id)
    if file is None:
        raise NotFound
    return StreamingResponse(
        content_of(file_id, context.uow),
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": content_disposition(file.name),
            "Content-Length": str(file.size_bytes),
            "X-Content-Type-Options": "nosniff",
        },
    )


def content_disposition(name: str) -> str:
    """A browser saves it under this name and never shows it, whatever the name is."""
    plain = _NOT_IN_A_HEADER.sub("_", name).lstrip(".") or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _fields(values: dict[str, str]) -> UploadFields:
    try:
        return UploadFields.model_validate(values)
    except ValidationError as error:
        fields = [
            FieldError("/" + "/".join(map(str, entry["loc"])), entry["msg"], entry["type"])
            for entry in error.errors(include_input=False, include_url=False)
        ]
        raise InvalidRequest("Some fields are missing or wrong; see errors.", errors=fields) from None
