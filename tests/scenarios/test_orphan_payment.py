"""A payment with money whose order order_service does not know: a case, or a refund by policy (RC7)."""

from __future__ import annotations

import pytest

from shared.money import Money
from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_payment_of_an_unknown_order_is_a_case_for_a_person(town: Town) -> None:
    payment = await town.market.paid("generic", Money(4200, "EUR"))
    await town.run()
    [case] = await town.cases(payment_id=payment["payment_id"])
    assert (case["scenario"], case["action"], case["actual_minor"]) == ("orphan_payment", None, 4200)
    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "open"
    assert (await town.market.entry(payment))["refunded_minor"] == 0

    asked = {"action": "refund", "reason": "the shop's database was restored; nobody can deliver it"}
    for subject, status in (("ann", "awaiting_approval"), ("ben", "open")):
        answer = await town.call(
            "reconciler",
            "POST",
            f"/reconciliation/cases/{case['case_id']}/resolve",
            json=asked,
            scopes="recon:read recon:write",
            subject=subject,
        )
        assert (answer.status_code, answer.json()["status"]) == (200, status), answer.text
    await town.is_told()
    await town.market.becomes(payment, amount_refunded=4200)
    await town.run()
    closed = await town.case(case["case_id"])
    assert closed["status"] == "resolved"
    assert await town.commands_for(case) == ["refund.requested.v1"]
