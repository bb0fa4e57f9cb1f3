"""How ``payrail reconcile`` shows what it was told. Nothing of it is obeyed as markup, or by the terminal."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.cli.plain import plain, plain_lines

output = Console(highlight=False, soft_wrap=True, markup=False)
_ANY_WIDTH = 10_000


def print_file(file: dict[str, Any]) -> None:
    output.print(f"{file['file_id']}  {file['status']}  {file['gateway']} {file['format']}")
    if file["status"] != "received":
        counts = f"{file['lines']} lines, {file['repeated_lines']} told before, {file['bad_rows']} bad rows"
        output.print(counts)
    if file["problem"]:
        output.print(plain(f"{file['problem']}: {file['problem_detail']}"))


def print_run(run: dict[str, Any]) -> None:
    output.print(f"{run['run_id']}  {run['kind']}  {run['status']}")
    if run["status"] == "running":
        return
    if run["problem"]:
        output.print(f"it failed: {run['problem']}")
    counts = f"{run['checked']} looked at, {run['matched']} as they should be, {run['failed']} failed"
    output.print(f"{counts}; {run['cases_opened']} cases opened, {run['cases_resolved']} closed")
    if run["totals"]:
        output.print(_totals_table(run["totals"]))


def _totals_table(totals: list[dict[str, Any]]) -> Table:
    places = ("matched", "in_transit", "disputed", "unexplained")
    table = Table("gateway", "currency")
    for place in places:
        table.add_column(place.replace("_", " "), justify="right", overflow="fold")
    for each in totals:
        currency = each.get("currency")
        amounts = [_amount(each.get(f"{place}_minor", 0), currency) for place in places]
        table.add_row(_cell(each.get("gateway")), _cell(currency), *amounts)
    return table


def print_cases(cases: list[dict[str, Any]]) -> None:
    if not cases:
        output.print("no cases")
        return
    names = ("case", "scenario", "status", "gateway", "about", "difference", "age", "owner")
    rows = [_row(case) for case in cases]
    table = Table(*names)
    for row in rows:
        table.add_row(*map(Text, row))
    wanted = output.measure(table, options=output.options.update(max_width=_ANY_WIDTH)).maximum
    if output.is_terminal and wanted <= output.width:
        output.print(table)
    else:  # a line each, so that no id is cut
        output.print("\n".join("  ".join(row) for row in rows))


def _row(case: dict[str, Any]) -> list[str]:
    about = case["order_id"] or case["payment_id"] or case["payout_reference"] or case["file_id"]
    difference = _amount(case["difference_minor"], case["currency"], is_signed=True)
    cells = (case["case_id"], case["scenario"], case["status"], case["gateway"], about)
    return [*map(plain, cells), difference, _age(case["age_seconds"]), plain(case["owner"])]


def print_case(case: dict[str, Any]) -> None:
    table = Table("", show_header=False)
    table.add_column("", overflow="fold")
    names = ("case_id", "scenario", "status", "gateway", "order_id", "payment_id", "file_id", "line_number")
    for name in (*names, "payout_reference", "action", "owner", "opened_at", "resolution", "resolved_by", "reason"):
        if case[name] is not None:
            table.add_row(name.replace("_", " "), _cell(case[name]))
    for side in ("expected", "actual", "difference"):
        if case[f"{side}_minor"] is not None:
            amount = _amount(case[f"{side}_minor"], case["currency"], is_signed=side == "difference")
            table.add_row(side, f"{amount} {case['currency'] or ''}")
    table.add_row("age", _age(case["age_seconds"]))
    output.print(table)
    if case["request"]:
        request = case["request"]
        words = f"{request['by']} asked for {request['action']}: {request['reason']}; a second person has to ask too"
        output.print(plain(words))
    for action in case["actions"]:
        seen = action["verified_at"] or "not seen yet"
        output.print(plain(f"{action['at']}  {action['action']} by {action['asked_by']}, effect {seen}"))
    for note in case["notes"]:
        output.print(plain_lines(f"{note['at']}  {note['author']}: {note['text']}", indent="    "))
    output.print(plain_lines(json.dumps(case["evidence"], indent=2, ensure_ascii=False)))


def print_decided(case: dict[str, Any], action: str) -> None:
    if case["status"] == "resolved":
        words = f"{case['case_id']} is resolved: {case['resolution']}"
    elif case["status"] == "awaiting_approval":
        words = f"{case['case_id']} waits: a second person has to run the same command with their own token"
    else:
        words = f"{action} was sent; the next run sees its effect and closes {case['case_id']}"
    output.print(words)


def _amount(amount_minor: int | None, currency: str | None, *, is_signed: bool = False) -> str:
    from shared.money import CURRENCY_EXPONENT, Money

    if amount_minor is None:
        return "-"
    sign = "+" if is_signed and amount_minor > 0 else ""
    if currency is None or currency not in CURRENCY_EXPONENT:
        return f"{sign}{amount_minor}"
    return f"{sign}{Money(amount_minor, currency).as_major():,f}"


def _age(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _cell(value: object) -> Text:
    return Text(plain(value))
