"""From a file as it came to its content: unpacked within bounds, and told apart into text, JSON and spreadsheet.

Nothing is ever written to a path, and a name in an archive is only looked at (failure RC16).
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from services.reconciler.settlement_formats.limits import MiB, ReadingLimits
from services.reconciler.settlement_formats.port import Incomplete, Unreadable

SNIFFED_BYTES = 64 * 1024
BUFFER_BYTES = 256 * 1024
MAX_DIRECTORY_BYTES = MiB
"""Of a zip archive: thousands of entries, and not the millions that would fill the memory."""

_GZIP, _ZIP, _EMPTY_ZIP = b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06"
_DIRECTORY_END, _DIRECTORY_END_SIZE = b"PK\x05\x06", 22
_LONGEST_COMMENT = 65_535
_OTHER_PACKERS = (b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x1f\x9d")
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_WORKBOOK, _PARTS = "xl/workbook.xml", "[Content_Types].xml"
_ENCRYPTED = 0x1
_UTF8_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1a"))
_MOST_CONTROLS = 0.01


class Kind(StrEnum):
    TEXT = "text"
    JSON = "json"
    WORKBOOK = "workbook"


@dataclass(frozen=True, slots=True)
class Opened:
    """A content that can be read from its beginning any number of times."""

    kind: Kind
    encoding: str
    stream: Callable[[], Content]
    """Of a workbook: the file itself."""
    raw: BinaryIO


class Content(io.RawIOBase):
    """A stream that keeps to the limits of content, and to being text where it has to be.

    ``look`` is given every piece that is read. Raises Unreadable or Incomplete while it is read.
    """

    def __init__(self, source: BinaryIO, packed: Callable[[], int], limits: ReadingLimits, *, is_text: bool) -> None:
        super().__init__()
        self._source = source
        self._packed = packed
        self._limits = limits
        self._is_text = is_text
        self.size = 0
        self.look: Callable[[memoryview], None] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)
        try:
            count = self._source.readinto(view)  # type: ignore[attr-defined]
        except EOFError:
            raise Incomplete("truncated", "the archive ends before its content does") from None
        except (zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise Unreadable("archive_refused", f"the archive is damaged: {type(error).__name__}") from None
        self._check(view[:count])
        return int(count)

    def _check(self, piece: memoryview) -> None:
        self.size += len(piece)
        if self.size > self._limits.max_content_bytes:
            raise too_large(f"its content is larger than {self._limits.max_content_bytes} bytes")
        if self.size > MiB and self.size > self._limits.max_expansion_ratio * max(self._packed(), 1):
            raise Unreadable(
                "archive_refused", f"it expands to more than {self._limits.max_expansion_ratio} times its size"
            )
        if self._is_text and 0 in bytes(piece):
            raise binary()
        if self.look is not None:
            self.look(piece)


def open_file(raw: BinaryIO, limits: ReadingLimits) -> Opened:
    """``raw`` has to stay open, and belongs to what is opened. Raises Unreadable or Incomplete."""
    size = raw.seek(0, io.SEEK_END)
    raw.seek(0)
    if size == 0:
        raise empty()
    if size > limits.max_bytes:
        raise too_large(f"it is larger than {limits.max_bytes} bytes")
    magic = raw.read(8)
    if magic.startswith(_GZIP):
        return _told_apart(raw, lambda is_text: _gunzipped(raw, limits, is_text), is_packed=True)
    if magic.startswith((_ZIP, _EMPTY_ZIP)):
        return _from_zip(raw, size, limits)
    return _told_apart(raw, lambda is_text: _plain(raw, size, limits, is_text), is_packed=False)


def too_large(detail: str) -> Unreadable:
    return Unreadable("too_large", detail)


def binary(detail: str = "the file is neither text nor a spreadsheet") -> Unreadable:
    return Unreadable("binary", detail)


def empty() -> Unreadable:
    return Unreadable("empty", "the file is empty")


def _plain(raw: BinaryIO, size: int, limits: ReadingLimits, is_text: bool) -> Content:
    raw.seek(0)
    return Content(raw, lambda: size, limits, is_text=is_text)


def _gunzipped(raw: BinaryIO, limits: ReadingLimits, is_text: bool) -> Content:
    raw.seek(0)
    source = gzip.GzipFile(fileobj=raw, mode="rb")
    return Content(source, raw.tell, limits, is_text=is_text)  # type: ignore[arg-type]


def _told_apart(raw: BinaryIO, stream: Callable[[bool], Content], *, is_packed: bool) -> Opened:
    """By its first bytes."""
    head = io.BufferedReader(stream(False), SNIFFED_BYTES).read(SNIFFED_BYTES)
    if head.startswith((_GZIP, _ZIP, _EMPTY_ZIP, *_OTHER_PACKERS)):
        if is_packed:
            raise Unreadable("archive_refused", "an archive within an archive is not opened")
        raise binary("it is packed in a way that is not understood; send it as it is, or as gzip or zip")
    if head.startswith(_OLD_OFFICE):
        raise binary("it is an encrypted or an old Excel file; save it as .xlsx without a password, or as CSV")
    encoding = "utf-8-sig"
    if head.startswith(_UTF16_BOMS):
        encoding = "utf-16"
    elif 0 in head or sum(map(head.count, _control_bytes())) > _MOST_CONTROLS * len(head):
        raise binary()
    text = head.decode(encoding, errors="ignore").lstrip()
    if not text:
        raise empty()
    is_utf16 = encoding == "utf-16"
    return Opened(Kind.JSON if text[0] in "{[" else Kind.TEXT, encoding, lambda: stream(not is_utf16), raw)


def _control_bytes() -> list[bytes]:
    return [bytes([code]) for code in _CONTROLS]


# --- zip ----------------------------------------------------------------------------------------------------------


def _from_zip(raw: BinaryIO, size: int, limits: ReadingLimits) -> Opened:
    _check_directory(raw, size)
    try:
        archive = zipfile.ZipFile(raw)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise Unreadable("archive_refused", f"the zip archive is damaged: {type(error).__name__}") from None
    names = set(archive.namelist())
    if _WORKBOOK in names and _PARTS in names:
        for part in archive.infolist():
            _check_member(part, limits)
        if sum(part.file_size for part in archive.infolist()) > limits.max_content_bytes:
            raise too_large(f"the workbook expands to more than {limits.max_content_bytes} bytes")
        return Opened(Kind.WORKBOOK, "", lambda: _plain(raw, size, limits, is_text=False), raw)
    member = _only_member(archive)
    _check_member(member, limits)

    def stream(is_text: bool) -> Content:
        try:
            source = archive.open(member)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise Unreadable("archive_refused", f"the zip archive is damaged: {type(error).__name__}") from None
        return Content(source, lambda: member.compress_size, limits, is_text=is_text)  # type: ignore[arg-type]

    return _told_apart(raw, stream, is_packed=True)


def _check_directory(raw: BinaryIO, size: int) -> None:
    """Before zipfile takes all of an archive's directory into the memory."""
    start = max(0, size - _DIRECTORY_END_SIZE - _LONGEST_COMMENT)
    raw.seek(start)
    tail = raw.read(size - start)
    at = tail.rfind(_DIRECTORY_END)
    if at < 0 or len(tail) - at < _DIRECTORY_END_SIZE:
        raise Incomplete("truncated", "the zip archive ends before its directory")
    if int.from_bytes(tail[at + 12 : at + 16], "little") > MAX_DIRECTORY_BYTES:
        raise Unreadable("archive_refused", "the archive has too many entries")


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_litter(entry.filename)]
    if not members:
        raise Unreadable("archive_refused", "the archive holds no file")
    if len(members) > 1:
        raise Unreadable("archive_refused", f"the archive holds {len(members)} files; send them one by one")
    return members[0]


def _is_litter(name: str) -> bool:
    """What macOS and Windows add to archives by themselves."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "Thumbs.db")


def _check_member(member: zipfile.ZipInfo, limits: ReadingLimits) -> None:
    """zipfile gives no more bytes of a member than its entry announces, so what it announces can be judged at once."""
    parts = member.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise Unreadable("archive_refused", "the archive names a file outside itself")
    if member.flag_bits & _ENCRYPTED:
        raise Unreadable("archive_refused", "the archive is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unreadable("archive_refused", "the archive is packed by an unusual method")
    if member.file_size > limits.max_content_bytes:
        raise too_large(f"its content is larger than {limits.max_content_bytes} bytes")
    if member.file_size > MiB and member.file_size > limits.max_expansion_ratio * max(member.compress_size, 1):
        raise Unreadable("archive_refused", f"it expands to more than {limits.max_expansion_ratio} times its size")
