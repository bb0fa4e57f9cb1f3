"""Files as they come are opened within bounds, and what is wrong with them is said (failures RC2, RC3, RC16)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime

import pytest

from services.reconciler.settlement_formats.content import Notes, Readable, Table, readables
from services.reconciler.settlement_formats.json_content import JsonContent
from services.reconciler.settlement_formats.limits import MiB, ReadingLimits
from services.reconciler.settlement_formats.opening import Kind, open_file
from services.reconciler.settlement_formats.port import Incomplete, Row, Unreadable
from services.reconciler.settlement_formats.workbook import Sheet, cell_text
from tests.support.settlement_bytes import (
    HEADER,
    a_file,
    a_gzip_bomb,
    a_row,
    a_table,
    a_workbook,
    a_zip_bomb,
    gzipped,
    part_of,
    with_part,
    zipped,
)

LIMITS = ReadingLimits()
A_MOMENT = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - a spreadsheet's times have no zone
ROWS = [HEADER, a_row(1), a_row(2), a_row(3)]


def opened(content: bytes, limits: ReadingLimits = LIMITS) -> list[Readable]:
    return list(readables(open_file(io.BytesIO(content), limits), limits))


def rows_of(content: bytes, notes: Notes | None = None, limits: ReadingLimits = LIMITS) -> list[Row]:
    (readable,) = opened(content, limits)
    assert isinstance(readable, Table | Sheet)
    return list(readable.rows(notes or Notes()))


def refusal(content: bytes, limits: ReadingLimits = LIMITS) -> str:
    with pytest.raises(Unreadable) as caught:
        rows_of(content, limits=limits)
    return caught.value.code


# --- wrappings --------------------------------------------------------------------------------------------------------

TEXT = a_file()


@pytest.mark.parametrize(
    "content",
    {
        "plain": TEXT,
        "bom": b"\xef\xbb\xbf" + TEXT,
        "utf16": TEXT.decode().encode("utf-16"),
        "windows": TEXT.replace(b"\n", b"\r\n"),
        "old_mac": TEXT.replace(b"\n", b"\r"),
        "no_last_newline": TEXT.removesuffix(b"\n"),
        "semicolon": TEXT.replace(b",", b";"),
        "tab": TEXT.replace(b",", b"\t"),
        "pipe": TEXT.replace(b",", b"|"),
        "gzip": gzipped(TEXT),
        "gzip_in_members": gzipped(TEXT[:300]) + gzipped(TEXT[300:]),
        "zip": zipped({"January.csv": TEXT}),
        "zip_stored": zipped({"January.csv": TEXT}, method=zipfile.ZIP_STORED),
        "zip_from_a_mac": zipped({"a/January.csv": TEXT, "__MACOSX/a/._January.csv": b"x", "a/.DS_Store": b"x"}),
        "workbook": a_workbook({"Sheet": ROWS}),
    }.items(),
    ids=lambda item: item[0],
)
def test_the_same_rows_come_out_of_every_wrapping(content: tuple[str, bytes]) -> None:
    rows = rows_of(content[1])
    assert [row.line_number for row in rows] == [1, 2, 3, 4]
    assert [tuple(row.cells[: len(HEADER) - 1]) for row in rows] == [row[:-1] for row in ROWS]


def test_a_row_is_numbered_by_its_first_physical_line() -> None:
    text = b'a,b\n"one\r\ntwo",x\n\n,\nlast,"quoted ""word"""\n'
    assert rows_of(text) == [
        Row(1, ["a", "b"]),
        Row(2, ["one\r\ntwo", "x"]),
        Row(6, ["last", 'quoted "word"']),
    ]


def test_the_delimiter_is_that_of_the_widest_of_the_first_lines() -> None:
    text = b"Report;from, to, and so on\nid;amount;fee;net;when\n1;2,50;0,10;2,40;x\n"
    assert rows_of(text)[1] == Row(2, ["id", "amount", "fee", "net", "when"])


