"""The JSON of settlement files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from services.reconciler.domain.settlement import BadRow, SettlementFile
from services.reconciler.use_cases.settlement_ports import FileTotal
from shared.contracts.envelope import Rfc3339


class FileOut(BaseModel):
    """A settlement file as it is kept, and what reading it has shown so far."""

    file_id: str
    gateway: str
    account: str | None = Field(description="null: the gateway's only account")
    format: str
    format_version: int
    name: str = Field(description="as it was called where it came from")
    source: Literal["upload", "folder", "report_api"]
    received_by: str
    status: Literal["received", "read", "incomplete", "refused"] = Field(
        description="received: waits to be read; incomplete: a part is missing, nothing of it was applied"
    )
    problem: str | None = Field(description="why it is incomplete or refused, for programs")
    problem_detail: str | None
    size_bytes: int
    content_bytes: int = Field(description="after expansion")
    content_sha256: str = Field(description="hex, of the content after expansion; of a workbook as it is")
    rows: int
    lines: int
    repeated_lines: int = Field(description="lines that an earlier file has told already; they count nothing")
    bad_rows: int
    covers_from: Rfc3339 | None
    covers_until: Rfc3339 | None
    result_digest: str | None = Field(description="hex: the same inputs give the same digest")
    received_at: Rfc3339
    read_at: Rfc3339 | None

    @classmethod
    def of(cls, file: SettlementFile) -> FileOut:
        return cls.model_validate(_values(file))


class ReceivedFileOut(FileOut):
    duplicate: bool = Field(description="the same content was here before; this is that file")

    @classmethod
    def received(cls, file: SettlementFile, *, is_duplicate: bool) -> ReceivedFileOut:
        return cls.model_validate(_values(file) | {"duplicate": is_duplicate})


class BadRowOut(BaseModel):
    line_number: int
    code: str
    detail: str


class FileTotalOut(BaseModel):
    """What the lines of one currency add up to, in its minor unit; lines that an earlier file has told are left out."""

    currency: str
    lines: int
    gross_minor: int
    fee_minor: int
    tax_minor: int
    net_minor: int


class FileDetailOut(FileOut):
    problems: list[BadRowOut] = Field(description="the first bad rows")
    totals: list[FileTotalOut]

    @classmethod
    def detailed(cls, file: SettlementFile, problems: Sequence[BadRow], totals: Sequence[FileTotal]) -> FileDetailOut:
        return cls.model_validate(
            _values(file)
            | {"problems": [problem._asdict() for problem in problems], "totals": [total._asdict() for total in totals]}
        )


class FilePage(BaseModel):
    data: list[FileOut]
    next_cursor: str | None


def _values(file: SettlementFile) -> dict[str, object]:
    return {
        "file_id": file.file_id,
        "gateway": file.gateway,
        "account": file.account or None,
        "format": file.format,
        "format_version": file.format_version,
        "name": file.name,
        "source": file.source,
        "received_by": file.received_by,
        "status": file.status.value,
        "problem": file.problem,
        "problem_detail": file.problem_detail,
        "size_bytes": file.size_bytes,
        "content_bytes": file.content_bytes,
        "content_sha256": file.content_sha256.hex(),
        "rows": file.rows,
        "lines": file.lines,
        "repeated_lines": file.repeated_lines,
        "bad_rows": file.bad_rows,
        "covers_from": file.covers_from,
        "covers_until": file.covers_until,
        "result_digest": None if file.result_digest is None else file.result_digest.hex(),
        "received_at": file.received_at,
        "read_at": file.read_at,
    }
