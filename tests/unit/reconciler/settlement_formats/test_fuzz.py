"""Ten thousand spoilt files: lines that add up, reports of bad rows, or a refusal, and never anything else (RC3)."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, cast

import pytest

from services.reconciler.domain.settlement import BadRow, Parsed, SettlementLine, StatedPayout, StatedTotal
from services.reconciler.settlement_formats import registry
from services.reconciler.settlement_formats.cells import LARGEST_MINOR
from services.reconciler.settlement_formats.port import JsonFormat, Layout, ReadingContext, Row, TableFormat, Unreadable
from shared.money import CURRENCY_EXPONENT
from tests.unit.gateway_sandbox.test_sown_settlements import written
from tests.unit.reconciler.settlement_formats.parsing import adds_up
from tests.unit.reconciler.settlement_formats.test_paypal_reports import END, SAMPLE
from tests.unit.reconciler.settlement_formats.test_sandbox_files import FORMAT
from tests.unit.reconciler.settlement_formats.test_sheet_samples import PAYMENT, RAZORPAY_REPORT, a_transaction

MUTATIONS = 10_000

STRANGE = [
    "", " ", "NaN", "1e5", "١٢٣", "12,50", "1,234.50", "-", "=cmd()", "9" * 400, "\x00", "\u202e", "\ud800", "0.005",
    "99999999999999999999", "-1.00", "1.00", "CR", "DR", "T1107", "refund", "XXX", "jpy", "2026-13-45", "x" * 1001,
    "null", "\ufeff", "7" * 15, "0", "SB", "FC", "1.0000001",
]  # fmt: skip
STRANGE_VALUES: list[Any] = [
    *STRANGE, None, True, False, -1, 0, 10**30, Decimal("NaN"), Decimal("Infinity"), Decimal("1e400"), Decimal("1.5"),
    [], {}, [1], {"id": 1}, 1.5, Decimal("-0"), 10**14,
]  # fmt: skip


def bodies() -> dict[str, str]:
    found = {name: written(gateway).file.body.decode() for gateway, name in FORMAT.items()}
    found["paypal_transaction_detail"] = (
        SAMPLE.replace('"Custom Field"', '"Transactional Status"').replace('"ORD-1001"\n', '"S"\n') + END
    )
    found["stripe_balance_transactions"] = json.dumps({"object": "list", "data": [a_transaction(), a_transaction()]})
    settlement = {"id": "setl_1", "amount": 5, "status": "processed", "utr": "U", "created_at": 1767571200}
    found["razorpay_settlements"] = json.dumps({"entity": "collection", "items": [settlement, PAYMENT]})
    found["razorpay_report"] = RAZORPAY_REPORT
    info = {
        "transaction_id": "C", "transaction_event_code": "T0006", "transaction_initiation_date": "2026-01-01T00:00:01Z",
        "transaction_amount": {"currency_code": "USD", "value": "19.99"}, "transaction_status": "S",
        "fee_amount": {"currency_code": "USD", "value": "-1.07"},
    }  # fmt: skip
    found["paypal_transactions"] = json.dumps({"transaction_details": [{"transaction_info": info}] * 2})
    found["payout_statement"] = written("stripe").statement.body.decode()
    return found


def test_every_format_is_mutated() -> None:
    assert set(bodies()) == set(registry.formats({}))


def mutated_tables(name: str, body: str, rng: random.Random) -> Iterator[list[Parsed]]:
    rows = list(csv.reader(io.StringIO(body, newline="")))
    format_ = cast("TableFormat", registry.format_named(name))
    context = ReadingContext(format_.gateway or "stripe", "")
    while True:
        table = [list(cells) for cells in rows]
        for _ in range(rng.randint(1, 3)):
            _spoil_table(table, rng)
        yield list(format_.read((Row(number, cells) for number, cells in enumerate(table, start=1)), context))


def _spoil_table(table: list[list[str]], rng: random.Random) -> None:
    row = rng.choice(table) if table else []
    match rng.randrange(7):
        case 0 | 1 | 2 if row:
            row[rng.randrange(len(row))] = rng.choice(STRANGE)
        case 3 if row:
            cell = rng.randrange(len(row))
            row[cell] = _spoilt_text(row[cell], rng)
        case 4 if row:
            del row[rng.randrange(len(row)) :]
        case 5:
            row.insert(rng.randint(0, len(row)), rng.choice(STRANGE))
        case _ if table:
            del table[rng.randrange(len(table))]


def _spoilt_text(text: str, rng: random.Random) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice("0123456789.,-+ eE%٣\x07\u00a0") + text[place + rng.randint(0, 1) :]


def mutated_documents(name: str, body: str, rng: random.Random) -> Iterator[list[Parsed]]:
    format_ = cast("JsonFormat", registry.format_named(name))
    context = ReadingContext(format_.gateway or "stripe", "")
    while True:
        document = json.loads(body)
        for _ in range(rng.randint(1, 3)):
            _spoil_value(document, rng)
        yield list(format_.read(enumerate(_items(document, format_.items_path), start=1), context))


def _items(document: Any, path: str) -> list[Any]:
    for key in path.split(".") if path else []:
        if key == "item":
            return document if isinstance(document, list) else []
        document = document.get(key) if isinstance(document, dict) else None
    return [document]


def _spoil_value(value: Any, rng: random.Random) -> None:
    """Somewhere below: one value becomes another, or goes away."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.95:
            value = inner
            continue
        if rng.random() < 0.15:
            del value[key]
        elif isinstance(inner, str) and rng.random() < 0.5:
            value[key] = _spoilt_text(inner, rng)
        else:
            value[key] = rng.choice(STRANGE_VALUES)
        return


def is_sound(found: Parsed) -> bool:
    match found:
        case SettlementLine():
            texts = [each for each in found[9:15] if each is not None] + [found.source_type]
            clean = all(isinstance(text, str) and text.isprintable() and 0 < len(text) <= 1000 for text in texts)
            return adds_up(found) and found.currency in CURRENCY_EXPONENT and clean and len(found.source_type) <= 64
        case StatedPayout():
            clean = found.payout_reference.isprintable() and found.currency in CURRENCY_EXPONENT
            return clean and type(found.amount_minor) is int and abs(found.amount_minor) < LARGEST_MINOR * 4
        case StatedTotal():
            return type(found.stated) is int and type(found.counted) is int
        case BadRow():
            return found.code.isascii() and 0 < len(found.detail) < 300 and found.line_number >= 1


Mutations = Callable[[str, str, random.Random], Iterator[list[Parsed]]]


@pytest.mark.parametrize("name", sorted(registry.formats({})))
def test_a_spoilt_file_gives_lines_that_add_up_or_reports(name: str) -> None:
    body, rng = bodies()[name], random.Random(name)
    table = registry.format_named(name).layout is Layout.TABLE
    make: Mutations = mutated_tables if table else mutated_documents
    lines = bad = refused = 0
    mutations = make(name, body, rng)
    for _ in range(MUTATIONS // len(registry.formats({})) + 1):
        try:
            found = next(mutations)
        except Unreadable:
            refused += 1
            mutations = make(name, body, rng)
            continue
        for each in found:
            assert is_sound(each), each
        lines += sum(isinstance(each, SettlementLine | StatedPayout) for each in found)
        bad += sum(isinstance(each, BadRow) for each in found)
    assert lines, "every file was refused: nothing was tried"
    assert bad + refused > 50