# --- what is no file of ours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"\xef\xbb\xbf", b" \r\n\n", gzipped(b""), gzipped(b"\n"), zipped({"a.csv": b""})]
)
def test_an_empty_file_is_refused(content: bytes) -> None:
    assert refusal(content) == "empty"


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        b"7z\xbc\xaf\x27\x1c" + b"x" * 100,
        bytes(range(1, 256)) * 10,
        TEXT.decode().encode("utf-16-le"),
        TEXT + b"x" * 100_000 + b"\n\0",
        gzipped(TEXT + b"\n" + b"x" * 100_000 + b"\n\0"),
    ],
    ids=["png", "xls", "7z", "bytes", "utf-16 without bom", "nul far inside", "nul in gzip"],
)
def test_binary_is_refused(content: bytes) -> None:
    assert refusal(content) == "binary"


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "no file"),
        ({"a.csv": TEXT, "b.csv": TEXT}, "2 files"),
        ({"../../etc/cron.d/x": TEXT}, "outside"),
        ({"/etc/passwd": TEXT}, "outside"),
        ({"C:\\x.csv": TEXT}, "outside"),
        ({"a\\..\\..\\x.csv": TEXT}, "outside"),
        ({"inner.zip": zipped({"a.csv": TEXT})}, "within"),
        ({"inner.csv.gz": gzipped(TEXT)}, "within"),
        ({"book.xlsx": a_workbook({"S": ROWS})}, "within"),
    ],
)
def test_an_archive_holds_one_plain_file_and_nothing_else(members: Mapping[str, bytes], why: str) -> None:
    """RC16."""
    with pytest.raises(Unreadable, match=why) as caught:
        rows_of(zipped(members))
    assert caught.value.code == "archive_refused"


def test_an_archive_in_a_gzip_is_refused() -> None:
    assert refusal(gzipped(gzipped(TEXT))) == "archive_refused"
    assert refusal(gzipped(zipped({"a.csv": TEXT}))) == "archive_refused"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packers_that_may_need_much_memory_are_refused(method: int) -> None:
    assert refusal(zipped({"a.csv": TEXT}, method=method)) == "archive_refused"


def test_an_encrypted_archive_is_refused() -> None:
    packed = bytearray(zipped({"a.csv": TEXT}))
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(bytes(packed)) == "archive_refused"


def test_an_archive_with_a_million_entries_is_refused_before_its_directory_is_read() -> None:
    packed = bytearray(zipped({"a.csv": TEXT}))
    end = packed.rindex(b"PK\x05\x06")
    packed[end + 12 : end + 16] = (100 * MiB).to_bytes(4, "little")
    assert refusal(bytes(packed)) == "archive_refused"


