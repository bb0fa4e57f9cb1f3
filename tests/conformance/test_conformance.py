"""Every case, for every gateway that is registered (proof.md; W1, W2, W5, W9, W15, PY1-PY6, G1-G12)."""

from __future__ import annotations

import pytest

from tests.conformance.cases import CASES, Subject, subjects
from tests.conformance.market import Market

SUBJECTS = subjects()

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gateway", SUBJECTS)
async def test_conformance(market: Market, gateway: str, name: str) -> None:
    subject: Subject = SUBJECTS[gateway]
    case = CASES[name]
    reason = case.lacks(subject)
    if reason is None:
        await case.run(market, subject.here(market))
        return
    assert reason.strip(), f"{gateway} does not offer {case.title}, and does not say why"
    if case.refused is not None:
        await case.refused(market, subject.here(market))
