"""Settlement files for tests, in every wrapping, honest and hostile."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import openpyxl

HEADER = (
    "balance_transaction_id",
    "created_utc",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "source_id",
    "automatic_payout_id",
    "description",
)


def a_row(number: int = 1, **changes: str) -> tuple[str, ...]:
    values = {
        "balance_transaction_id": f"txn_{number:08d}",
        "created_utc": f"2026-01-02 03:{number // 60 % 60:02d}:{number % 60:02d}",
        "currency": "usd",
        "gross": "19.99",
        "fee": "0.88",
        "net": "19.11",
        "reporting_category": "charge",
        "source_id": f"ch_{number:08d}",
        "automatic_payout_id": "po_1",
        "description": "",
    }
    return tuple((values | changes)[name] for name in HEADER)


def a_table(rows: Iterable[Iterable[str]], *, delimiter: str = ",", line_end: str = "\n") -> bytes:
    return "".join(delimiter.join(row) + line_end for row in (HEADER, *rows)).encode()


def a_file(count: int = 3) -> bytes:
    """A Stripe payout reconciliation of so many sales."""
    return a_table(a_row(number) for number in range(1, count + 1))


def zipped(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Always the same bytes: they become ids of tests, which workers that collect at different seconds compare."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return buffer.getvalue()


def a_workbook(sheets: Mapping[str, Iterable[Iterable[Any]]]) -> bytes:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def with_part(workbook: bytes, name: str, content: bytes) -> bytes:
    """The workbook with one of its parts replaced."""
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    return zipped(parts | {name: content})


def part_of(workbook: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        return archive.read(name)


def a_gzip_bomb(megabytes: int = 1000) -> bytes:
    """A header that is recognised, then the same row over and over: about a kB for each MB, made in a moment."""
    row = (",".join(a_row()) + "\n").encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(a_file(1)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(row * (1024 * 1024 // len(row))) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * megabytes


def a_zip_bomb(gigabytes: int = 1) -> bytes:
    """A few kB that announce a GB of zeros."""
    small = zipped({"settlement.csv": b"0" * 4_000_000})
    size = (4_000_000).to_bytes(4, "little")
    return small.replace(size, (gigabytes * 10**9).to_bytes(4, "little"))


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