@pytest.mark.parametrize("packed", [gzipped(a_file(500)), zipped({"a.csv": a_file(500)})], ids=["gzip", "zip"])
def test_an_archive_that_ends_too_early_is_incomplete(packed: bytes) -> None:
    """RC2."""
    with pytest.raises(Incomplete) as caught:
        rows_of(packed[: len(packed) * 2 // 3])
    assert caught.value.code == "truncated"


def test_an_archive_whose_checksum_is_wrong_is_refused() -> None:
    packed = bytearray(gzipped(TEXT))
    packed[-6] ^= 1
    assert refusal(bytes(packed)) == "archive_refused"
    assert refusal(gzipped(TEXT) + b"what is this") == "archive_refused"


# --- bombs ------------------------------------------------------------------------------------------------------------


def test_a_gzip_bomb_is_refused_after_its_first_megabytes() -> None:
    """RC16."""
    content = open_file(io.BytesIO(a_gzip_bomb()), LIMITS).stream()
    buffer = bytearray(64 * 1024)
    with pytest.raises(Unreadable, match="expands"):
        list(iter(lambda: content.readinto(buffer), 0))
    assert content.size < 32 * MiB


def test_a_zip_bomb_is_refused_by_what_it_announces() -> None:
    """RC16."""
    assert len(a_zip_bomb()) < 10_000
    assert refusal(a_zip_bomb()) == "archive_refused"
    assert refusal(a_zip_bomb(4), replace(LIMITS, max_content_bytes=10**9)) == "too_large"


def test_a_content_that_grows_too_large_is_refused() -> None:
    limits = replace(LIMITS, max_content_bytes=1000)
    assert refusal(gzipped(a_file(100)), limits) == "too_large"
    assert refusal(a_file(100), replace(LIMITS, max_bytes=1000)) == "too_large"


def test_tables_that_pack_well_are_no_bombs() -> None:
    assert len(rows_of(gzipped(a_file(20_000)))) == 20_001


# --- rows that go wrong -----------------------------------------------------------------------------------------------


def test_a_row_that_is_no_utf8_is_reported_by_number_and_stops_nothing() -> None:
    """RC3."""
    text = a_table([a_row(1), a_row(2, description="café"), a_row(3)]).replace("é".encode(), b"\xe9")
    notes = Notes()
    assert [row.line_number for row in rows_of(text, notes)] == [1, 2, 3, 4]
    assert [(bad.line_number, bad.code) for bad in notes.bad_rows] == [(3, "not_utf8")]
    assert notes.undecodable == {3}


def test_a_file_in_another_encoding_is_refused_as_a_whole() -> None:
    text = a_table(a_row(number, description="\xe9") for number in range(10_100)).decode().encode("cp1252")
    assert refusal(text) == "encoding"
    assert refusal(TEXT.decode().encode("utf-16") + b"\x00\xd8") == "encoding"


def test_bad_quoting_costs_its_row() -> None:
    notes = Notes()
    rows = rows_of(b'a,b\n"x"y,1\nz,2\n', notes)
    assert [row.line_number for row in rows] == [1, 3]
    assert [(bad.line_number, bad.code) for bad in notes.bad_rows] == [(2, "quoting")]


def test_a_quote_that_is_never_closed_costs_the_text_that_it_takes_in_and_says_so() -> None:
    limits = replace(LIMITS, max_cell_length=100)
    notes = Notes()
    text = b'a,b\n"x,1\n' + b"y,2\n" * 50
    rows = rows_of(text, notes, limits)
    assert rows[0].line_number == 1
    (bad,) = notes.bad_rows
    assert (bad.line_number, bad.code) == (2, "cell_too_long")
    assert "line 27" in bad.detail
    assert rows[1].line_number == 28, "what follows is read again"


def test_a_file_that_ends_in_a_quoted_cell_is_incomplete() -> None:
    """RC2."""
    with pytest.raises(Incomplete):
        rows_of(b'a,b\n1,"x\n')


def test_a_million_columns_and_an_endless_line_are_refused() -> None:
    assert refusal(b"x," * 400_000 + b"\n") == "too_many_columns"
    assert refusal(b"x" * 2 * MiB) == "line_too_long"
    assert refusal(TEXT + b'"' + b"x" * 2 * MiB) == "line_too_long"
    assert refusal(b"a\n" * 200, replace(LIMITS, max_rows=100)) == "too_many_rows"


# --- workbooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (19.99, "19.99"),
        (1999, "1999"),
        (1999.0, "1999"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-7, "0.0000001"),
        (123456789012345.0, "123456789012345"),
        (True, "TRUE"),
        (None, ""),
        ("=1+1", "=1+1"),
        (A_MOMENT, "2026-01-02 03:04:05"),
        (A_MOMENT.replace(hour=0, minute=0, second=0), "2026-01-02"),
        (date(2026, 1, 2), "2026-01-02"),
    ],
)
def test_a_cell_is_the_text_that_a_person_would_have_typed(value: object, text: str) -> None:
    assert cell_text(value) == text


def test_numbers_and_dates_of_a_workbook_come_out_exactly() -> None:
    book = a_workbook({"Sheet": [["amount", "when"], [19.99, A_MOMENT], [1999, date(2026, 1, 2)]]})
    assert [row.cells for row in rows_of(book)[1:]] == [["19.99", "2026-01-02 03:04:05"], ["1999", "2026-01-02"]]


def test_a_formula_has_its_stored_value_or_none() -> None:
    book = a_workbook({"Sheet": [["a", "b"], ["x", "=1+1"]]})
    assert rows_of(book)[1].cells == ["x", ""]


def test_each_sheet_is_looked_at() -> None:
    book = a_workbook({"Cover": [["Dear customer"]], "Lines": ROWS})
    assert [len(readable.head.rows) for readable in opened(book)] == [1, 4]


