"""Cases over HTTP: who may see and decide what, how pages go on, how an operator's words are bounded."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.reconciler.cases import (
    BASE,
    CASES,
    FILE_ID,
    ORDER_ID,
    PAYMENT_ID,
    late_payment,
    opens,
    post,
    read,
    stores_a_line,
    unknown_line,
)
from tests.integration.reconciler.conftest import World

BODIES: dict[str, Any] = {
    "resolve": {"action": "accept", "reason": "because"},
    "assign": {"owner": "ann"},
    "notes": {"text": "x"},
}


async def test_a_case_says_what_both_sides_say_how_old_it_is_and_where_to_look(world: World) -> None:
    (case_id,) = await opens(world, late_payment())
    world.clock.move(3_599)
    case = await read(world, f"{CASES}/{case_id}")
    assert (case["status"], case["scenario"], case["kind"]) == ("open", "late_payment", "orders")
    assert (case["currency"], case["expected_minor"], case["actual_minor"], case["difference_minor"]) == (
        "KWD",
        0,
        12_500,
        12_500,
    )
    assert case["age_seconds"] == 3_600
    assert case["evidence"] == {"order": {"status": "canceled"}, "payment": {"status": "captured"}}
    assert case["links"] == {
        "self": f"{CASES}/{case_id}",
        "order": f"/api/v1/orders/{ORDER_ID}",
        "payment": f"/api/v1/payments/{PAYMENT_ID}",
        "timeline": f"/api/v1/payments/{PAYMENT_ID}/timeline",
        "settlement": f"{BASE}/payments/{PAYMENT_ID}",
        "run": f"{BASE}/runs/run_1",
    }
    assert (case["actions"], case["notes"], case["request"]) == ([], [], None)


async def test_cases_are_listed_newest_first_page_by_page_and_filtered(world: World) -> None:
    ids = await opens(world, late_payment("a"), unknown_line(), late_payment("b", gateway="tabby"))
    first = await read(world, CASES, limit=2)
    rest = await read(world, CASES, limit=2, cursor=first["next_cursor"])
    assert [case["case_id"] for case in first["data"] + rest["data"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert "evidence" not in first["data"][0]
    line = first["data"][1]
    assert line["links"]["file"] == f"{BASE}/settlement-files/{FILE_ID}"
    filters: list[tuple[dict[str, Any], set[str]]] = [
        ({"status": "open"}, set(ids)),
        ({"status": "resolved"}, set()),
        ({"unresolved": "true"}, set(ids)),
        ({"scenario": "unknown_line"}, {ids[1]}),
        ({"kind": "orders"}, {ids[0], ids[2]}),
        ({"gateway": "tabby"}, {ids[1], ids[2]}),
        ({"order_id": ORDER_ID}, {ids[0], ids[2]}),
        ({"payment_id": PAYMENT_ID, "gateway": "stripe"}, {ids[0]}),
        ({"file_id": FILE_ID}, {ids[1]}),
        ({"owner": "ann"}, set()),
    ]
    for params, wanted in filters:
        assert {case["case_id"] for case in (await read(world, CASES, **params))["data"]} == wanted, params


async def test_a_filter_that_is_not_understood_is_refused(world: World) -> None:
    wrong: list[dict[str, Any]] = [
        {"status": "closed"},
        {"scenario": "x"},
        {"limit": 0},
        {"cursor": "run_1"},
        {"order_id": "a b"},
    ]
    for params in wrong:
        await read(world, CASES, 422, **params)


async def test_a_case_that_does_not_exist_is_a_404(world: World) -> None:
    for case_id in (f"case_{'0' * 26}", "nonsense", "case_%00"):
        assert (await read(world, f"{CASES}/{case_id}", 404))["code"] == "not_found"
        for verb, body in BODIES.items():
            assert (await post(world, f"{CASES}/{case_id}/{verb}", body)).status_code == 404


async def test_scopes_are_checked_before_anything_is_looked_up(world: World) -> None:
    case = f"{CASES}/case_{'0' * 26}"
    for path, scope in [
        (CASES, "recon:write"),
        (case, "payments:read"),
        (f"{BASE}/payments/{PAYMENT_ID}", "recon:write"),
        (f"{BASE}/runs/run_{'0' * 26}/report.csv", "recon:write"),
        (f"{BASE}/settlement-files/{FILE_ID}/report.html", "events:read"),
    ]:
        assert (await world.http.get(path)).status_code == 401
        assert (await world.http.get(path, headers=world.token(scope))).status_code == 403
    for verb, body in BODIES.items():
        assert (await world.http.post(f"{case}/{verb}", json=body)).status_code == 401
        answer = await world.http.post(f"{case}/{verb}", json=body, headers=world.token("recon:read"))
        assert answer.status_code == 403


async def test_a_case_is_taken_on_handed_over_and_given_up(world: World) -> None:
    (case_id,) = await opens(world, late_payment())
    path = f"{CASES}/{case_id}/assign"
    assert (await post(world, path, {"owner": "bob"})).json()["owner"] == "bob"
    await post(world, path, {"owner": "bob"})
    assert [case["case_id"] for case in (await read(world, CASES, owner="bob"))["data"]] == [case_id]
    gone = (await post(world, path, {"owner": None}, subject="bob")).json()
    assert gone["owner"] is None
    assert [(note["author"], note["text"]) for note in gone["notes"]] == [
        ("ann", "assigned to bob"),
        ("bob", "assigned to nobody"),
    ]


async def test_notes_keep_who_and_when(world: World) -> None:
    (case_id,) = await opens(world, late_payment())
    answer = await post(world, f"{CASES}/{case_id}/notes", {"text": "  asked the bank "})
    assert answer.status_code == 201
    at = world.clock.now().isoformat().replace("+00:00", "Z")
    (note,) = answer.json()["notes"]
    assert (note["author"], note["text"]) == ("ann", "asked the bank")
    assert note["at"][:19] == at[:19]
    answer = await post(
        world, f"{CASES}/{case_id}/notes", {"text": "two\r\nlines, \u0645\u06cc\u200c\u0631\u0648\u062f"}
    )
    assert answer.json()["notes"][-1]["text"] == "two\nlines, \u0645\u06cc\u200c\u0631\u0648\u062f"


REFUSED: list[tuple[str, Any]] = [
    ("notes", {"text": ""}),
    ("notes", {"text": "   "}),
    ("notes", {"text": "x" * 2_001}),
    ("notes", {"text": "a\x00b"}),
    ("notes", {"text": "\ud800"}),
    ("notes", {"text": "a\x1b[2J"}),
    ("notes", {"text": "a\u202eb"}),
    ("notes", {"text": "a\rb"}),
    ("assign", {"owner": "a\x9b31m"}),
    ("resolve", {"action": "accept", "reason": "two\nlines"}),
    ("notes", {"text": "x", "author": "bob"}),
    ("assign", {}),
    ("assign", {"owner": ""}),
    ("resolve", {"action": "accept"}),
    ("resolve", {"action": "accept", "reason": "no"}),
    ("resolve", {"action": "accept", "reason": " a  "}),
    ("resolve", {"action": "accept", "reason": "x" * 501}),
    ("resolve", {"action": "delete", "reason": "because"}),
    ("resolve", {"action": "match", "reason": "because"}),
    ("resolve", {"action": "accept", "reason": "because", "payment_id": PAYMENT_ID}),
    ("resolve", {"action": "match", "reason": "because", "payment_id": "pay_x' OR 1=1"}),
    ("resolve", {"action": ["accept"], "reason": "because"}),
]


async def test_words_are_bounded_and_nothing_is_kept_of_what_is_refused(world: World) -> None:
    (case_id,) = await opens(world, late_payment())
    headers = world.token("recon:write") | {"content-type": "application/json"}
    for verb, body in REFUSED:
        answer = await world.http.post(f"{CASES}/{case_id}/{verb}", content=json.dumps(body), headers=headers)
        assert answer.status_code in (400, 422), (verb, body, answer.text)
    case = await read(world, f"{CASES}/{case_id}")
    assert (case["status"], case["notes"], case["owner"]) == ("open", [], None)


async def test_a_payment_tells_its_lines_with_file_and_payout_and_its_cases(world: World) -> None:
    (case_id,) = await opens(world, late_payment())
    await stores_a_line(world, file_id=FILE_ID, payment_id=PAYMENT_ID)
    told = await read(world, f"{BASE}/payments/{PAYMENT_ID}")
    (line,) = told["lines"]
    assert (line["file_name"], line["line_number"], line["kind"]) == ("may.csv", 3, "sale")
    assert (line["gross_minor"], line["fee_minor"], line["net_minor"]) == (1_000, 30, 970)
    assert (line["payout"]["stated_minor"], line["payout"]["unexplained_minor"]) == (969, -1)
    assert [case["case_id"] for case in told["cases"]] == [case_id]
    await stores_a_line(world, file_id=FILE_ID, payment_id=None, position=2, line_number=9, gross=-5)
    path = f"{BASE}/settlement-files/{FILE_ID}/lines"
    (one,) = (await read(world, path, line_number=9))["data"]
    assert (one["gross_minor"], one["payment_id"], one["payout"]["payout_reference"]) == (-5, None, "po_1")
    first = await read(world, path, limit=1)
    rest = await read(world, path, cursor=first["next_cursor"])
    assert [line["position"] for line in first["data"] + rest["data"]] == [1, 2]
    await read(world, path.replace("stf_0", "stf_1"), 404)
    other = await read(world, f"{BASE}/payments/pay_{'1' * 26}")
    assert (other["lines"], other["cases"]) == ([], [])
    await read(world, f"{BASE}/payments/nonsense", 404)
