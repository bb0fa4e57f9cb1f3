"""Cases and settlement lines for tests: opened as a run opens them, stored as reading a file stores them."""

from __future__ import annotations

from typing import Any

import httpx

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject
from services.reconciler.use_cases.keep_cases import keep_cases
from tests.integration.reconciler.conftest import World

BASE = "/api/v1/reconciliation"
CASES = f"{BASE}/cases"
ORDER_ID, PAYMENT_ID = f"ord_{'0' * 26}", f"pay_{'0' * 26}"
FILE_ID = f"stf_{'0' * 26}"


async def opens(world: World, *findings: Finding) -> list[str]:
    """Ids of the cases, in the order of the findings."""
    context, ids = world.container.context, []
    for each in findings:
        async with context.uow() as tx:
            await keep_cases(tx, [each], looked_at=(), run_id="run_1", context=context)
            ids.append((await tx.cases.lock(keys=[each.key], case_ids=[]))[0].case_id)
        world.clock.move(1)
    return ids


def late_payment(key: str = "late", **subject: Any) -> Finding:
    about = {"gateway": "stripe", "order_id": ORDER_ID, "payment_id": PAYMENT_ID} | subject
    evidence = {"order": {"status": "canceled"}, "payment": {"status": "captured"}}
    return Finding(CaseKind.ORDERS, Scenario.LATE_PAYMENT, key, Subject(**about), "KWD", 0, 12_500, evidence=evidence)


def unknown_line(key: str = "line") -> Finding:
    about = Subject(gateway="tabby", file_id=FILE_ID, line_number=7)
    return Finding(CaseKind.SETTLEMENT, Scenario.UNKNOWN_LINE, key, about, "AED", 0, -100)


async def read(world: World, path: str, expect: int = 200, **params: Any) -> Any:
    answer = await world.http.get(path, params=params, headers=world.token("recon:read"))
    assert answer.status_code == expect, answer.text
    return answer.json()


async def post(
    world: World, path: str, body: Any, *, subject: str = "ann", scope: str = "recon:write"
) -> httpx.Response:
    return await world.http.post(path, json=body, headers=world.token(scope, subject=subject))


async def stores_a_line(world: World, *, file_id: str, payment_id: str | None, **line: Any) -> None:
    """One line of a file that was read, and its payout, of which one minor unit is missing."""
    await world.execute(
        """
        INSERT INTO settlement_files (file_id, gateway, format, format_version, name, source, received_by, size_bytes,
            content_bytes, content_sha256, status, received_at, lines, rows)
        VALUES (:file_id, 'stripe', 'stripe_balance', 1, 'may.csv', 'upload', 'ann', 1, 1,
            sha256(convert_to(:file_id, 'UTF8')), 'read', :at, 1, 1)
        ON CONFLICT DO NOTHING
        """,
        file_id=file_id,
        at=world.clock.now(),
    )
    values = {
        "position": 1,
        "line_number": 3,
        "kind": "sale",
        "currency": "EUR",
        "gross": 1_000,
        "fee": 30,
        "reference": "ch_1",
        "payment_id": payment_id,
        "matched_by": payment_id and "reference",
    } | line
    await world.execute(
        """
        INSERT INTO settlement_lines (file_id, position, gateway, line_number, part, kind, currency, gross_minor,
            fee_minor, tax_minor, net_minor, occurred_at, reference, payout_reference, source_type, identity,
            occurrence, payment_id, matched_by)
        VALUES (:file_id, :position, 'stripe', :line_number, 0, :kind, :currency, :gross, :fee, 0,
            CAST(:gross AS bigint) - CAST(:fee AS bigint), :at, :reference, 'po_1', 'charge', 1, 1,
            :payment_id, :matched_by)
        """,
        file_id=file_id,
        at=world.clock.now(),
        **values,
    )
    await world.execute(
        """
        INSERT INTO settlement_payouts (gateway, payout_reference, currency, lines_minor, lines, statement_minor,
            first_seen_at, updated_at)
        VALUES ('stripe', 'po_1', 'EUR', 970, 1, 969, :at, :at) ON CONFLICT DO NOTHING
        """,
        at=world.clock.now(),
    )