def test_a_workbook_that_expands_or_defines_entities_is_refused() -> None:
    """RC16."""
    book = a_workbook({"Sheet": ROWS})
    sheet = part_of(book, "xl/worksheets/sheet1.xml")
    entities = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + sheet.replace(
        b"<?xml version='1.0'?>", b""
    )
    assert refusal(with_part(book, "xl/worksheets/sheet1.xml", entities)) == "archive_refused"
    assert refusal(with_part(book, "xl/media/x.bin", b"0" * 4 * MiB)) == "archive_refused"


def test_a_workbook_that_is_damaged_is_refused() -> None:
    book = a_workbook({"Sheet": ROWS})
    for content in (b"<worksheet", b"", b"\xff\xfe\x00", b"<a/>" * 3):
        assert refusal(with_part(book, "xl/worksheets/sheet1.xml", content)) == "workbook_damaged"
    assert opened(with_part(book, "xl/workbook.xml", b"<x/>")) == [], "it has no sheet"


def test_a_sheet_may_not_be_wider_or_longer_than_is_accepted() -> None:
    cell = b'<c r="%s" t="inlineStr"><is><t>x</t></is></c>'
    for place, code in ((b"XFD1", "too_many_columns"), (b"A900000000", "too_many_rows")):
        row = place.lstrip(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        sheet = (
            b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
            b'<row r="' + row + b'">' + cell % place + b"</row></sheetData></worksheet>"
        )
        book = with_part(a_workbook({"Sheet": ROWS}), "xl/worksheets/sheet1.xml", sheet)
        assert refusal(book, replace(LIMITS, max_rows=1000)) == code


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_of(text: str) -> JsonContent:
    (readable,) = opened(text.encode())
    assert isinstance(readable, JsonContent)
    return readable


def test_items_are_numbered_over_all_pages_and_their_numbers_are_exact() -> None:
    pages = '{"data": [{"n": 0.10}, {"n": 2}]}\n{"data": []}{"data": [{"n": 12345678901234567890.5}]}'
    items = [(number, str(item["n"])) for number, item in json_of(pages).items("data.item", Notes())]
    assert items == [(1, "0.10"), (2, "2"), (3, "12345678901234567890.5")]


@pytest.mark.parametrize(
    ("document", "keys", "items"),
    [
        ('{"object": "list", "data": [{"id": 1}, {"id": 2}]}', {"object", "data"}, [{"id": 1}, {"id": 2}]),
        ('[{"id": 1}]', set(), [{"id": 1}]),
        ('{"page": {"x": {"y": 1}}, "result": {"lines": [{"id": 1}]}}', {"page", "result"}, [{"id": 1}]),
        ('{"Txn_details": {"a": {"id": 1}, "b": {"id": 2}}}', {"Txn_details"}, [{"id": 1}, {"id": 2}]),
        ('{"id": 1}', {"id"}, [{"id": 1}]),
        ("[]", set(), []),
    ],
)
def test_a_document_is_recognised_by_its_keys_and_first_items(
    document: str, keys: set[str], items: list[dict[str, int]]
) -> None:
    head = json_of(document).head
    assert set(head.keys) == keys
    assert [dict(item) for item in head.items] == items


def test_a_document_that_ends_too_early_is_incomplete() -> None:
    """RC2."""
    document = '{"data": [' + '{"id": "x"},' * 50_000
    content = json_of(document)
    assert len(content.head.items) == 10
    with pytest.raises(Incomplete):
        list(content.items("data.item", Notes()))


def _read_items(content: bytes) -> None:
    (readable,) = opened(content)
    assert isinstance(readable, JsonContent)
    list(readable.items("data.item", Notes()))


@pytest.mark.parametrize("document", ["{broken", '{"data": [{"a": NaN}]}', '{"data": [{"a": "\udce9"}]}'])
def test_what_is_no_json_is_refused(document: str) -> None:
    with pytest.raises(Unreadable) as caught:
        _read_items(document.encode(errors="surrogateescape"))
    assert caught.value.code == "json_malformed"


def test_a_document_that_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(Unreadable) as caught:
        json_of("[" * 100 + "]" * 100)
    assert caught.value.code == "json_too_deep"


def test_what_kind_a_content_is_does_not_depend_on_names() -> None:
    assert open_file(io.BytesIO(b'  [{"a": 1}]'), LIMITS).kind is Kind.JSON
    assert open_file(io.BytesIO(b"\xef\xbb\xbfa,b"), LIMITS).kind is Kind.TEXT
